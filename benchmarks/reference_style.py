"""A chunk as the released code makes it, at its cost: what ``benchmarks/speed.py`` compares with.

Candidates come one after the other. Each copies all keys and values of its parent, rotates them
anew in float64 in every layer of every pass, has a context pass whether it survives or not, and
is scored by decoding its chunk alone and the whole span of the long reward once more. The parts are
the core's own functions in another order, so decisions are those of the core with ``isolated``; its
image and video files are left out. Rewards are added as they are: standardised ones would depend
on which candidate comes first. What the released code does: tests/goldens/stream_t1/ALGORITHM.md.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stream_t1_core import scoring
from stream_t1_core.candidates import add_noise, make, plan
from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.commit import commit
from stream_t1_core.config import StreamConfig
from stream_t1_core.kv import ChunkKV, LayOut, Past, Placed, live_bytes
from stream_t1_core.meter import Meter
from stream_t1_core.prune import add_route
from stream_t1_core.state import Beam, Candidate, StreamState
from stream_t1_core.tools import Tools
from stream_t1_core.work import Work

Decision = tuple[int, int, int | None, str | None]  # parent's rank, seed, own rank, route


def run_chunk(
    state: StreamState,
    tools: Tools,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    meter: Meter,
) -> tuple[StreamState, list[Decision], int]:
    """The next state; what was decided, in the order tried; most bytes of K/V held at once."""
    kept: list[tuple[Candidate, Beam]] = []
    tried, peak = [], 0
    lay_out = rotating_every_time(tools.model, latent_hw)
    work = Work(state.chunk, latent_hw, tools, config, meter, lay_out)
    for planned in plan(state, config):
        with meter.phase("copy"):
            candidate = replace(planned, parent=copied(planned.parent))
        candidate = add_noise(candidate, tools, config, latent_hw)
        made = make([candidate], work)
        critic, answers = tools.critic, made.answers
        scored = scoring.score(made.candidates, answers, state.chunk, critic, config, state.seen)
        candidate = add_route(scored.candidates[0], config)
        with meter.phase("commit"):
            [beam] = commit([candidate], work)
        tried.append(candidate)
        held = [*state.beams, *(beam for _, beam in kept), beam]
        peak = max(peak, live_bytes(kv for beam in held for kv in beam.kv))
        kept = sorted([*kept, (candidate, beam)], key=lambda pair: -pair[0].scores.fused)
        kept = kept[: config.plan.beam_width]
    beams = tuple(replace(beam, rank=rank) for rank, (_, beam) in enumerate(kept))
    ranks = {candidate: rank for rank, (candidate, _) in enumerate(kept)}
    decided = [(c.parent_rank, c.seed, ranks.get(c), c.route and c.route.value) for c in tried]
    return replace(state, chunk=state.chunk + 1, beams=beams), decided, peak


def copied(beam: Beam) -> Beam:
    """A beam with keys and values of its own."""
    sinks, window = (
        tuple(kv.moved(Tensor.clone) for kv in some) for some in (beam.sinks, beam.window)
    )
    return replace(beam, sinks=sinks, window=window)


def rotating_every_time(model: CausalWan, latent_hw: tuple[int, int]) -> LayOut:
    """Puts chunks at their own frames, each time that a layer asks for them."""
    _, patch_h, patch_w = model.backbone.patch_size
    rows, columns = latent_hw[0] // patch_h, latent_hw[1] // patch_w

    def placed(chunk: ChunkKV) -> Placed:
        frames = chunk.keys[0].shape[1] // (rows * columns)
        axes = ((chunk.first_frame, frames), (0, rows), (0, columns))
        turns = _turns(axes, model.head_dim // 2).to(model.device)
        return Placed(lambda i: (_turned(chunk.keys[i], turns), chunk.values[i]))

    return lambda chunks: Past(tuple(map(placed, chunks)))


def _turns(axes: Sequence[tuple[int, int]], pairs: int) -> Tensor:
    """Unit complex numbers [L, 1, pairs] in complex128; axes are (first, count)."""
    sizes = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    grids = torch.meshgrid(
        *(torch.arange(first, first + count).double() for first, count in axes), indexing="ij"
    )
    angles = [
        grid.reshape(-1, 1, 1) * 10000.0 ** (-torch.arange(size).double() / size)
        for grid, size in zip(grids, sizes, strict=True)
    ]
    angle = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(angle), angle)


def _turned(keys: Tensor, turns: Tensor) -> Tensor:
    """Keys [1, L, N, D], adjacent pairs turned."""
    pairs = torch.view_as_complex(keys.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(keys.dtype)
