"""What a chunk costs: plain streaming, a search as the released code runs it, and ours.

Run ``python -m benchmarks.speed --size tiny`` (or ``medium``, or ``longlive`` with ``--device cuda
--dtype bfloat16``); it writes ``benchmarks/results/speed_SIZE.{json,md,png}``, with the device's
name behind the size where that is no CPU. Every run goes on from the same given footage, so that
the window and the long reward's span are full from the first chunk; that chunk warms up and is not
counted, the medians of the others are. On a CPU, processor time of one thread; on another device,
wall time, waiting for it at each reading.

``search`` is all but decoding and scoring. The goals are ratios within the run: the search at its
denoiser calls, each at plain streaming's price (measured before and after all others); keys and
values; and seconds with decoding and scoring against the search in the style of the reference. The
released code's decisions are held against ours with ``isolated``, which scores the same frames; in
bfloat16 they may part, since one candidate's numbers round otherwise than those of a batch.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.commit import begin
from stream_t1_core.config import FIXED_SINK, Memory, NoisePropagation, Search, StreamConfig
from stream_t1_core.events import ChunkDone, Event
from stream_t1_core.generate import run_chunk
from stream_t1_core.kv import ChunkKV, KVPlace, Route, live_bytes
from stream_t1_core.meter import Meter
from stream_t1_core.rewards.flicker import Flicker
from stream_t1_core.rewards.sharpness import Sharpness
from stream_t1_core.scoring import Critic, Decoder, DecoderState
from stream_t1_core.state import Start, StreamState
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.tools import Tools

from . import reference_style
from .measured import RESULTS, cpu_name, write
from .page import headed
from .reference_style import Decision
from .speed_sizes import SIZES, SizedModel

GIVEN = 27  # latent frames: nine chunks, so that a span of ten is full
SEARCHES = ((1, 1), (2, 2), (4, 4))
PLAIN, OURS, REFERENCE = "plain streaming", "ours", "reference style"
PHASES = ("denoise", "context pass", "route", "copy", "rest", "decode", "score")
SEARCHING = PHASES[:5]
MEMORY = Memory(max_sink_frames=3)  # all that is good is blended: the same context in every run
MOST_OF_CALLS, LEAST_FASTER = 1.10, 4.0
PARTED = "the paths parted before the last chunk: they share less of the window and of the sinks"


@dataclass(frozen=True)
class Clock:
    """Seconds of work."""

    device: torch.device

    def __call__(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.get_device_module(self.device).synchronize()
        return time.perf_counter()


class TimedModel(CausalWan):
    """Knows what its context passes took."""

    clock: Clock
    spent = 0.0

    def context_pass(self, *args: Any) -> ChunkKV:
        started = self.clock()
        made = super().context_pass(*args)
        self.spent += self.clock() - started
        return made


@dataclass(eq=False)
class TimedDecoder:
    """A decoder that knows what it took."""

    decoder: Decoder
    clock: Clock
    spent: float = 0.0

    def decode(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState | None]:
        started = self.clock()
        decoded = self.decoder.decode(latents, state)
        self.spent += self.clock() - started
        return decoded


@dataclass(frozen=True)
class Made:
    """A chunk that was made: its phases' seconds, what was decided, and bytes of K/V."""

    seconds: dict[str, float]
    decisions: list[Decision]
    live: int
    peak: int


@dataclass(frozen=True)
class Run:
    """One way to make chunks, measured."""

    made: Sequence[Made] = field(repr=False)
    device_peak: int | None  # bytes, the allocator's

    @property
    def seconds(self) -> dict[str, float]:
        """Of a chunk, by phase."""
        counted = self.made[1:]
        return {p: statistics.median(m.seconds[p] for m in counted) for p in PHASES}

    @property
    def searching(self) -> float:
        return sum(self.seconds[phase] for phase in SEARCHING)

    @property
    def all(self) -> float:
        return sum(self.seconds.values())

    @property
    def decisions(self) -> list[list[Decision]]:
        return [m.decisions for m in self.made]

    @property
    def told(self) -> dict[str, Any]:
        last = self.made[-1]
        seconds = {phase: round(value, 5) for phase, value in self.seconds.items()}
        memory = {"K/V live": last.live, "K/V peak": max(m.peak for m in self.made)}
        memory |= {"device peak": self.device_peak} if self.device_peak else {}
        return {"seconds": seconds, "search": self.searching, "all": self.all, "bytes": memory}


