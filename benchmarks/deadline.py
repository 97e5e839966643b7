"""Are hard deadlines kept on a real machine, while other programs come and go?

Run ``python -m benchmarks.deadline``; it writes ``benchmarks/results/deadline.{json,md}``. The tiny
model makes clips of 24 chunks on one thread within so many seconds a chunk, by the machine's clock;
from chunk 9 to 16 a busy process stands beside it on every core. A chunk is late by what it
took beyond its time, told in its own denoiser calls. Those that had time for one candidate only are
counted apart, and how late they are is not told: one there must be, however long it takes. Soft
deadlines, which are kept from chunk to chunk, stand beside hard ones.
"""

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event as Switch
from time import perf_counter

import torch

from stream_t1_core.config import Budget
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import generate
from training.clips import evaluation_seed
from training.measure import LATENT_HW, evaluation_pair

from .budget_load import CONFIG, SLOW
from .measured import machine, write
from .page import opening
from .tiny_runs import FIRST_CLIP, tiny_tools

SECONDS = (2.0, 4.0)


def run(seconds: float, hard: bool, clip: int, load: Switch) -> list[ChunkDone]:
    """One clip's chunks; ``load`` is on while some are made."""
    done: list[ChunkDone] = []

    def emit(event: Event) -> None:
        if isinstance(event, ChunkDone):
            done.append(event)
            (load.set if event.chunk + 1 in SLOW else load.clear)()

    budget = Budget("seconds per chunk", seconds, hard)
    config = replace(CONFIG, seed=evaluation_seed(clip), budget=budget)
    with torch.inference_mode():
        tools = tiny_tools(evaluation_pair(clip)[1], clock=perf_counter)
        generate(tools, config, LATENT_HW, emit)
    return done


def summary(chunks: list[ChunkDone], seconds: float) -> dict[str, float]:
    """How late they were, and what they had time for."""
    several = [c for c in chunks if len(c.candidates) > 1]
    slow, free = [c for c in chunks if c.chunk in SLOW], [c for c in chunks if c.chunk not in SLOW]
    late = [c.budget.seconds - seconds for c in several]
    calls = [c.seconds["denoise"] / (c.budget.calls - len(c.sinks)) for c in several]
    return {
        "chunks": len(chunks),
        "of one candidate": len(chunks) - len(several),
        "late": sum(x > 0 for x in late),
        "late by more than a call": sum(x > a for x, a in zip(late, calls, strict=True)),
        "latest (s)": max(late, default=0.0),
        "latest (calls)": max((x / a for x, a in zip(late, calls, strict=True)), default=0.0),
        "candidates": statistics.fmean(len(c.candidates) for c in free),
        "under load": statistics.fmean(len(c.candidates) for c in slow),
        "time used (%)": 100 * statistics.fmean(c.budget.seconds for c in chunks) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Hard deadlines beside a real load.")
    parser.add_argument("--clips", type=int, default=2, help="captions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips, table = range(FIRST_CLIP, FIRST_CLIP + options.clips), {}
    with _load() as load:
        for seconds in SECONDS:
            for hard in (True, False):
                chunks = [c for clip in clips for c in run(seconds, hard, clip, load)]
                name = f"{'hard' if hard else 'soft'}, {seconds:g} s"
                table[name] = {k: round(v, 3) for k, v in summary(chunks, seconds).items()}
                print(name, table[name], flush=True)
    columns = [*table[name]]
    lines = [["deadline", *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(f"{of[key]:.4g}" for key in columns)] for name, of in table.items()]
    words = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    told = {"clips": options.clips, "first_clip": FIRST_CLIP, "latent_frames": CONFIG.latent_frames}
    told = {**machine(), **told, "deadlines": table}
    write("deadline", told, f"{opening(__doc__, told)}\n{words}")


@contextmanager
def _load() -> Iterator[Switch]:
    """Processes that are busy while the switch is on."""
    spawn = multiprocessing.get_context("spawn")
    load = spawn.Event()
    busy = [spawn.Process(target=_spin, args=(load,), daemon=True) for _ in range(os.cpu_count())]
    for process in busy:
        process.start()
    try:
        yield load
    finally:
        for process in busy:
            process.terminate()


def _spin(load: Switch) -> None:
    while load.wait():
        for _ in range(1_000_000):
            pass


if __name__ == "__main__":
    main()
