"""Half the GPU gone for a while: the budget's controller, with and without smoothing.

Run ``python -m benchmarks.budget_load``; it writes
``benchmarks/results/budget_load.{json,md,png}``. The tiny model makes clips of 24 chunks within a
time per chunk that lasts for all candidates; from chunk 9 to 16 everything takes twice as long.
Time is simulated, so the numbers do not depend on the machine: only what the model makes is real.
Beside the controller stands one without smoothing, which takes all that fits by the last chunk's
costs.
"""

import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from unittest import mock

import torch

from stream_t1_core import budget
from stream_t1_core.config import Budget
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import generate
from stream_t1_core.tools import Tools
from training.clips import evaluation_seed
from training.measure import LATENT_HW, evaluation_pair
from training.nearest import nearest, psnr

from .budget import BASE, SEARCH
from .compare import command_line, settings
from .measured import Job, Row, differences, means
from .page import Result, publish
from .rows import rows
from .tiny_runs import FIRST_CLIP, tiny_tools

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHUNKS, SLOW = 24, range(8, 16)
CALL, DECODE = 1.0, 0.5  # seconds of a candidate
MOST = SEARCH.candidates * (4 * CALL + DECODE) + SEARCH.beam_width * CALL
BUDGET = Budget("seconds per chunk", 1.1 * MOST)
UNSMOOTHED = {"FULL": 1, "ROOMY": 1, "REACH": 1, "REMEMBERED": 1}
WAYS = {"smoothed": {}, "not smoothed": UNSMOOTHED}
FREE = ", no load"
CONFIG = replace(BASE, latent_frames=BASE.frames_per_chunk * CHUNKS, budget=BUDGET)

Curves = dict[str, list[float]]  # by chunk


@dataclass(eq=False)
class Machine:
    """Tools whose work turns their clock; callable for ``emit``, to know the chunk."""

    slow: range
    now: float = 0.0
    chunk: int = 0

    def clocked(self, made_of: Tools) -> Tools:
        model, decoder = made_of.model, made_of.critic.decoder
        flow, context_pass, decode = model.flow, model.context_pass, decoder.decode
        model.flow = lambda noisy, *rest: self._work(CALL * len(noisy)) or flow(noisy, *rest)
        model.context_pass = lambda *args: self._work(CALL) or context_pass(*args)
        decoder.decode = lambda x, state: self._work(DECODE * len(x)) or decode(x, state)
        return replace(made_of, clock=lambda: self.now)

    def _work(self, seconds: float) -> None:
        self.now += seconds * (2 if self.chunk in self.slow else 1)

    def __call__(self, event: Event) -> None:
        if isinstance(event, ChunkDone):
            self.chunk = event.chunk + 1


def measure(job: Job) -> Curves:
    """One clip by one controller, under the load or without it."""
    way, clip = job
    scene, prompt = evaluation_pair(clip)
    machine, done = Machine(range(0) if way.endswith(FREE) else SLOW), []

    def emit(event: Event) -> None:
        machine(event)
        if isinstance(event, ChunkDone):
            done.append(event)

    changed = WAYS[way.removesuffix(FREE)]
    smoothing = mock.patch.multiple(budget, **changed) if changed else nullcontext()
    with torch.inference_mode(), smoothing:
        tools = machine.clocked(tiny_tools(prompt))
        config = replace(CONFIG, seed=evaluation_seed(clip))
        frames = generate(tools, config, LATENT_HW, emit).frames
        truth = nearest(frames, scene)
    ends = [9 + 12 * chunk for chunk in range(CHUNKS)]
    parts = zip([0, *ends[:-1]], ends, strict=True)
    return {
        "candidates": [len(chunk.candidates) for chunk in done],
        "seconds": [chunk.budget.seconds for chunk in done],
        "PSNR": [psnr(frames[start:end], truth[start:end]) for start, end in parts],
    }


def summary(run: Curves, free: Curves) -> Row:
    """What a controller made of the load on one clip, and what of the clip without it."""
    candidates = run["candidates"]
    steps = zip(candidates[1:-1], candidates[2:], strict=True)
    usual = max(candidates[: SLOW.start])
    again = (i for i in range(SLOW.stop, CHUNKS) if candidates[i] >= usual)
    lost = [now - was for now, was in zip(run["PSNR"], free["PSNR"], strict=True)]
    return {
        "late chunks": sum(s > BUDGET.amount for s in run["seconds"]),
        "largest step (candidates)": max(abs(b - a) for a, b in steps),
        "chunks to recover": next(again, CHUNKS) - SLOW.stop,
        "PSNR while slow, less without load (dB)": statistics.fmean(lost[i] for i in SLOW),
        "PSNR after, less without load (dB)": statistics.fmean(lost[SLOW.stop :]),
    }


def plot(result: Result) -> "Figure":
    """Means over all clips, by chunk; dotted: without the load."""
    from matplotlib.figure import Figure

    figure = Figure((9, 7.5), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    numbers = range(1, CHUNKS + 1)
    for axis, key in zip(axes, ("candidates", "seconds", "PSNR"), strict=True):
        for way, of in result["by chunk"].items():
            line = ":" if way.endswith(FREE) else "-"
            colour = "tab:blue" if way.startswith("smoothed") else "tab:orange"
            axis.plot(numbers, of[key], line, color=colour, marker=".", label=way)
        axis.axvspan(SLOW.start + 0.5, SLOW.stop + 0.5, color="0.9", label="half the speed")
        axis.set_ylabel(f"{key} (dB)" if key == "PSNR" else key)
        axis.grid(alpha=0.3)
    axes[1].axhline(BUDGET.amount, color="tab:red", linestyle=":", label="allowed")
    axes[2].set_xlabel("chunk")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _by_chunk(runs: Sequence[Curves]) -> Curves:
    """Means over all clips."""
    return {
        key: [round(statistics.fmean(at), 3) for at in zip(*(r[key] for r in runs), strict=True)]
        for key in runs[0]
    }


def main() -> None:
    options = command_line(__doc__, clips=16, adds=False).parse_args()
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    names = [way + load for way in WAYS for load in ("", FREE)]
    jobs = [(name, clip) for clip in clips for name in names]
    found = rows("budget_load", measure, jobs, options.processes)
    told = {way: [summary(found[way, c], found[way + FREE, c]) for c in clips] for way in WAYS}
    less = differences(told["smoothed"], told["not smoothed"])
    result = {
        "clips": options.clips,
        "first_clip": FIRST_CLIP,
        "latent_frames": CONFIG.latent_frames,
        "settings": settings(CONFIG),
        "seconds allowed": BUDGET.amount,
        "slow chunks": [SLOW.start + 1, SLOW.stop],
        "means": {"controller": {way: means(of) for way, of in told.items()}},
        "differences": {"difference": {"smoothed less not smoothed": less}},
        "by chunk": {name: _by_chunk([found[name, clip] for clip in clips]) for name in names},
    }
    publish("budget_load", __doc__, result, plot)


if __name__ == "__main__":
    main()
