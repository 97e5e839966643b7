"""Does memory, or time per chunk, grow with the length of a video? Ten thousand latent frames.

The tiny model in the plain core, no ComfyUI: a stream that does not keep the whole video, whose
settled frames are counted and forgotten. Now and then it counts the bytes of keys and values and of
decoder states, the process's memory, its Python objects, and the processor time of a chunk (median
since the last count; other programs on the machine disturb that least), and fits a line through
each. One thread; Linux, for the process's memory.

Run ``python -m benchmarks.long_stream`` (``--search``: all three units, four candidates a chunk;
``--frames N``); it prints what it counts and writes ``benchmarks/results/long_stream.json`` and a
picture (``long_stream_search`` with the search). It measures cost only, not what the video shows.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import FIXED_SINK, Memory, NoisePropagation, Search, StreamConfig
from stream_t1_core.drawing import COLOURS, FAINT, GROUND, INK, Pen, axis_ticks
from stream_t1_core.events import Event, FramesSettled
from stream_t1_core.generate import finish, stream
from stream_t1_core.kv import live_bytes
from stream_t1_core.rewards.flicker import Flicker
from stream_t1_core.rewards.sharpness import Sharpness
from stream_t1_core.scoring import Critic
from stream_t1_core.state import StreamState
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.tiny import load_tiny
from stream_t1_core.tools import Tools

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red circle moving left on a dark background"
LATENT_HW = (8, 8)
TRAINED_FRAMES = 21  # of the tiny model; positions are relative after that
CHUNKS_BETWEEN = 84  # counts: 252 latent frames
WIDTH, TOP, PANEL, LEFT, RIGHT = 900, 30, 150, 96, 24  # pixels of the picture and its parts


@dataclass(frozen=True)
class Count:
    """What a stream holds after so many latent frames."""

    frames: int
    kv_mb: float
    decoder_mb: float
    process_mb: float
    python_objects: int
    chunk_cpu_ms: float


WORDS = {
    "kv_mb": "keys and values, MB",
    "decoder_mb": "decoder states, MB",
    "process_mb": "memory of the process, MB",
    "python_objects": "Python objects",
    "chunk_cpu_ms": "processor time per chunk, ms",
}


def measure(frames: int, search: bool) -> list[Count]:
    """Stream so many latent frames, and count on the way."""
    tiny = load_tiny(ROOT / "tiny_model")
    model = CausalWan(tiny.backbone)
    decoder = StreamingDecoder(tiny.vae)
    critic = Critic(decoder, Sharpness(), Flicker(), PROMPT) if search else Critic(decoder)
    tools = Tools(model, model.encode_text(tiny.encode_prompt(PROMPT)), critic)
    config = StreamConfig(
        latent_frames=frames,
        noise=NoisePropagation() if search else None,
        search=Search() if search else None,
        memory=Memory() if search else FIXED_SINK,
        trained_frames=TRAINED_FRAMES,
        whole=False,
    )
    shown = 0

    def emit(event: Event) -> None:
        nonlocal shown
        if isinstance(event, FramesSettled):
            shown += len(event.frames)

    counts: list[Count] = []
    spent: list[float] = []
    state = StreamState()
    started = time.process_time()
    for state in stream(tools, config, LATENT_HW, emit):
        spent.append(time.process_time() - started)
        if len(spent) == CHUNKS_BETWEEN:
            counts.append(_count(state, config, spent))
            print("  ".join(f"{k} {v:9.2f}" for k, v in asdict(counts[-1]).items()), flush=True)
            spent = []
        started = time.process_time()
    finish(state, tools, config, emit)
    if shown != 4 * frames - 3:
        raise RuntimeError(f"{shown} pixel frames settled, not {4 * frames - 3}")
    return counts


def growth(counts: list[Count], name: str) -> float:
    """Per cent from the first count to the last, along the straight line that fits best."""
    frames = [count.frames for count in counts]
    slope, start = statistics.linear_regression(frames, [getattr(c, name) for c in counts])
    return 100 * slope * (frames[-1] - frames[0]) / (start + slope * frames[0])


def draw(counts: list[Count], candidates: int) -> Image.Image:
    """A panel for each thing that was counted, over the length in latent frames, from 0 up."""
    image = Image.new("RGB", (WIDTH, TOP + PANEL * len(WORDS)), GROUND)
    pen = Pen(ImageDraw.Draw(image))
    pen.text((LEFT, TOP / 2), f"Over latent frames, {candidates} tried a chunk", "lm", bold=True)
    for place, ((name, words), colour) in enumerate(zip(WORDS.items(), COLOURS, strict=True)):
        upper, lower = TOP + PANEL * place + 32, TOP + PANEL * (place + 1) - 22
        values = [getattr(count, name) for count in counts]
        ticks = axis_ticks(0, max(values))
        across = [LEFT + (WIDTH - LEFT - RIGHT) * c.frames / counts[-1].frames for c in counts]
        down = [lower - (lower - upper) * value / ticks[-1] for value in values]
        for tick in ticks:
            y = lower - (lower - upper) * tick / ticks[-1]
            pen.draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=FAINT)
            pen.text((LEFT - 6, y), f"{tick:g}", "rm")
        pen.text((LEFT, upper - 16), words, "lm")
        pen.text((WIDTH - RIGHT, upper - 16), f"{growth(counts, name):+.2f} % in all", "rm")
        pen.draw.line(list(zip(across, down, strict=True)), fill=colour, width=2)
        pen.draw.rectangle([(LEFT, upper), (WIDTH - RIGHT, lower)], outline=INK)
        for count, x in list(zip(counts, across, strict=True))[:: max(1, len(counts) // 8)]:
            pen.text((x, lower + 11), str(count.frames), "mm")
    return image


def _count(state: StreamState, config: StreamConfig, spent: list[float]) -> Count:
    kv = live_bytes(chunk for beam in state.beams for chunk in beam.kv)
    decoder = sum(beam.decoder_state.nbytes for beam in state.beams)
    gc.collect()
    return Count(
        frames=config.first_frame(state.chunk),
        kv_mb=kv / 1e6,
        decoder_mb=decoder / 1e6,
        process_mb=_process_bytes() / 1e6,
        python_objects=len(gc.get_objects()),
        chunk_cpu_ms=1000 * statistics.median(spent),
    )


def _process_bytes() -> int:
    """Resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def result(counts: list[Count], frames: int, search: bool) -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),  # at the end; 1 is a machine of its own
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "latent_frames": frames,
        "candidates": Search().candidates if search else 1,
        "growth_percent": {name: round(growth(counts, name), 3) for name in WORDS},
        "counts": [{k: round(v, 3) for k, v in asdict(count).items()} for count in counts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time of a long stream.")
    parser.add_argument("--frames", type=int, default=10_000, help="latent frames")
    parser.add_argument("--search", action="store_true", help="all three units, K = M = 2")
    options = parser.parse_args()
    if options.frames < 6 * CHUNKS_BETWEEN:
        parser.error(f"--frames: {6 * CHUNKS_BETWEEN} or more, for two counts")
    torch.set_num_threads(1)
    with torch.inference_mode():
        counts = measure(options.frames, options.search)
    for name, words in WORDS.items():
        values = [getattr(count, name) for count in counts]
        print(f"{words:30} first {values[0]:10.2f}  last {values[-1]:10.2f}", end="")
        print(f"  least {min(values):10.2f}  most {max(values):10.2f}", end="")
        print(f"  {growth(counts, name):+.3f} %")
    path = ROOT / "benchmarks" / "results" / f"long_stream{'_search' * options.search}.json"
    content = result(counts, options.frames, options.search)
    path.write_text(json.dumps(content, indent=2) + "\n")
    draw(counts, content["candidates"]).save(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