@dataclass(frozen=True, eq=False)
class Bench:
    """A model and the footage that every run goes on from."""

    sized: SizedModel
    tools: Tools
    start: StreamState
    steps: int

    def run(self, way: str, size: tuple[int, int], chunks: int, isolated: bool = False) -> Run:
        """``chunks`` besides the first."""
        config, tools = self.config(way, size, chunks + 1, isolated), self.tools
        if way == PLAIN:
            tools = tools.without_rewards()
        cuda = tools.model.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        state, made = self.start, []
        for _ in range(chunks + 1):
            state, chunk = self._made(state, tools, config, way)
            made.append(chunk)
        return Run(made, torch.cuda.max_memory_allocated() if cuda else None)

    @staticmethod
    def config(way: str, size: tuple[int, int], chunks: int, isolated: bool) -> StreamConfig:
        return StreamConfig(
            latent_frames=GIVEN + 3 * chunks,
            given_frames=GIVEN,
            search=None if way == PLAIN else Search(*size),
            noise=None if way == PLAIN else NoisePropagation(),
            memory=FIXED_SINK if way == PLAIN else MEMORY,
            isolated=isolated or way == REFERENCE,
        )

    def _made(
        self, before: StreamState, tools: Tools, config: StreamConfig, way: str
    ) -> tuple[StreamState, Made]:
        clock, model, decoder = tools.clock, tools.model, tools.critic.decoder
        model.spent = decoder.spent = 0.0
        started = clock()
        chunk = (before, tools, config, self.sized.latent_hw)
        if way == REFERENCE:
            meter = Meter(clock, lambda event: None, 0, 0, started)
            state, decisions, peak = reference_style.run_chunk(*chunk, meter)
            seconds = meter.seconds
        else:
            events: list[Event] = []
            state = run_chunk(*chunk, events.append)
            [done] = [event for event in events if isinstance(event, ChunkDone)]
            seconds = done.seconds
            decisions = [(c.parent, c.seed, c.rank, c.route) for c in done.candidates]
            peak = _held(before, state) + _keys(before)
        phases = _phases(seconds, model.spent, decoder.spent, clock() - started)
        return state, Made(phases, decisions, _held(state), peak)


