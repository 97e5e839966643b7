"""Absolute or relative positions: which of them keeps a long video what it was asked to be?

The tiny model streams half a minute, six times as long as the clips it was trained on, with each
kind of positions; the oracle of ``training/`` judges every second: is the object there, has it the
right shape, does it move the right way, does the picture flicker. Same captions and seeds for all.

Run ``python -m benchmarks.positions``; it writes ``benchmarks/results/positions.json`` (every
second) and ``positions.md``: shares of clips that are right, and the median flicker (less is
better), by five seconds. It says nothing of other models: a large one, trained on a minute, has
less to gain.
"""

import argparse
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import POSITIONS, StreamConfig
from stream_t1_core.generate import generate
from stream_t1_core.scoring import Critic
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.tiny import load_tiny
from stream_t1_core.tools import Tools
from training.clips import evaluation_seed
from training.measure import (
    LATENT_HW,
    LONG_FRAMES,
    SHORT_FRAMES,
    Sample,
    by_second,
    evaluation_pair,
)

from .measured import machine, write
from .page import opening

ROOT = Path(__file__).resolve().parents[1]
JUDGED = {
    "survives": "object there",
    "shape": "shape right",
    "motion": "direction right",
    "median flicker (grey levels)": "flicker, grey levels",
}
SECONDS = 5  # of a row in the table

Rows = list[dict[str, float]]


def sample(index: int, positions: str) -> Sample:
    """An evaluation pair of ``training.measure`` as a long clip: plain streaming, fixed sink."""
    tiny = load_tiny(ROOT / "tiny_model")
    scene, prompt = evaluation_pair(index)
    model = CausalWan(tiny.backbone)
    text = model.encode_text(tiny.encode_prompt(prompt))
    config = StreamConfig(
        latent_frames=LONG_FRAMES,
        seed=evaluation_seed(index),
        positions=positions,
        trained_frames=SHORT_FRAMES,
    )
    tools = Tools(model, text, Critic(StreamingDecoder(tiny.vae)))
    with torch.inference_mode():
        return Sample(scene, prompt, generate(tools, config, LATENT_HW).frames)


def samples(pairs: int, positions: str) -> list[Sample]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, torch.set_num_threads, (1,)) as pool:
        return list(pool.map(sample, range(pairs), [positions] * pairs))


def table(judged: dict[str, Rows]) -> str:
    """Means over each five seconds, as Markdown; shares of clips in per cent."""
    lines = [["seconds", "positions", *JUDGED.values()]]
    lines.append(["---"] * len(lines[0]))
    for first in range(0, len(judged[POSITIONS[0]]), SECONDS):
        for kind, rows in judged.items():
            part = rows[first : first + SECONDS]
            cells = [_cell(name, [row[name] for row in part]) for name in JUDGED]
            lines.append([f"{first} to {first + len(part)}", kind, *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(name: str, values: list[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.2f}" if "flicker" in name else f"{100 * mean:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare kinds of positions on long clips.")
    parser.add_argument("--pairs", type=int, default=12, help="clips of 481 frames for each kind")
    options = parser.parse_args()
    judged = {kind: by_second(samples(options.pairs, kind)) for kind in POSITIONS}
    rows = {kind: [{k: r[k] for k in ("second", *JUDGED)} for r in judged[kind]] for kind in judged}
    result = {
        **machine(),
        "clips": options.pairs,
        "first_clip": 0,
        "latent_frames": LONG_FRAMES,
        "trained_frames": SHORT_FRAMES,
        "by_second": rows,
    }
    write("positions", result, f"{opening(__doc__, result)}\n{table(judged)}")


if __name__ == "__main__":
    main()
