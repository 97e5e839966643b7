"""Does a scoring decoder choose as the VAE does, and what does it save? On the tiny model.

Run ``python -m benchmarks.scoring_decoder``; it writes
``benchmarks/results/scoring_decoder.{json,md}``. Each caption is searched twice with the
quickstart's rewards, K = 2, M = 4, 81 frames: first scored by the VAE's frames; then by the tiny
decoder's, held on the first run's path by a director, so that both score the same candidates in
every chunk. ``lost`` is how much the VAE's score of the survivors falls if the tiny decoder chooses
them, in standard deviations of a chunk's candidates; beside it, if they are drawn by lot.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from stream_t1_core.config import Search, StreamConfig
from stream_t1_core.events import CandidateReport, CandidatesMade, ChunkDone, Emit, Event
from stream_t1_core.generate import generate
from stream_t1_core.scoring import Decoder, DecoderState
from stream_t1_core.taehv import TAEHVDecoder
from stream_t1_core.tiny import load_scorer
from training.clips import evaluation_seed
from training.measure import LATENT_HW, SHORT_FRAMES, evaluation_pair
from training.nearest import psnr

from .compare import Comparison, command_line, compare
from .measured import Job, Row
from .tiny_runs import WEIGHTS, tiny_tools

SEARCH = Search(beam_width=2, branch_factor=4, standardise=True)


class Timed:
    """A decoder, and the seconds of this process that it took."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.seconds = 0.0

    def decode(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState | None]:
        started = time.process_time()
        made = self.decoder.decode(latents, state)
        self.seconds += time.process_time() - started
        return made


def measure(job: Job) -> Row:
    """One caption, scored both ways."""
    _, prompt = evaluation_pair(job[1])
    config = StreamConfig(latent_frames=SHORT_FRAMES, seed=evaluation_seed(job[1]), search=SEARCH)
    with torch.inference_mode():
        tools = tiny_tools(prompt)
        vae, video = Timed(tools.critic.decoder), Timed(tools.critic.decoder)
        scorer = Timed(TAEHVDecoder(load_scorer(WEIGHTS), normalised=True))
        done: list[ChunkDone] = []
        frames: list[tuple[Tensor, ...]] = []

        def emit(event: Event) -> None:
            if isinstance(event, ChunkDone):
                done.append(event)
            elif isinstance(event, CandidatesMade):
                frames.append(event.frames)

        started = time.process_time()
        generate(replace(tools, critic=replace(tools.critic, decoder=vae)), config, LATENT_HW, emit)
        plain_seconds = time.process_time() - started
        told, shown = list(done), list(frames)
        asked: list[tuple[tuple[CandidateReport, ...], list[int]]] = []

        def follow(
            chunk: int, reports: tuple[CandidateReport, ...], kept: list[int], emit: Emit
        ) -> tuple[list[int], str]:
            asked.append((reports, kept))
            return survivors(told[chunk].candidates), "first run"

        critic = replace(tools.critic, decoder=scorer)
        started = time.process_time()
        generate(
            replace(tools, critic=critic, decoder=video, director=follow), config, LATENT_HW, emit
        )
        scored_seconds = time.process_time() - started
    theirs, ours = chain(*shown), chain(*frames[len(shown) :])
    return {
        "PSNR of its frames (dB)": statistics.fmean(map(psnr, ours, theirs)),
        **agreement([(one.candidates, *other) for one, other in zip(told, asked, strict=True)]),
        "decoding, VAE scores (s)": vae.seconds,
        "decoding, tiny scores (s)": scorer.seconds + video.seconds,
        "of that the tiny one (s)": scorer.seconds,
        "whole run, VAE scores (s)": plain_seconds,
        "whole run, tiny scores (s)": scored_seconds,
    }


def survivors(candidates: Sequence[CandidateReport]) -> list[int]:
    """Indices of those that went on, best first."""
    kept = [i for i, candidate in enumerate(candidates) if candidate.rank is not None]
    return sorted(kept, key=lambda i: candidates[i].rank)


def agreement(
    chunks: Sequence[tuple[Sequence[CandidateReport], Sequence[CandidateReport], list[int]]],
) -> Row:
    """Of the VAE's reports, the tiny decoder's, and whom those would keep; means over chunks."""
    found: list[Row] = []
    for told, asked, kept in chunks:
        first, by_vae, by_tiny = survivors(told), _scores(told), _scores(asked)
        fused = by_vae["fused"]
        best, spread = fused[first].mean(), fused.std()
        row = {
            "survivors shared": len({*first} & {*kept}) / len(first),
            "same winner": float(first[0] == kept[0]),
            "lost (SD)": ((best - fused[kept].mean()) / spread).item(),
            "lost by lot (SD)": ((best - fused.mean()) / spread).item(),
        }
        for name, scores in by_vae.items():
            row[f"rank correlation, {name}"] = _rank_correlation(scores, by_tiny[name])
        found.append(row)
    return {key: statistics.fmean(row[key] for row in found) for key in found[0]}


def _scores(reports: Sequence[CandidateReport]) -> dict[str, Tensor]:
    """The fused score and every single reward of a chunk's candidates."""
    named = [{"fused": report.fused, **report.parts} for report in reports]
    return {
        name: torch.tensor([one[name] for one in named], dtype=torch.float64) for name in named[0]
    }


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's; equal scores in the order tried."""
    ranks = torch.stack([x.argsort(stable=True).argsort().double() for x in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()


COMPARISON = Comparison(
    name="scoring_decoder",
    about=__doc__,
    way="mean of all clips",
    measure=measure,
    names=["scored"],
    config=StreamConfig(latent_frames=SHORT_FRAMES, search=SEARCH),
    differences={},
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=8).parse_args())
