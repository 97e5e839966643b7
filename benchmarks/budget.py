"""What a budget buys with the tiny model: cost against quality.

Run ``python -m benchmarks.budget``; it writes ``benchmarks/results/budget.{json,md,png}``. Every
budget makes the same clips with all three units and the quickstart's rewards, two paths and eight
candidates a chunk at most. ``adaptive`` has as many denoiser calls in all as ``medium`` and shares
them out by itself.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from stream_t1_core.config import (
    QUALITY,
    Budget,
    Memory,
    NoisePropagation,
    Search,
    StreamConfig,
)
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import generate
from training.clips import evaluation_seed
from training.measure import LATENT_HW, SHORT_FRAMES, evaluation_pair

from .columns import PICTURES
from .compare import Comparison, command_line, compare
from .measured import Job, Row
from .page import Result
from .plots import curves, panels
from .tiny_runs import judged, tiny_tools

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEARCH = Search(beam_width=2, branch_factor=4, standardise=True)
BASE = StreamConfig(
    latent_frames=SHORT_FRAMES,
    noise=NoisePropagation(),
    search=SEARCH,
    memory=Memory(),
    budget=Budget(amount=QUALITY["medium"]),
)
MEDIUM_CALLS = 154  # of a clip; checked for each
BUDGETS = {
    "quality 0": Budget(amount=0.0),
    **{name: Budget(amount=quality) for name, quality in QUALITY.items()},
    "adaptive": Budget("total denoiser calls", MEDIUM_CALLS, adaptive=True),
}
STEPS = (("low", "quality 0"), ("medium", "low"), ("high", "medium"), ("adaptive", "medium"))


def measure(job: Job) -> Row:
    """One clip on one budget."""
    name, clip = job
    scene, prompt = evaluation_pair(clip)
    done: list[ChunkDone] = []

    def emit(event: Event) -> None:
        if isinstance(event, ChunkDone):
            done.append(event)

    config = replace(BASE, seed=evaluation_seed(clip), budget=BUDGETS[name])
    with torch.inference_mode():
        frames = generate(tiny_tools(prompt), config, LATENT_HW, emit).frames
        seconds = sum(chunk.budget.seconds for chunk in done)
        calls = sum(chunk.budget.calls for chunk in done)
        if name == "medium" and calls != MEDIUM_CALLS:
            raise RuntimeError(f"medium makes {calls} denoiser calls, no longer MEDIUM_CALLS")
        return {
            "ms per frame": 1000 * seconds / len(frames),
            "denoiser calls": calls,
            **judged(frames, scene),
        }


def plot(result: Result) -> "Figure":
    """Each quality over processor time; bars are 95 % intervals over captions."""
    (table,) = result["means"].values()
    lines = {name: [row] for name, row in table.items()}
    figure, axes = panels(6)
    curves(axes, lines, "ms per frame", ("oracle pass rate", "shape right", *PICTURES))
    return figure


COMPARISON = Comparison(
    name="budget",
    about=__doc__,
    way="budget",
    measure=measure,
    names=BUDGETS,
    config=BASE,
    differences={"step": {f"{more} less {base}": (more, base) for more, base in STEPS}},
    plot=plot,
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=64).parse_args())
