"""Teacher forcing with the semantics of the key/value cache: every chunk of a clip in one forward
pass.

Clean chunks make keys and values at timestep 0; noisy chunks are what is learned. Each chunk
attends to itself and to the clean chunks that plain streaming would have kept for it: the first
(the sink) and the two before it. The result for a noisy chunk equals `CausalWan.flow` with that
context (there is a test). Knows nothing of losses, data or noise levels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from stream_t1_core.backbone import WanBackbone
from stream_t1_core.causal_wan import CausalWan

WINDOW_CHUNKS = 2  # clean chunks before the own one, besides the sink


@dataclass(frozen=True, eq=False)
class TextBatch:
    """Prompts of a batch: real rows, and how often the one padding row stands for itself."""

    rows: Tensor = field(repr=False)  # [B, L + 1, text_dim]; the last row is zero: the padding
    bias: Tensor = field(repr=False)  # [B, 1, 1, L + 1] added to attention logits

    @classmethod
    def of(cls, prompts: Sequence[Tensor], text_rows: int) -> "TextBatch":
        """From the real rows of each prompt [L_i, text_dim].

        All padding rows of a prompt are alike, so n of them weigh as much as one with log(n) added.
        """
        longest = max(len(rows) for rows in prompts)
        rows = torch.zeros(len(prompts), longest + 1, prompts[0].shape[1])
        bias = torch.full((len(prompts), 1, 1, longest + 1), -torch.inf)
        for i, real in enumerate(prompts):
            rows[i, : len(real)] = real
            bias[i, ..., : len(real)] = 0.0
            bias[i, ..., -1] = math.log(text_rows - len(real))
        return cls(rows, bias)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one forward pass sees: N clean chunks of one clip, and M noisy ones."""

    clean: Tensor = field(repr=False)  # [B, N, C, F, H, W], chunks 0..N-1
    noisy: Tensor = field(repr=False)  # [B, M, C, F, H, W]
    timesteps: Tensor = field(repr=False)  # [B, M] on the 0..1000 scale
    numbers: tuple[int, ...]  # chunk number of each noisy chunk, 0..N
    jump: int = 0  # chunks left out between the sink and the rest, in rotary positions only


