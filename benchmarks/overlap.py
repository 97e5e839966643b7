"""Would it pay to decode a chunk while the next one is denoised? Plain streaming, both ways.

Run ``python -m benchmarks.overlap --size tiny`` (or ``medium``, or ``longlive`` with ``--device
cuda --dtype bfloat16``); it writes ``benchmarks/results/overlap_SIZE.{json,md}``. A chunk's
denoiser calls and context pass, then its decoding, one after the other with the whole machine; and
both at once: on a CPU in two threads that share its cores, on a GPU in two streams. Wall time.
``at best`` is what two machines would do, each with one of the two jobs. The two ways take turns,
so that a machine that gets slower slows both.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from .measured import write
from .page import headed
from .speed import GIVEN, Bench, bench, device_name, present
from .speed_sizes import SIZES

CHUNK = 3  # latent frames
ALONE, BOTH = "one after the other", "both at once"
Task = Callable[[], object]


@dataclass(eq=False)
class Overlap:
    """Denoising a chunk and decoding the one before it."""

    denoise: Task
    decode: Task
    device: torch.device
    cores: int
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def alone(self) -> None:
        self.denoise()
        self.decode()

    def both(self) -> None:
        if self.device.type == "cuda":
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                self.decode()
            self.denoise()
            torch.cuda.current_stream().wait_stream(side)
            return
        decoded = self.pool.submit(self._in_thread, self.cores // 2)
        torch.set_num_threads(max(1, self.cores - self.cores // 2))
        self.denoise()
        decoded.result()
        torch.set_num_threads(self.cores)

    def _in_thread(self, threads: int) -> None:
        torch.set_num_threads(max(1, threads))
        with torch.inference_mode():
            self.decode()

    def seconds(self, task: Task) -> float:
        self._wait()
        started = time.perf_counter()
        task()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        torch.get_device_module(self.device).synchronize()


def overlap_of(found: Bench, cores: int) -> Overlap:
    """Plain streaming's work on the chunk that follows given footage."""
    model, [beam], latent_hw = found.tools.model, found.start.beams, found.sized.latent_hw
    text, device = found.tools.text, model.device
    decoder = found.tools.critic.decoder.decoder  # without its clock, which waits for the device
    past = model.lay_out(beam.kv, latent_hw)
    latent = torch.randn(1, found.sized.backbone.in_dim, CHUNK, *latent_hw).to(device)
    timesteps = torch.full((CHUNK,), 750.0)

    def denoise() -> None:
        for _ in range(found.steps + 1):  # a context pass costs what a denoiser call does
            model.flow(latent, timesteps, GIVEN, text, past)

    def decode() -> None:
        decoder.decode(latent, beam.decoder_state)

    return Overlap(denoise, decode, device, cores)


def measure(overlap: Overlap, times: int) -> dict[str, float]:
    """Median seconds, after one turn that warms up."""
    tasks = {
        "denoise": overlap.denoise,
        "decode": overlap.decode,
        ALONE: overlap.alone,
        BOTH: overlap.both,
    }
    turns = [{name: overlap.seconds(tasks[name]) for name in tasks} for _ in range(times + 1)]
    median = {name: statistics.median(turn[name] for turn in turns[1:]) for name in tasks}
    faster = statistics.median(turn[ALONE] / turn[BOTH] for turn in turns[1:])
    at_best = median[ALONE] / max(median["denoise"], median["decode"])
    return median | {"times as fast": faster, "at best": at_best}


def words(told: dict[str, Any], where: str) -> str:
    run = f"Size {told['size']}, {told['dtype']}, {where}; {told['times']} turns."
    lines = [headed(__doc__), "", run, ""]
    keys = ("denoise", "decode", ALONE, BOTH, "times as fast", "at best")
    lines += [f"| {' | '.join(keys)} |", f"|{' ---: |' * len(keys)}"]
    lines.append(f"| {' | '.join(f'{told[key]:.3g}' for key in keys)} |")
    return "\n".join(lines) + "\n\nSeconds of a chunk, but for the last two.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=[*SIZES], default="tiny")
    parser.add_argument("--device", type=present, default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--times", type=int, default=15, help="turns that are counted")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    with torch.inference_mode():
        found = bench(options.size, options.device, getattr(torch, options.dtype))
        overlap = overlap_of(found, cores)
        told = vars(options) | {"cores": cores} | measure(overlap, options.times)
    overlap.pool.shutdown()
    where = device_name(torch.device(options.device)).replace("one thread", f"{cores} threads")
    name = f"overlap_{options.size}" + (f"_{options.device}" if options.device != "cpu" else "")
    write(name, {**told, "device_name": where}, words(told, where))


if __name__ == "__main__":
    main()
