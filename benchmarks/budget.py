"""What a budget buys with the tiny model: cost against quality.

Run ``python -m benchmarks.budget``; it writes ``benchmarks/results/budget.{json,md,png}``. Every
budget makes the same clips: captions that training never saw, the same seeds, 81 frames, all three
units and the quickstart's rewards, two paths and eight candidates a chunk at most. ``adaptive``
has as many denoiser calls in all as ``medium`` and shares them out by itself. Quality is what
``tiny_runs.judged`` says; costs are denoiser calls and processor time of one thread, so that other
programs disturb little. In brackets: 95 % intervals over captions; differences are taken caption by
caption.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

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

from .measured import RESULTS, Job, Mean, Row, differences, markdown, means, rows, write
from .tiny_runs import FIRST_CLIP, judged, tiny_tools

SEARCH = Search(beam_width=2, branch_factor=4, standardise=True)
BASE = StreamConfig(
    latent_frames=SHORT_FRAMES,
    noise=NoisePropagation(),
    search=SEARCH,
    memory=Memory(),
    budget=Budget(amount=QUALITY["medium"]),
)
MEDIUM_CALLS = 154  # of a clip; checked below
BUDGETS = {
    "quality 0": Budget(amount=0.0),
    **{name: Budget(amount=quality) for name, quality in QUALITY.items()},
    "adaptive": Budget("total denoiser calls", MEDIUM_CALLS, adaptive=True),
}
STEPS = (("low", "quality 0"), ("medium", "low"), ("high", "medium"), ("adaptive", "medium"))
QUALITIES = {  # and which way is better
    "oracle pass rate": 1,
    "shape right": 1,
    "PSNR (dB)": 1,
    "SSIM": 1,
    "warping error (%)": -1,
    "flicker (grey levels)": -1,
}
COSTS = ("ms per frame", "denoiser calls")


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
        return {
            "ms per frame": 1000 * seconds / len(frames),
            "denoiser calls": sum(chunk.budget.calls for chunk in done),
            **judged(frames, scene),
        }


def plot(table: Mapping[str, Mapping[str, Mean]], path: Path) -> None:
    """Each quality over processor time per frame."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.4), sharex=True, layout="constrained")
    for axis, key in zip(axes.flat, QUALITIES, strict=True):
        for name, row in table.items():
            x, y = row["ms per frame"], row[key]
            axis.errorbar(
                x.mean,
                y.mean,
                [[y.mean - y.low], [y.high - y.mean]],
                fmt="s" if name == "adaptive" else "o",
                color="tab:orange" if name == "adaptive" else "tab:blue",
                capsize=4,
            )
            axis.annotate(name, (x.mean, y.mean), xytext=(5, 5), textcoords="offset points")
        constant = [row for name, row in table.items() if name != "adaptive"]
        axis.plot(
            [row["ms per frame"].mean for row in constant],
            [row[key].mean for row in constant],
            color="tab:blue",
            alpha=0.4,
        )
        axis.set_title(f"{key}, {'more' if QUALITIES[key] > 0 else 'less'} is better", fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("ms of one processor core per frame")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost against quality on the tiny model.")
    parser.add_argument("--clips", type=int, default=64, help="captions")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    jobs = [(name, clip) for clip in clips for name in BUDGETS]
    found = rows("budget", measure, jobs, options.processes)
    by_budget = {name: [found[name, clip] for clip in clips] for name in BUDGETS}
    if any(row["denoiser calls"] != MEDIUM_CALLS for row in by_budget["medium"]):
        raise RuntimeError("medium no longer makes MEDIUM_CALLS denoiser calls: correct that")
    table = {name: means(of) for name, of in by_budget.items()}
    steps = {
        f"{more} less {less}": differences(by_budget[more], by_budget[less]) for more, less in STEPS
    }
    columns = (*COSTS, *QUALITIES)
    words = "\n".join((markdown(table, "budget", columns), markdown(steps, "step", columns)))
    told = {"clips": options.clips, "latent_frames": SHORT_FRAMES, "search": vars(SEARCH)}
    write("budget", {**told, "budgets": table, "differences": steps}, words)
    plot(table, RESULTS / "budget.png")


if __name__ == "__main__":
    main()