def bench(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Bench:
    """Everything that is made once."""
    sized = SIZES[size](device, dtype)
    return bench_of(sized, device, dtype, streaming_decoder(sized, device))


def streaming_decoder(sized: SizedModel, device: str) -> StreamingDecoder:
    dtype = next(sized.vae.parameters()).dtype
    return StreamingDecoder(sized.vae, dtype=dtype, device=device)


def bench_of(
    sized: SizedModel,
    device: str,
    dtype: torch.dtype,
    decoder: Decoder,
    kv_place: KVPlace = KVPlace.DEVICE,
) -> Bench:
    clock = Clock(torch.device(device))
    model = TimedModel(sized.backbone, dtype=dtype, device=device, kv_place=kv_place)
    model.clock = clock
    decoder = TimedDecoder(decoder, clock)
    critic = Critic(decoder, Sharpness(), Flicker())
    tools = Tools(model, model.encode_text(sized.rows), critic, clock=clock)
    footage = torch.randn(16, GIVEN, *sized.latent_hw, generator=torch.Generator().manual_seed(0))
    config = Bench.config(PLAIN, (1, 1), 1, False)
    start = begin(Start(footage), model, tools.text, config, decoder)
    [beam] = start.beams
    window = tuple(replace(kv, route=Route.BLEND) for kv in beam.window)  # each chunk takes a route
    start = replace(start, beams=(replace(beam, window=window),))
    return Bench(sized, tools, start, len(config.schedule.steps))


def measure(found: Bench, chunks: int, tell: Callable[[str], None]) -> dict[str, Run]:
    """Every way to make chunks, by name."""
    runs = {}

    def run(name: str, *args: Any) -> None:
        tell(name)
        runs[name] = found.run(*args)

    run(PLAIN, PLAIN, (1, 1), max(chunks, 3))
    for size in SEARCHES:
        for way in (OURS, REFERENCE):
            run(named(way, size), way, size, chunks)
    run(ISOLATED, OURS, (2, 2), chunks, True)
    run(f"{PLAIN}, again", PLAIN, (1, 1), max(chunks, 3))
    return runs


def named(way: str, size: tuple[int, int]) -> str:
    return f"{way}, {size[0]} x {size[1]}"


ISOLATED = f"{named(OURS, (2, 2))}, isolated"


def call_seconds(runs: dict[str, Run], steps: int) -> float:
    """One denoiser call of plain streaming."""
    plain = [runs[name].seconds["denoise"] for name in (PLAIN, f"{PLAIN}, again")]
    return statistics.mean(plain) / steps


def goals(runs: dict[str, Run], found: Bench) -> list[dict[str, Any]]:
    """What was aimed at, what came out, and where a miss comes from."""
    call, told = call_seconds(runs, found.steps), []
    chunk_bytes = found.start.beams[0].window[-1].nbytes
    window_bytes = MEMORY.window_frames // 3 * chunk_bytes
    for beams, branches in SEARCHES:
        ours = runs[named(OURS, (beams, branches))]
        price = (beams * branches * found.steps + beams) * call
        parts = ", ".join(f"{p} {ours.seconds[p] / price:.3f}" for p in SEARCHING if p != "copy")
        told.append(
            _goal(
                f"{beams} x {branches}: search / (denoiser calls x plain streaming's price)",
                ours.searching / price,
                ours.searching <= MOST_OF_CALLS * price,
                f"at most {MOST_OF_CALLS}",
                f"of the calls' price: {parts}",
            )
        )
    for beams, branches in SEARCHES:
        live, bound = runs[named(OURS, (beams, branches))].made[-1].live, beams * chunk_bytes
        told.append(
            _goal(
                f"{beams} x {branches}: K/V live, in chunks",
                live / chunk_bytes,
                fits := live <= window_bytes + bound,
                f"at most one window and K chunks: {(window_bytes + bound) / chunk_bytes:g}",
                "" if fits else PARTED,
            )
        )
    ours, theirs = runs[named(OURS, (2, 2))], runs[named(REFERENCE, (2, 2))]
    shares = ", ".join(f"{p} {ours.seconds[p] / ours.all:.0%}" for p in PHASES if ours.seconds[p])
    told.append(
        _goal(
            "2 x 2: reference style / ours, all phases",
            theirs.all / ours.all,
            theirs.all >= LEAST_FASTER * ours.all,
            f"at least {LEAST_FASTER:g}",
            f"ours: {shares}",
        )
    )
    return told


def alike(runs: dict[str, Run]) -> str:
    """In how many chunks the released way decides as ours does, from the first one on."""
    pairs = zip(runs[ISOLATED].decisions, runs[named(REFERENCE, (2, 2))].decisions, strict=True)
    equal = [*itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return f"{len(equal)} of {len(runs[ISOLATED].made)}"


def words(runs: dict[str, Run], aims: list[dict[str, Any]], head: str) -> str:
    lines = [headed(__doc__), "", head, "", "Seconds per chunk; K/V in MB.", ""]
    plainly = runs[PLAIN].all
    columns = ("", *PHASES, "search", "all", "all / plain", "K/V live", "K/V peak")
    lines += [_row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
    for name, run in runs.items():
        last = run.made[-1]
        seconds = [*run.seconds.values(), run.searching, run.all]
        sizes = [last.live, max(m.peak for m in run.made)]
        cells = [f"{s:.4g}" for s in (*seconds, run.all / plainly)]
        cells += [f"{size / 1e6:.4g}" for size in sizes]
        lines.append(_row([name, *cells]))
    lines += ["", _row(("goal", "is", "aim", "", "why")), _row(["---"] * 5)]
    lines += [_row([str(cell) for cell in aim.values()]) for aim in aims]
    lines += ["", f"2 x 2, isolated: decides as reference style does in {alike(runs)} chunks."]
    return "\n".join(lines) + "\n"


def plot(seconds: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """A bar for each way, its phases one after the other; what decodes anew has an own scale."""
    from matplotlib import pyplot

    names = [name for name in seconds if not name.endswith("again")][::-1]
    anew = [name for name in names if name.startswith(REFERENCE) or name == ISOLATED]
    once = [name for name in names if name not in anew]
    figure, axes = pyplot.subplots(2, figsize=(11, 5), layout="constrained")
    for axis, some in zip(axes, (once, anew), strict=True):
        left = [0.0] * len(some)
        for phase in PHASES:
            widths = [seconds[name][phase] for name in some]
            axis.barh(some, widths, left=left, label=phase)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axis.grid(alpha=0.3, axis="x")
    axes[0].legend(fontsize=8)
    axes[1].set_xlabel("seconds per chunk")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and bytes of a chunk, by phase.")
    parser.add_argument("--size", choices=[*SIZES], default="tiny")
    parser.add_argument("--device", type=present, default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--chunks", type=int, default=3, help="counted, after the first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        found = bench(options.size, options.device, getattr(torch, options.dtype))
        runs = measure(found, options.chunks, lambda name: print(name, flush=True))
    aims, where = goals(runs, found), device_name(torch.device(options.device))
    call = call_seconds(runs, found.steps)
    head = (
        f"Size {options.size}, {options.dtype}, {where}; {options.chunks} chunks counted. A "
        f"denoiser call of plain streaming: {call:.4g} s."
    )
    told = {**vars(options), "device_name": where, "plain_call_seconds": call}
    told |= {"runs": {name: run.told for name, run in runs.items()}, "goals": aims}
    name = f"speed_{options.size}" + (f"_{options.device}" if options.device != "cpu" else "")
    write(name, {**told, "chunks_decided_alike": alike(runs)}, words(runs, aims, head))
    plot({name: run.seconds for name, run in runs.items()}, RESULTS / f"{name}.png")


def present(name: str) -> str:
    """A command line's device, where there is one."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # of a PyTorch that was built without CUDA
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{name!r} cannot be used: {reason}") from None
    return name


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"one thread of {cpu_name()}"


def _phases(
    seconds: dict[str, float], context: float, decode: float, whole: float
) -> dict[str, float]:
    phases = {
        "denoise": seconds["denoise"],
        "context pass": context,
        "route": seconds["commit"] - context,  # taken; deciding it is in the scores' seconds
        "copy": seconds.get("copy", 0.0),
        "decode": decode,
        "score": seconds["decode"] + seconds["score"] - decode,
    }
    return phases | {"rest": whole - sum(phases.values())}


def _held(*states: StreamState) -> int:
    return live_bytes(kv for state in states for beam in state.beams for kv in beam.kv)


def _keys(state: StreamState) -> int:
    """Bytes of the rotated keys that are kept while a chunk is made: half of its past."""
    return _held(state) // 2


def _goal(what: str, value: float, met: bool, aim: str, why: str) -> dict[str, Any]:
    return {
        "goal": what,
        "is": round(value, 3),
        "aim": aim,
        "met": "met" if met else "missed",
        "why": why,
    }


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
