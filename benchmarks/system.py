"""A way to make the tiny model's videos, and one clip made by it, judged.

Best of N makes whole videos and keeps the one that both rewards, standardised over the N, rank
first, weighed as a search weighs them for the last chunk. Random survivors are drawn by lot, and so
is the video. Quality is what ``tiny_runs.judged`` says; beside it stand the rewards that a search
goes by, so that one that is only pleased shows as a gap.
"""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from stream_t1_core import search
from stream_t1_core.config import (
    FIXED_SINK,
    Memory,
    NoisePropagation,
    Refine,
    Search,
    StreamConfig,
)
from stream_t1_core.events import CandidateReport, CandidatesMade, Emit, Event
from stream_t1_core.finish import finish
from stream_t1_core.generate import generate, stream
from stream_t1_core.rewards.base import Footage, Piece
from stream_t1_core.rewards.mix import Part, judge
from stream_t1_core.rewards.tally import Tally
from stream_t1_core.scoring import Critic
from stream_t1_core.tools import Tools
from training import oracle
from training.clips import Scene, evaluation_seed
from training.measure import LATENT_HW, evaluation_pair

from .measured import Row
from .tiny_runs import judged, tiny_tools

APART = 10**6  # between the seeds of whole videos; their chunks' are 1000 apart
FROZEN = 0.05  # grey levels of mean change from frame to frame, below which nothing moves


@dataclass(frozen=True)
class System:
    """``videos``: best of so many; ``lot``: who survives is drawn by lot."""

    search: Search | None
    noise: NoisePropagation | None = None
    memory: Memory = FIXED_SINK
    refine: Refine | None = None
    videos: int = 1
    lot: bool = False

    def config(self, latent_frames: int, seed: int) -> StreamConfig:
        return StreamConfig(
            latent_frames=latent_frames,
            seed=seed,
            noise=self.noise,
            search=self.search,
            memory=self.memory,
            refine=self.refine,
        )


@dataclass(eq=False)
class Spread:
    """Mean difference of the candidates of a chunk, pixel by pixel; callable for ``emit``."""

    found: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, CandidatesMade):
            return
        shown = torch.stack([frames for frames in event.frames if frames is not None]).flatten(1)
        if len(shown) > 1:
            pairs = torch.pdist(shown, p=1) / shown.shape[1]
            self.found.append(100 * pairs.mean().item())


def make(system: System, tools: Tools, config: StreamConfig, emit: Emit) -> Tensor:
    """A system's video: frames [T, 64, 64, 3]."""
    if system.videos > 1:
        seeds = range(config.seed, config.seed + APART * system.videos, APART)
        made = [generate(tools, replace(config, seed=s), LATENT_HW, emit).frames for s in seeds]
        return best_of(made, tools.critic, config)
    if not system.lot:
        return generate(tools, config, LATENT_HW, emit).frames
    drawn = random.Random(config.seed)

    def by_lot(
        chunk: int, told: tuple[CandidateReport, ...], kept: list[int], emit: Emit
    ) -> tuple[list[int], str]:
        return drawn.sample(range(len(told)), len(kept)), "lot"

    *_, state = stream(replace(tools, director=by_lot), config, LATENT_HW, emit)
    state = replace(state, beams=(drawn.choice(state.beams),))
    return finish(state, tools, config, emit).frames


def best_of(videos: Sequence[Tensor], critic: Critic, config: StreamConfig) -> Tensor:
    """The video that would rank first as candidates of the last chunk do."""
    scores = {"short": [0.0] * len(videos), "long": [0.0] * len(videos)}
    for kind, part in answers(videos, critic, config.fps):
        values = part.values.tolist()
        seen = Tally().add(values)
        for i, value in enumerate(values):
            scores[kind][i] += part.weight * seen.standardise(value)
    weight = search.short_weight(config.chunks - 1, config.chunks, config.plan.tau)
    fused = [search.fuse(*both, weight) for both in zip(*scores.values(), strict=True)]
    return videos[search.choose(fused)]


def answers(videos: Sequence[Tensor], critic: Critic, fps: float) -> list[tuple[str, Part]]:
    """What every single reward says of whole videos; ``short`` or ``long``."""
    pieces = [[Piece(frames)] for frames in videos]
    footage = Footage(pieces, [frames[:9] for frames in videos], critic.prompt, fps)
    by_kind = {"short": judge(critic.short, footage), "long": judge(critic.long, footage)}
    return [(kind, part) for kind, parts in by_kind.items() for part in parts.values()]


def measure(system: System, clip: int, latent_frames: int) -> Row:
    """One clip of one system."""
    scene, prompt = evaluation_pair(clip)
    config, spread = system.config(latent_frames, evaluation_seed(clip)), Spread()
    with torch.inference_mode():
        tools, started = tiny_tools(prompt), time.process_time()
        frames = make(system, tools, config, spread)
        seconds = time.process_time() - started
        row = {
            "ms per frame": 1000 * seconds / len(frames),
            "denoiser calls": system.videos * config.denoiser_calls,
            **judged(frames, scene),
            **liked([frames], tools.critic, config.fps),
            "broken": float(not torch.isfinite(frames).all()),
            "frozen": float(255 * frames.diff(dim=0).abs().mean() < FROZEN),
        }
        if spread.found:
            row["candidates apart (%)"] = statistics.fmean(spread.found)
        found = by_second(frames, scene)
        every = all(value for name, value in found.items() if name.endswith("right"))
        return row | {"every second right": float(every)} | found


def liked(videos: Sequence[Tensor], critic: Critic, fps: float) -> Row:
    """The rewards' sums, as they are."""
    sums = {"short": 0.0, "long": 0.0}
    for kind, part in answers(videos, critic, fps):
        sums[kind] += part.weight * part.values[0].item()
    return {f"{kind} reward": value for kind, value in sums.items()}


def by_second(frames: Tensor, scene: Scene) -> Row:
    """How the oracle judges each second."""
    verdicts = oracle.judge_seconds(oracle.track(frames), scene)
    return {
        f"second {i}: {name}": value
        for i, v in enumerate(verdicts, 1)
        for name, value in (("right", float(v.all_right)), ("shape", float(v.shape)))
    }
