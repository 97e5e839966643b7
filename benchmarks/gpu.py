"""What a GPU makes of LongLive's sizes with random weights, at 832 x 480: all in one short call.

``timeout 480 python -m benchmarks.gpu`` writes ``gpu.{json,md}`` after each section, what matters
most first, so a run that is killed leaves what it had; no section starts after ``--minutes``.
Needs torch and nothing else. ``--size tiny --device cpu --dtype float32`` tries it out on any
machine. Chunks are made as in ``speed.py``, whose phases and clock these are.

The card's matrix rate is measured on random numbers, and operations of a denoiser call are counted
from its sizes. Low memory is a run whose allocator may not have more than so much: weights in fp8,
cast in each call as a host casts them, keys, values and the decoder's memory on the CPU, and in the
smallest the model gone while the VAE decodes. What CUDA takes for itself is not in such a cap.
"""

import argparse
import copy
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from stream_t1_core.backbone import BackboneShape
from stream_t1_core.compiled import Runner
from stream_t1_core.kv import KVPlace
from stream_t1_core.peak import Thrift, fullest
from stream_t1_core.streaming_vae import DecoderState, StreamingDecoder

from .measured import RESULTS, write
from .overlap import measure as measure_overlap
from .overlap import overlap_of
from .speed import (
    GIVEN,
    OURS,
    PLAIN,
    REFERENCE,
    Bench,
    Clock,
    Run,
    bench,
    bench_of,
    device_name,
    present,
    streaming_decoder,
)
from .speed_sizes import SIZES

ANCHOR = 20.7  # frames a second on an H100, as LongLive's authors publish for plain streaming
CHUNK = 3  # latent frames,
FRAMES = 4 * CHUNK  # pixel frames
ATTENTION = re.compile("attention|flash|fmha|sdpa")  # in the names of kernels, or of operations
LINEAR = re.compile("gemm|nvjet|cutlass|xmma|aten::(addmm|mm|bmm|linear)|mkl.*linear")
Told = dict[str, Any]


