"""Half the GPU gone for a while: what the budget's controller does, and what smoothing is for.

Run ``python -m benchmarks.budget_load`` in the repository; it prints the curves and writes them as
JSON to ``benchmarks/results/budget_load.json``. The tiny model makes clips of 24 chunks within a
time per chunk that lasts for all candidates; from chunk 9 to 16 everything takes twice as long.
Costs are simulated, so the numbers do not depend on the machine: only what the model makes is real.
It compares the controller with one that takes all that fits by the last chunk's costs: chunks that
were late, the largest jump of candidates between two chunks, and by chunk the candidates and the
PSNR to the nearest drawn clip, means over all clips.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.budget import FIRST_CLIP, SEARCH, tools  # noqa: E402
from stream_t1_core import budget  # noqa: E402
from stream_t1_core.config import Budget, Memory, NoisePropagation, StreamConfig  # noqa: E402
from stream_t1_core.events import ChunkDone, Event  # noqa: E402
from stream_t1_core.generate import generate  # noqa: E402
from stream_t1_core.tools import Tools  # noqa: E402
from training import clips  # noqa: E402
from training.measure import LATENT_HW, evaluation_pair  # noqa: E402
from training.nearest import nearest, psnr  # noqa: E402

CHUNKS, SLOW = 24, range(8, 16)
SECONDS = {"call": 1.0, "decode": 0.5}  # of a candidate
MOST = SEARCH.candidates * (4 * SECONDS["call"] + SECONDS["decode"]) + SEARCH.beam_width
BUDGET = Budget("seconds per chunk", 1.1 * MOST)
UNSMOOTHED = {"FULL": 1, "ROOMY": 1, "REACH": 1, "REMEMBERED": 1}


@dataclass(eq=False)
class Machine:
    """Tools whose work turns their clock; callable for ``emit``, to know the chunk."""

    now: float = 0.0
    chunk: int = 0

    def clocked(self, made_of: Tools) -> Tools:
        model, decoder = made_of.model, made_of.critic.decoder
        flow, context_pass, decode = model.flow, model.context_pass, decoder.decode
        model.flow = lambda noisy, *rest: self._work("call", len(noisy)) or flow(noisy, *rest)
        model.context_pass = lambda *args: self._work("call", 1) or context_pass(*args)
        decoder.decode = lambda x, state: self._work("decode", len(x)) or decode(x, state)
        return replace(made_of, clock=lambda: self.now)

    def _work(self, kind: str, count: int) -> None:
        self.now += SECONDS[kind] * count * (2 if self.chunk in SLOW else 1)

    def __call__(self, event: Event) -> None:
        if isinstance(event, ChunkDone):
            self.chunk = event.chunk + 1


@dataclass(frozen=True)
class Job:
    weights: Path
    clip: int
    smooth: bool


def measure(job: Job) -> list[tuple[int, float, float]]:
    """Candidates, seconds and PSNR of each chunk of a clip."""
    torch.set_num_threads(1)
    scene, prompt = evaluation_pair(job.clip)
    machine, done = Machine(), []

    def emit(event: Event) -> None:
        machine(event)
        if isinstance(event, ChunkDone):
            done.append(event)

    config = StreamConfig(
        latent_frames=3 * CHUNKS,
        seed=clips.evaluation_seed(job.clip),
        noise=NoisePropagation(),
        search=SEARCH,
        memory=Memory(),
        budget=BUDGET,
    )
    changed = {} if job.smooth else UNSMOOTHED
    with torch.inference_mode(), mock.patch.multiple(budget, **changed):
        made_of = machine.clocked(tools(job.weights, prompt))
        frames = generate(made_of, config, LATENT_HW, emit).frames
        truth = nearest(frames, scene)
    ends = [9 + 12 * chunk for chunk in range(CHUNKS)]
    starts = [0, *ends[:-1]]
    return [
        (len(chunk.candidates), chunk.budget.seconds, psnr(frames[a:b], truth[a:b]))
        for chunk, a, b in zip(done, starts, ends, strict=True)
    ]


def summary(runs: Sequence[Sequence[tuple[int, float, float]]]) -> dict[str, object]:
    candidates = [[chunk[0] for chunk in run] for run in runs]
    jumps = [abs(b - a) for run in candidates for a, b in zip(run[1:], run[2:], strict=False)]
    late = [chunk[1] > BUDGET.amount for run in runs for chunk in run]
    columns = [*zip(*runs, strict=True)]
    return {
        "late chunks per clip": sum(late) / len(runs),
        "largest jump (candidates)": max(jumps),
        "candidates by chunk": [statistics.fmean(c[0] for c in column) for column in columns],
        "seconds by chunk": [statistics.fmean(c[1] for c in column) for column in columns],
        "PSNR by chunk (dB)": [
            round(statistics.fmean(c[2] for c in column), 3) for column in columns
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=ROOT / "tiny_model")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "budget_load.json"
    )
    options = parser.parse_args()
    ways = {"smoothed": True, "not smoothed": False}
    numbers = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    jobs = [Job(options.weights, clip, smooth) for smooth in ways.values() for clip in numbers]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        runs = [*pool.map(measure, jobs)]
    halves = (runs[: options.clips], runs[options.clips :])
    result: dict[str, object] = {
        "clips": options.clips,
        "seconds per chunk allowed": BUDGET.amount,
        "slow chunks": [SLOW.start + 1, SLOW.stop],
        **{way: summary(half) for way, half in zip(ways, halves, strict=True)},
    }
    text = json.dumps(result, indent=1)
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
