"""The causal forward pass of any Wan 2.1 backbone with the standard module names.

It walks the backbone's own layers (a host's WanModel with LoRA, fp8 or GGUF weights, or our
``WanBackbone``) by *calling* them; it never reads a weight, because a host may keep weights packed,
patched or on another device. Raw parameters (``modulation``) go through ``cast``.

Sources: Wan 2.1 (per-frame timesteps, rotary, modulation), LongLive (KV cache, context pass),
Stream-T1 (keys cached before rotary). Exact description and numbers: the goldens in the tests.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor, nn

from . import layer as steps
from .attention import AttentionFunction, attention
from .compiled import Runner
from .kv import ChunkKV, KVPlace, Layer, LayOut, Past, Placed, Route, place
from .layer import Angles

CastFunction = Callable[[Tensor, torch.dtype, torch.device], Tensor]


@dataclass(frozen=True, eq=False)
class Text:
    """Cross-attention keys and values of one prompt, made once and used by every pass."""

    keys: tuple[Tensor, ...] = field(repr=False)  # per layer [1, text_len, N, D]
    values: tuple[Tensor, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Siblings:
    """Rows of a batch that go on from the same past, and where they start."""

    rows: slice
    past: Past
    start: int


def _cast(parameter: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return parameter.to(device=device, dtype=dtype)


class CausalWan:
    """A Wan backbone that predicts flow for one chunk given the chunks before it."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        attention: AttentionFunction = attention,
        cast: CastFunction = _cast,
        kv_place: KVPlace = KVPlace.DEVICE,
        run: Runner | None = None,
    ) -> None:
        """``run`` takes the steps of ``layer.py``: it may compile them."""
        self.backbone = backbone
        self.kv_place = kv_place
        self.dtype = dtype
        self.device = torch.device(device)
        self.attention = attention
        self.cast = cast
        self.run = run or Runner()

    @property
    def head_dim(self) -> int:
        return self.backbone.dim // self.backbone.num_heads

    @property
    def exact_device(self) -> torch.device:
        """Where latents are between denoiser calls: with the model, if it knows float64."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def wait(self) -> None:
        """Until all that was asked of the device is done."""
        torch.get_device_module(self.device).synchronize()

    def encode_text(self, text: Tensor) -> Text:
        """Text encoder rows [1, L, text_dim] -> cross-attention keys and values per layer.

        Rows are cut or zero-padded to ``text_len``; padding rows are attended too, as in training.
        """
        rows = self.backbone.text_len
        text = text[:, :rows].to(self.device, self.dtype)
        text = torch.nn.functional.pad(text, (0, 0, 0, rows - text.shape[1]))
        hidden = self.backbone.text_embedding(text)  # (1, text_len, dim)
        keys, values = [], []
        for layer in self.backbone.blocks:
            attn = layer.cross_attn
            keys.append(self._heads(attn.norm_k(attn.k(hidden))))
            values.append(self._heads(attn.v(hidden)))
        return Text(tuple(keys), tuple(values))

    def with_kv_at(self, place: KVPlace) -> "CausalWan":
        """The same model, keeping keys and values elsewhere."""
        other = copy.copy(self)
        other.kv_place = place
        return other

    def store(self, tensor: Tensor) -> Tensor:
        """Keys or values, to where they are kept."""
        return self.kv_place.store(tensor, self.device)

    def layout(self, latent_hw: tuple[int, int], relative: bool = False) -> LayOut:
        """What puts earlier chunks in their places: each at its own frames.

        ``relative``: side by side from 0, and the chunk that follows after them. A chunk that
        several paths share is rotated once; that is kept as long as what is returned.
        """
        rows, columns = self._grid(latent_hw)
        near = self.kv_place is KVPlace.DEVICE

        def length(chunk: ChunkKV) -> int:
            return chunk.keys[0].shape[1] // (rows * columns)  # latent frames

        @functools.cache
        def placed(chunk: ChunkKV, start: int) -> Placed:
            angles = self._angles(start, length(chunk), rows, columns)
            rotate = functools.partial(steps.rotate, angles=angles)
            return place(chunk, rotate, None if near else self._fetch)

        def lay_out(chunks: Sequence[ChunkKV]) -> Past:
            lengths = [length(chunk) for chunk in chunks]
            starts = [chunk.first_frame for chunk in chunks]
            if relative:
                starts = [sum(lengths[:n]) for n in range(len(chunks))]
            return Past(tuple(map(placed, chunks, starts)), sum(lengths) if relative else None)

        return lay_out

    def lay_out(
        self, chunks: Sequence[ChunkKV], latent_hw: tuple[int, int], relative: bool = False
    ) -> Past:
        """One path's chunks in their places."""
        return self.layout(latent_hw, relative)(chunks)

    def flow(
        self,
        latent: Tensor,
        timesteps: Tensor,
        first_frame: int,
        text: Text,
        past: Past | Sequence[Past],
    ) -> Tensor:
        """Predicted flow (noise - clean) [B, C, F, H, W] in float32.

        ``latent`` [B, C, F, H, W] noisy, ``timesteps`` [F] on the 0..1000 scale; ``past`` of all
        of the batch, or of each, siblings next to each other.
        """
        pasts = [past] * len(latent) if isinstance(past, Past) else past
        return self._forward(latent, timesteps, first_frame, text, pasts, None)

    def context_pass(
        self,
        latent: Tensor,
        timesteps: Tensor,
        first_frame: int,
        text: Text,
        past: Past,
        route: Route | None = None,
    ) -> ChunkKV:
        """Keys and values of a finished chunk [1, C, F, H, W], at ``timesteps`` [F] (about 0)."""
        collected: list[Layer] = []
        self._forward(latent, timesteps, first_frame, text, [past], collected)
        keys, values = zip(*collected, strict=True)
        return ChunkKV(first_frame, keys, values, route).moved(self.store)

    def _forward(
        self,
        latent: Tensor,
        timesteps: Tensor,
        first_frame: int,
        text: Text,
        pasts: Sequence[Past],
        collected: list[Layer] | None,
    ) -> Tensor:
        model = self.backbone
        # patch_embedding is float32 in every host, whatever the other weights are
        patches = model.patch_embedding(self._fetch(latent).float()).to(self.dtype)
        frames, rows, columns = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2)  # (B, L, dim)
        e = model.time_embedding(self._sinusoid(timesteps))[None]  # (1, F, dim)
        e0 = model.time_projection(e).unflatten(2, (6, -1))  # (1, F, 6, dim)
        siblings = [*_families(pasts, first_frame)]
        angles = self._angles_of(siblings, frames, rows, columns)
        for i, layer in enumerate(model.blocks):
            modulation = self._modulation(layer.modulation) + e0  # (1, F, 6, dim)
            query, keys, *own_kv = self.run(
                steps.before_self_attention, layer, x, modulation, *angles, model.num_heads
            )
            found = self._self_attention(query, keys, own_kv[1], siblings, i)
            x, query = self.run(
                steps.before_cross_attention, layer, x, found, modulation, model.num_heads
            )
            found = self._cross_attention(query, text, i)
            x = self.run(steps.after_cross_attention, layer, x, found, modulation)
            if collected is not None:
                collected.append(tuple(own_kv))
        shift, scale = (self._modulation(model.head.modulation) + e[:, :, None]).unbind(2)
        out = model.head.head(steps.modulate(model.head.norm(x), shift, scale))
        return self._unpatchify(out, (frames, rows, columns)).float()

    def _self_attention(
        self,
        query: Tensor,
        own_keys: Tensor,
        own_values: Tensor,
        siblings: Sequence[_Siblings],
        layer: int,
    ) -> Tensor:
        """Each row [L, N, D] attends to its own path's past, and to itself."""
        near = {chunk: chunk.layer(layer) for chunk in {c for s in siblings for c in s.past.chunks}}
        attended = []
        for some in siblings:
            past = [near[chunk] for chunk in some.past.chunks]
            keys = _beside([keys for keys, _ in past], own_keys[some.rows])
            values = _beside([values for _, values in past], own_values[some.rows])
            attended.append(self.attention(query[some.rows], keys, values))
        return _joined(attended, dim=0)

    def _cross_attention(self, query: Tensor, text: Text, layer: int) -> Tensor:
        keys = text.keys[layer].expand(len(query), -1, -1, -1)
        values = text.values[layer].expand(len(query), -1, -1, -1)
        return self.attention(query, keys, values)

    def _heads(self, x: Tensor) -> Tensor:
        return steps.split(x, self.backbone.num_heads)

    def _grid(self, latent_hw: tuple[int, int]) -> tuple[int, int]:
        _, patch_h, patch_w = self.backbone.patch_size
        return latent_hw[0] // patch_h, latent_hw[1] // patch_w

    def _modulation(self, parameter: Tensor) -> Tensor:
        return self.cast(parameter, self.dtype, self.device)[:, None]

    def _sinusoid(self, timesteps: Tensor) -> Tensor:
        """Timesteps [F] -> [F, freq_dim]: cosines, then sines, computed in float64."""
        half = self.backbone.freq_dim // 2
        rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = timesteps.double().cpu()[:, None] * rates
        return self._fetch(torch.cat([angles.cos(), angles.sin()], dim=1).to(self.dtype))

    def _angles_of(
        self, siblings: Sequence[_Siblings], frames: int, rows: int, columns: int
    ) -> Angles:
        """Of a batch [B, L, 1, D/2]; [1, L, 1, D/2] where all start at the same position."""
        starts = [some.start for some in siblings for _ in range(some.rows.start, some.rows.stop)]
        if len({*starts}) == 1:
            starts = starts[:1]
        found = {start: self._angles(start, frames, rows, columns) for start in {*starts}}
        cos, sin = zip(*(found[start] for start in starts), strict=True)
        return torch.stack(cos), torch.stack(sin)

    def _angles(self, first_frame: int, frames: int, rows: int, columns: int) -> Angles:
        """Of the rotary angle of every token, from float64 angles."""
        pairs = self.head_dim // 2
        side = pairs // 3
        grid = (2, frames, rows, columns)
        frame = self._fetch(_turns(first_frame, frames, pairs - 2 * side))[:, :, None, None]
        row = self._fetch(_turns(0, rows, side))[:, None, :, None]
        column = self._fetch(_turns(0, columns, side))[:, None, None, :]
        parts = [part.expand(*grid, -1) for part in (frame, row, column)]
        cos, sin = torch.cat(parts, dim=-1).reshape(2, -1, 1, pairs)
        return cos, sin

    def _fetch(self, tensor: Tensor) -> Tensor:
        """From the CPU's memory to where it is used, without waiting for it."""
        return tensor.to(self.device, non_blocking=True)

    def _unpatchify(self, out: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Head output [B, L, patch * C], channel fastest -> [B, C, F, H, W]."""
        patch_f, patch_h, patch_w = self.backbone.patch_size
        frames, rows, columns = grid
        x = out.reshape(-1, frames, rows, columns, patch_f, patch_h, patch_w, self.backbone.out_dim)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # (B, C, F, pf, h, ph, w, pw)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _families(pasts: Sequence[Past], first_frame: int) -> Iterator[_Siblings]:
    """Rows of a batch that follow each other and have the same past."""
    row = 0
    for past, members in groupby(pasts):
        rows = slice(row, row + len([*members]))
        yield _Siblings(rows, past, first_frame if past.next_start is None else past.next_start)
        row = rows.stop


def _beside(past: Sequence[Tensor], own: Tensor) -> Tensor:
    """Keys or values of earlier chunks [1, L, N, D], which all candidates share, and their own."""
    shared = [tensor.expand(len(own), -1, -1, -1) for tensor in past]
    return _joined([*shared, own], dim=1)


def _joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(tensors, dim) if len(tensors) > 1 else tensors[0]


def _turns(first: int, count: int, pairs: int) -> Tensor:
    """Cosine and sine [2, count, pairs] along one axis: pair j turns by p * 10000^(-j/pairs)."""
    positions = torch.arange(first, first + count, dtype=torch.float64)
    angles = positions[:, None] * 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    return torch.stack([angles.cos(), angles.sin()]).float()
