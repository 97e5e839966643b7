"""Does the Refiner help? Plain streaming of the tiny model with and without it.

Run ``python -m benchmarks.refine``; it writes ``benchmarks/results/refine.{json,md}``. Captions,
seeds, rewards and the judge are those of ``benchmarks/budget.py``, 81 frames each. Beside each
method with one and two passes stand a lower strength, and what about the same denoiser calls buy
otherwise: two candidates a chunk, no refining. ``gain`` is what all passes added to a chunk's
fused score, in standard deviations of its run. In brackets: 95 % intervals over captions.
"""

import argparse
import os
import statistics
import time

import torch

from stream_t1_core.config import Refine, Search, StreamConfig
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import generate
from training.clips import evaluation_seed
from training.measure import LATENT_HW, SHORT_FRAMES, evaluation_pair

from .measured import Job, Row, differences, markdown, means, rows, write
from .tiny_runs import FIRST_CLIP, judged, tiny_tools

PLAIN = "plain streaming"
ONE, TWO = Search(1, 1, standardise=True), Search(1, 2, standardise=True)
RUNS: dict[str, tuple[Search, Refine | None]] = {
    PLAIN: (ONE, None),
    **{
        f"{method}, {passes} pass{'es' * (passes > 1)}": (ONE, Refine(method, passes))
        for method in ("iterative", "ensemble", "extended")
        for passes in (1, 2)
    },
    "iterative, 2 passes, strength 0.1": (ONE, Refine("iterative", 2, strength=0.1)),
    "two candidates, no refining": (TWO, None),
}
DONE = ("gain", "passes accepted")  # of refining: only in rows that have it


def measure(job: Job) -> Row:
    """One clip with one refiner."""
    (search, refine), clip = RUNS[job[0]], job[1]
    scene, prompt = evaluation_pair(clip)
    done: list[ChunkDone] = []

    def emit(event: Event) -> None:
        if isinstance(event, ChunkDone):
            done.append(event)

    config = StreamConfig(
        latent_frames=SHORT_FRAMES, seed=evaluation_seed(clip), search=search, refine=refine
    )
    with torch.inference_mode():
        tools, started = tiny_tools(prompt), time.process_time()
        frames = generate(tools, config, LATENT_HW, emit).frames
        seconds = time.process_time() - started
        row = {
            "ms per frame": 1000 * seconds / len(frames),
            "denoiser calls": config.denoiser_calls,
            **judged(frames, scene),
        }
    told = [c for chunk in done for c in chunk.candidates if c.refined]
    if told:
        row["gain"] = statistics.fmean(c.refined.fused - c.fused for c in told)
        passes = sum(c.refined.passes for c in told)
        row["passes accepted"] = sum(c.refined.accepted for c in told) / passes
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="The Refiner on the tiny model.")
    parser.add_argument("--clips", type=int, default=64, help="captions")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    jobs = [(name, clip) for clip in clips for name in RUNS]
    found = rows("refine", measure, jobs, options.processes)
    by_run = {name: [found[name, clip] for clip in clips] for name in RUNS}
    table = {name: means(of) for name, of in by_run.items()}
    less = {name: differences(of, by_run[PLAIN]) for name, of in by_run.items() if name != PLAIN}
    columns = [*table[PLAIN], *DONE]
    words = "\n".join(
        (markdown(table, "run", columns), markdown(less, f"less {PLAIN}", columns[:-2]))
    )
    told = {"clips": options.clips, "latent_frames": SHORT_FRAMES}
    refiners = {name: refine and vars(refine) for name, (_, refine) in RUNS.items()}
    write("refine", {**told, "refiners": refiners, "runs": table, "less plain": less}, words)


if __name__ == "__main__":
    main()
