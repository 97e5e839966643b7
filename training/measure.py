"""Measures the tiny model by the oracle: `python -m training.measure`. Plain streaming, unseen
seeds.

Writes numbers (JSON) and a contact sheet (PNG) next to the weights' documentation. Every pair is a
caption that training never saw, with words it never saw, and a noise seed of its own.
"""

import argparse
import functools
import json
import multiprocessing
import os
import random
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import StreamConfig
from stream_t1_core.generate import Tools, generate
from stream_t1_core.scoring import Critic
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.tiny import DRIFT, TinyModel, load_tiny

from . import clips, oracle

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "training" / "results"
LATENT_HW = (8, 8)
SHORT_FRAMES = 21  # latent; 81 pixel frames
LONG_FRAMES = 121  # latent; 481 pixel frames
NEW_WORDS = ("gorgeous", "weightless", "tiny-world", "beautifully rendered", "mysterious", "4k")
NAMED = ("colour", "shape", "motion", "background", "survives", "straight")
SHEET_ROWS, SHEET_COLUMNS = 16, 11


@dataclass(frozen=True, eq=False)
class Sample:
    """One generated clip [T, 64, 64, 3] and what it should have been."""

    scene: clips.Scene
    prompt: str
    frames: Tensor = field(repr=False)


def evaluation_pair(index: int) -> tuple[clips.Scene, str]:
    """Scene and caption of evaluation pair `index`; half of the captions hold a word never seen."""
    rng = random.Random(f"evaluation {index}")
    scene = clips.sample_scene(clips.evaluation_seed(index))
    words = clips.prompt(scene, rng).split()
    if rng.random() < 0.5:
        words.insert(rng.choice((0, len(words))), rng.choice(NEW_WORDS))
    return scene, " ".join(words)


def stream_sample(tiny: TinyModel, index: int, latent_frames: int) -> Sample:
    """Plain streaming: one candidate a chunk, fixed sink."""
    scene, prompt = evaluation_pair(index)
    model = CausalWan(tiny.backbone)
    text = model.encode_text(tiny.encode_prompt(prompt))
    tools = Tools(model, text, Critic(decoder=StreamingDecoder(tiny.vae)))
    config = StreamConfig(latent_frames=latent_frames, seed=clips.evaluation_seed(index))
    with torch.inference_mode():
        video = generate(tools, config, LATENT_HW)
    return Sample(scene, prompt, video.frames)


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """Shares of clips that are right, and medians of what is measured in units."""
    tracks = [oracle.track(sample.frames) for sample in samples]
    whole = [oracle.judge(t, s.scene) for t, s in zip(tracks, samples, strict=True)]
    first = [
        oracle.judge(t.part(0, oracle.FIRST_CHUNK), s.scene)
        for t, s in zip(tracks, samples, strict=True)
    ]
    right = {name: _share([getattr(v, name) for v in whole]) for name in NAMED}
    return {
        "first chunk: colour": _share([v.colour for v in first]),
        "first chunk: shape": _share([v.shape for v in first]),
        "first chunk: colour and shape": _share([v.colour and v.shape for v in first]),
        **{f"whole clip: {name}": share for name, share in right.items()},
        "whole clip: everything": _share([v.all_right for v in whole]),
        "median position error (px)": statistics.median(v.position_error for v in whole),
        "median speed (px/frame)": statistics.median(v.speed for v in whole),
        "median flicker (grey levels)": statistics.median(v.flicker for v in whole),
    }


def by_second(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """How quality falls with time: the same shares for each second of the clips."""
    verdicts = [oracle.judge_seconds(oracle.track(s.frames), s.scene) for s in samples]
    rows = []
    for second, column in enumerate(zip(*verdicts, strict=True)):
        row = {"second": second}
        row |= {name: _share([getattr(v, name) for v in column]) for name in NAMED}
        row["median flicker (grey levels)"] = statistics.median(v.flicker for v in column)
        rows.append(row)
    return rows


def contact_sheet(samples: Sequence[Sample], path: Path) -> None:
    """One clip a row, frames spread evenly over its length."""
    rows = []
    for sample in samples[:SHEET_ROWS]:
        picks = torch.linspace(0, len(sample.frames) - 1, SHEET_COLUMNS).round().long()
        strip = torch.nn.functional.pad(sample.frames[picks], (0, 0, 1, 1, 1, 1), value=1.0)
        rows.append(torch.cat(list(strip), dim=1))
    picture = (torch.cat(rows) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def stream_samples(weights: Path, drift: float, count: int, latent_frames: int) -> list[Sample]:
    """Evaluation pairs 0..count-1, one process a core: tensors so small gain little by threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        jobs = [(weights, drift, index, latent_frames) for index in range(count)]
        return list(pool.map(_stream_job, jobs))


def _stream_job(job: tuple[Path, float, int, int]) -> Sample:
    weights, drift, index, latent_frames = job
    return stream_sample(_load(weights, drift), index, latent_frames)


_load = functools.cache(load_tiny)


def measure(
    weights: Path, drift: float, short_pairs: int, long_pairs: int, folder: Path
) -> dict[str, object]:
    """All numbers, and the contact sheets written to `folder`."""
    short = stream_samples(weights, drift, short_pairs, SHORT_FRAMES)
    contact_sheet(short, folder / "contact_sheet.png")
    numbers: dict[str, object] = {
        "drift": drift,
        "pairs": short_pairs,
        "frames": len(short[0].frames),
        "plain streaming": summary(short),
    }
    if long_pairs:
        long = stream_samples(weights, drift, long_pairs, LONG_FRAMES)
        contact_sheet(long, folder / "contact_sheet_long.png")
        numbers["long pairs"] = long_pairs
        numbers["long frames"] = len(long[0].frames)
        numbers["long, by second"] = by_second(long)
    numbers["clips"] = [
        {"prompt": s.prompt} | asdict(oracle.judge(oracle.track(s.frames), s.scene)) for s in short
    ]
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "tiny_model", help="weights")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where results go")
    parser.add_argument("--pairs", type=int, default=128, help="clips of 81 frames")
    parser.add_argument("--long-pairs", type=int, default=24, help="clips of 481 frames")
    parser.add_argument("--drift", type=float, default=DRIFT, help="0: as trained")
    options = parser.parse_args()
    numbers = measure(
        options.folder, options.drift, options.pairs, options.long_pairs, options.output
    )
    text = json.dumps(numbers, indent=1)
    (options.output / "measured.json").write_text(text + "\n")
    for name, value in numbers["plain streaming"].items():
        print(f"{name}: {value:.3f}")


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


if __name__ == "__main__":
    main()
