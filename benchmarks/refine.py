"""Does the Refiner help? Plain streaming of the tiny model with and without it.

Run ``python -m benchmarks.refine``; it writes ``benchmarks/results/refine.{json,md}``. Beside each
method with one and two passes (strength 0.25) stand a lower strength, and what about the same
denoiser calls buy otherwise: two candidates a chunk, no refining. Rewards are the quickstart's.
"""

import statistics
import time

import torch

from stream_t1_core.config import Refine, Search, StreamConfig
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import generate
from training.clips import evaluation_seed
from training.measure import LATENT_HW, SHORT_FRAMES, evaluation_pair

from .compare import Comparison, command_line, compare, less
from .measured import Job, Row
from .tiny_runs import judged, tiny_tools

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


COMPARISON = Comparison(
    name="refine",
    about=__doc__,
    way="run",
    measure=measure,
    names=RUNS,
    config=StreamConfig(latent_frames=SHORT_FRAMES, search=ONE),
    differences=less(PLAIN, RUNS),
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=64).parse_args())