@dataclass(eq=False)
class Session:
    """One call of this script: its options, and what later sections need of earlier ones."""

    options: argparse.Namespace
    runs: dict[str, Run] = field(default_factory=dict)
    rate: float = 0.0  # of the card, operations a second

    @property
    def device(self) -> torch.device:
        return torch.device(self.options.device)

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.options.dtype)

    @cached_property
    def bench(self) -> Bench:
        return bench(self.options.size, self.options.device, self.dtype)

    @cached_property
    def compiled(self) -> Bench:
        """The same with a model of compiled layers."""
        found = self.bench
        model = copy.copy(found.tools.model)
        model.run = Runner({"backend": self.options.backend})
        return replace(found, tools=replace(found.tools, model=model))

    def make(self, name: str, found: Bench, way: str, size: tuple[int, int] = (1, 1)) -> Told:
        """Chunks, and what they cost; a search beside the price of its calls."""
        run = self.runs[name] = found.run(way, size, self.options.chunks)
        told = run.told | {
            "first chunk": sum(run.made[0].seconds.values()),
            "frames a second": FRAMES / run.all,
            "without decoding": FRAMES / run.searching,
        }
        plain = self.runs.get(PLAIN)
        if plain and way == OURS:
            calls = size[0] * size[1] * found.steps + size[0]
            price = calls * plain.seconds["denoise"] / found.steps
            told["search / price of its calls"] = run.searching / price
        return told

    def free(self) -> None:
        """What is on the device goes."""
        for name in ("bench", "compiled"):
            self.__dict__.pop(name, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


# --- sections, each of which tells what it found -------------------------------------------------


def card(session: Session) -> Told:
    """What it can do at best."""
    cuda = session.device.type == "cuda"
    size = 8192 if cuda else 512
    a, b = (torch.randn(size, size, device=session.device, dtype=session.dtype) for _ in range(2))
    seconds = timed(lambda: a @ b, session.device, 20)
    session.rate = 2 * size**3 / seconds
    copied = timed(a.clone, session.device, 20)
    told = {"device": device_name(session.device), "matrix TFLOP/s": session.rate / 1e12}
    told |= {"copy GB/s, read and written": 2 * a.nbytes / copied / 1e9, "matrix size": size}
    if cuda:
        told["memory GB"] = torch.cuda.get_device_properties(session.device).total_memory / 1e9
    return told


def plain(session: Session) -> Told:
    return session.make(PLAIN, session.bench, PLAIN) | {"published, on an H100": ANCHOR}


def search(size: tuple[int, int], way: str = OURS) -> Callable[[Session], Told]:
    return lambda session: session.make(named(way, size), session.bench, way, size)


def compiled_plain(session: Session) -> Told:
    told = session.make(f"{PLAIN}, compiled", session.compiled, PLAIN)
    return told | _still_compiled(session)


def compiled_search(session: Session) -> Told:
    name = named(OURS, (2, 2))
    told = session.make(f"{name}, compiled", session.compiled, OURS, (2, 2))
    if name in session.runs:
        both = [session.runs[which].decisions for which in (name, f"{name}, compiled")]
        told["chunks decided alike"] = sum(a == b for a, b in zip(*both, strict=True))
    return told | _still_compiled(session)


def overlap(session: Session) -> Told:
    """Plain streaming, with a chunk decoded while the next one is denoised."""
    return measure_overlap(overlap_of(session.bench, torch.get_num_threads()), times=3)


def calls(rows: int, compiled: bool = False) -> Callable[[Session], Told]:
    """A denoiser call of so many candidates: its rate, and what takes the time."""

    def measure(session: Session) -> Told:
        found = session.compiled if compiled else session.bench
        call, operations = one_call(found, rows)
        seconds = timed(call, session.device, 5)
        told = {"seconds": seconds, "TFLOP": operations / 1e12}
        told["TFLOP/s"] = operations / seconds / 1e12
        if session.rate:
            told["of the matrix rate"] = operations / seconds / session.rate
        told |= shares(call, session.device)
        return told | (_still_compiled(session) if compiled else {})

    return measure


def low_memory(gibibytes: int, swapped: bool) -> Callable[[Session], Told]:
    """2 x 2 on a card of so much memory."""

    def measure(session: Session) -> Told:
        session.free()
        sized = SIZES[session.options.size](session.options.device, session.dtype)
        thrift = Thrift(1, KVPlace.PINNED, 1, swapped)
        config = Bench.config(OURS, (2, 2), 1, False)
        accounted = fullest(sized.sizes, config, sized.latent_hw, thrift)
        to_fp8(sized.backbone)
        where = session.options.device
        leaves = sized.backbone if swapped else None
        decoder = FrugalDecoder(streaming_decoder(sized, where), leaves)
        found = bench_of(sized, where, session.dtype, decoder, KVPlace.PINNED)
        with capped(session.device, gibibytes):
            told = session.make(f"low memory, {gibibytes} GB", found, OURS, (2, 2))
        return told | {"cap": gibibytes * 2**30, "accounted": accounted}

    return measure


SECTIONS: Mapping[str, Callable[[Session], Told]] = {
    "card": card,
    PLAIN: plain,
    "call, 1 candidate": calls(1),
    f"{OURS}, 2 x 2": search((2, 2)),
    "call, 4 candidates": calls(4),
    f"{PLAIN}, compiled": compiled_plain,
    "call, 1 candidate, compiled": calls(1, compiled=True),
    f"{OURS}, 4 x 4": search((4, 4)),
    "overlap": overlap,
    "low memory, 12 GB": low_memory(12, swapped=False),
    "low memory, 8 GB": low_memory(8, swapped=True),
    f"{OURS}, 2 x 2, compiled": compiled_search,
    f"{REFERENCE}, 2 x 2": search((2, 2), REFERENCE),
}


def named(way: str, size: tuple[int, int]) -> str:
    return f"{way}, {size[0]} x {size[1]}"


def _still_compiled(session: Session) -> Told:
    return {"compiled": session.compiled.tools.model.run.options is not None}


# --- one denoiser call ---------------------------------------------------------------------------


def one_call(found: Bench, rows: int) -> tuple[Callable[[], Tensor], int]:
    """A call of plain streaming's, for ``rows`` candidates; and its operations."""
    model, [beam], latent_hw = found.tools.model, found.start.beams, found.sized.latent_hw
    past = model.lay_out(beam.kv, latent_hw)
    latent = torch.randn(rows, found.sized.backbone.in_dim, CHUNK, *latent_hw)
    latent, timesteps = latent.to(model.device), torch.full((CHUNK,), 750.0)
    known, own = (sum(kv.keys[0].shape[1] for kv in some) for some in (beam.kv, beam.kv[-1:]))
    operations = rows * call_operations(found.sized.backbone.shape, own, known)
    return lambda: model.flow(latent, timesteps, GIVEN, found.tools.text, past), operations


def call_operations(shape: BackboneShape, own: int, past: int) -> int:
    """Multiplications and additions for one candidate's ``own`` tokens, which see ``past`` ones.

    Text keys and values are made once a prompt and not in it, nor is what is small: embeddings of
    patches and times, the head, norms.
    """
    linear = 2 * own * (6 * shape.dim**2 + 2 * shape.dim * shape.ffn_dim)
    attention = 4 * own * (past + own + shape.text_len) * shape.dim
    return shape.num_layers * (linear + attention)


def timed(call: Callable[[], object], device: torch.device, times: int) -> float:
    """Median seconds of a call, after two that warm up."""
    clock, seconds = Clock(device), []
    for _ in range(2 + times):
        started = clock()
        call()
        seconds.append(clock() - started)
    return statistics.median(seconds[2:])


def shares(call: Callable[[], object], device: torch.device) -> Told:
    """Where the device's time goes, by its kernels' names; the longest of them in milliseconds."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as watched:
        call()
        Clock(device)()
    kinds, kernels = {"attention": 0.0, "linear": 0.0, "other": 0.0}, {}
    for event in watched.key_averages():
        if (event.device_type.name == "CUDA") is cuda and not event.is_user_annotation:
            spent = event.self_device_time_total if cuda else event.self_cpu_time_total
            kinds[kind_of(event.key)] += spent
            kernels[event.key[:100]] = spent / 1000
    whole = sum(kinds.values()) or 1.0
    longest = sorted(kernels.items(), key=lambda pair: -pair[1])[:12]
    return {"shares": {kind: spent / whole for kind, spent in kinds.items()}, "ms": dict(longest)}


def kind_of(kernel: str) -> str:
    name = kernel.lower()
    return "attention" if ATTENTION.search(name) else "linear" if LINEAR.search(name) else "other"


# --- low memory ----------------------------------------------------------------------------------


class Fp8Linear(nn.Module):
    """A linear layer that keeps its weight in 8 bits and casts it in each call."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.to(torch.float8_e4m3fn), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def to_fp8(module: nn.Module) -> None:
    """Every linear layer in it."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Fp8Linear(child))
        else:
            to_fp8(child)


@dataclass(eq=False)
class FrugalDecoder:
    """A decoder whose frames and memory lie on the CPU; ``leaves`` is off the device meanwhile."""

    decoder: StreamingDecoder
    leaves: nn.Module | None

    def decode(self, latents: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        device = self.decoder.device
        with self._room():
            frames, after = self.decoder.decode(latents, state and state.to(device))
            return frames.cpu(), after.moved(lambda kept: KVPlace.PINNED.store(kept, device))

    @contextmanager
    def _room(self) -> Iterator[None]:
        if self.leaves is None:
            yield
            return
        self.leaves.to("cpu")
        self.decoder.vae.to(self.decoder.device)
        try:
            yield
        finally:
            self.decoder.vae.to("cpu")
            self.leaves.to(self.decoder.device)


@contextmanager
def capped(device: torch.device, gibibytes: int) -> Iterator[None]:
    """The allocator has so much and no more; a CPU's has no such bound."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gibibytes * 2**30 / whole))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# --- in words ------------------------------------------------------------------------------------


def words(found: Mapping[str, Told], head: str) -> str:
    lines = [head, "", "A chunk: its seconds, the first one's, frames a second; GiB on the device."]
    columns = ("seconds", "first", "frames/s", "without decoding", "search / calls", "GiB", "cap")
    lines += ["", *_head((*columns, "alike"))]
    for name, told in found.items():
        if "all" in told:
            sizes = [told["bytes"].get("device peak"), told.get("cap")]
            cells = [told["all"], told["first chunk"], told["frames a second"]]
            cells += [told["without decoding"], told.get("search / price of its calls")]
            cells += [size and size / 2**30 for size in sizes]
            lines.append(_row(name, [*cells, told.get("chunks decided alike")]))
    columns = ("seconds", "TFLOP/s", "of the matrix rate", "attention", "linear", "other")
    lines += ["", "A denoiser call, and where its time goes.", "", *_head(columns)]
    for name, told in found.items():
        if "shares" in told:
            cells = [told["seconds"], told["TFLOP/s"], told.get("of the matrix rate")]
            lines.append(_row(name, [*cells, *told["shares"].values()]))
    lines.append("")
    if "times as fast" in found.get("overlap", {}):
        faster, best = (found["overlap"][key] for key in ("times as fast", "at best"))
        lines.append(f"- decoding beside the next denoising: {faster:.3g} x, at best {best:.3g} x")
    lines += [f"- {name}: failed: {t['failed']}" for name, t in found.items() if "failed" in t]
    lines += [f"- {name}: not compiled" for name, t in found.items() if t.get("compiled") is False]
    for name, told in found.items():
        if "accounted" in told:
            sizes = [f"{phase} {size / 2**30:.2f}" for phase, size in told["accounted"].items()]
            lines.append(f"- {name}: by our account, in GiB: {', '.join(sizes)}")
    lines += [f"- {key}: {value}" for key, value in found.get("card", {}).items()]
    return "\n".join(lines) + "\n"


def _head(columns: Sequence[str]) -> list[str]:
    return [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]


def _row(name: str, cells: Sequence[float | None]) -> str:
    shown = ["" if cell is None else f"{cell:.4g}" for cell in cells]
    return f"| {' | '.join([name, *shown])} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A GPU's numbers, in one call of some minutes.")
    parser.add_argument("--size", choices=[*SIZES], default="longlive")
    parser.add_argument("--device", type=present, default="cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--chunks", type=int, default=2, help="counted, after the first of a run")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no section starts")
    parser.add_argument("--only", nargs="*", choices=[*SECTIONS], help="sections (default: all)")
    parser.add_argument("--into", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(arguments)
    session, started = Session(options), time.monotonic()
    found: dict[str, Told] = {}
    head = f"Size {options.size}, {options.dtype}, {device_name(session.device)}."
    for name in options.only or SECTIONS:
        began = time.monotonic() - started
        if began > 60 * options.minutes:
            break
        try:
            with torch.inference_mode():
                found[name] = SECTIONS[name](session)
        except (
            RuntimeError,
            ValueError,
        ) as error:  # out of memory, say: the others are wanted all the same
            found[name] = {"failed": str(error).partition("\n")[0]}
        found[name]["section seconds"] = time.monotonic() - started - began
        told = {key: str(value) for key, value in vars(options).items()}
        write("gpu", {**told, "sections": found}, words(found, head), options.into)


if __name__ == "__main__":
    main()