class TeacherForcing:
    """Predicts the flow of noisy chunks, with gradients, through the backbone's own modules."""

    def __init__(self, backbone: WanBackbone) -> None:
        self.backbone = backbone
        self.walk = CausalWan(backbone)

    def flow(self, lesson: Lesson, text: TextBatch) -> Tensor:
        """Predicted flow (noise - clean) of the noisy chunks [B, M, C, F, H, W]."""
        model = self.backbone
        chunks = torch.cat([lesson.clean, lesson.noisy], dim=1)  # (B, S, C, F, H, W)
        batch, count, clean_count = *chunks.shape[:2], lesson.clean.shape[1]
        patches = model.patch_embedding(chunks.flatten(0, 1))  # (B*S, dim, F, h, w)
        grid = tuple(patches.shape[2:])
        x = patches.flatten(2).transpose(1, 2).unflatten(0, (batch, count))  # (B, S, L, dim)
        clean_times = lesson.timesteps.new_zeros(batch, clean_count)
        times = torch.cat([clean_times, lesson.timesteps], dim=1)
        e = model.time_embedding(self.walk._sinusoid(times.flatten())).unflatten(0, (batch, count))
        e0 = model.time_projection(e).unflatten(2, (6, -1))  # (B, S, 6, dim)
        numbers = (*range(clean_count), *lesson.numbers)
        angles = self._angles(numbers, lesson.jump, grid)
        sources, mask = _context(numbers, clean_count, grid[0] * grid[1] * grid[2])
        hidden = model.text_embedding(text.rows)
        for layer in model.blocks:
            parts = (layer.modulation[:, None] + e0).unsqueeze(3).unbind(2)  # (B, S, 1, dim) each
            shift1, scale1, gate1, shift2, scale2, gate2 = parts
            h = layer.norm1(x) * (1 + scale1) + shift1
            x = x + gate1 * self._self_attention(layer.self_attn, h, angles, sources, mask)
            x = x + self._cross_attention(layer.cross_attn, layer.norm3(x), hidden, text.bias)
            h = layer.norm2(x) * (1 + scale2) + shift2
            x = x + gate2 * layer.ffn(h)
        x, e = x[:, clean_count:], e[:, clean_count:]
        parts = (model.head.modulation[:, None] + e[:, :, None]).unsqueeze(3).unbind(2)
        out = model.head.head(model.head.norm(x) * (1 + parts[1]) + parts[0])
        out = self.walk._unpatchify(out.flatten(0, 1), grid)
        return out.unflatten(0, (batch, -1))

    def _self_attention(
        self,
        attn: torch.nn.Module,
        h: Tensor,
        angles: Tensor,
        sources: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        heads = (self.backbone.num_heads, -1)
        q = _rotate(attn.norm_q(attn.q(h)).unflatten(3, heads), angles)  # (B, S, L, N, D)
        k = _rotate(attn.norm_k(attn.k(h)).unflatten(3, heads), angles)
        v = attn.v(h).unflatten(3, heads)
        if mask is not None:
            k = torch.cat([k[:, sources].flatten(2, 3), k], dim=2)  # (B, S, 4L, N, D)
            v = torch.cat([v[:, sources].flatten(2, 3), v], dim=2)
            mask = mask.repeat(h.shape[0], 1, 1, 1)
        q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))  # (B*S, N, *, D)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return attn.o(out.transpose(1, 2).flatten(2).unflatten(0, h.shape[:2]))

    def _cross_attention(
        self, attn: torch.nn.Module, h: Tensor, hidden: Tensor, bias: Tensor
    ) -> Tensor:
        heads = (self.backbone.num_heads, -1)
        q = attn.norm_q(attn.q(h)).flatten(1, 2).unflatten(2, heads).transpose(1, 2)
        k = attn.norm_k(attn.k(hidden)).unflatten(2, heads).transpose(1, 2)
        v = attn.v(hidden).unflatten(2, heads).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return attn.o(out.transpose(1, 2).flatten(2).unflatten(1, h.shape[1:3]))

    def _angles(self, numbers: Sequence[int], jump: int, grid: tuple[int, int, int]) -> Tensor:
        """Rotary turn of every chunk's tokens, complex [S, L, 1, D/2]."""
        frames, rows, columns = grid
        places = [number + jump if number else 0 for number in numbers]
        pairs = [self.walk._angles(place * frames, frames, rows, columns) for place in places]
        return torch.stack([torch.complex(cos, sin) for cos, sin in pairs])


def _context(numbers: Sequence[int], clean_count: int, tokens: int) -> tuple[Tensor, Tensor | None]:
    """Which clean chunks each chunk attends to: indices [S, 3], and a mask [S, 1, 1, 4 * tokens].

    The mask is None when there are no clean chunks: every chunk then sees itself alone.
    """
    sources = torch.zeros(len(numbers), 1 + WINDOW_CHUNKS, dtype=torch.long)
    used = torch.zeros(len(numbers), 2 + WINDOW_CHUNKS, dtype=torch.bool)
    used[:, -1] = True
    for row, number in enumerate(numbers):
        before = sorted({0, *range(max(1, number - WINDOW_CHUNKS), number)}) if number else []
        assert all(source < clean_count for source in before)
        sources[row, : len(before)] = torch.tensor(before, dtype=torch.long)
        used[row, : len(before)] = True
    if clean_count == 0:
        return sources, None
    return sources, used.repeat_interleave(tokens, dim=1)[:, None, None]


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn adjacent pairs of x [B, S, L, N, D] by their angles, given as unit complex numbers."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * angles).flatten(-2)
