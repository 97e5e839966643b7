"""What a budget buys with the tiny model: cost against quality, measured.

Run ``python benchmarks/budget.py`` in the repository; it prints a table and writes it as JSON to
``benchmarks/results/budget.json``. Every budget makes the same clips: captions that training never
saw, the same seeds, all three units and the quickstart's rewards, two paths and eight candidates a
chunk at most. Costs: processor seconds on one thread, so that other programs disturb little, and
denoiser calls. Quality: the oracle's verdict on the whole clip, PSNR and SSIM to the nearest drawn
clip of the caption (``training/nearest.py``), flicker. With each mean a 95 % interval, by
resampling the captions; differences are taken caption by caption. ``adaptive`` makes as many calls
as ``medium``, or fewer.
"""

import argparse
import functools
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stream_t1_core.causal_wan import CausalWan  # noqa: E402
from stream_t1_core.config import (  # noqa: E402
    QUALITY,
    Budget,
    Memory,
    NoisePropagation,
    Search,
    StreamConfig,
)
from stream_t1_core.events import ChunkDone, Event  # noqa: E402
from stream_t1_core.generate import generate  # noqa: E402
from stream_t1_core.rewards.clip import ClipScore  # noqa: E402
from stream_t1_core.rewards.drift import ColourDrift  # noqa: E402
from stream_t1_core.rewards.flicker import Flicker  # noqa: E402
from stream_t1_core.rewards.mix import RewardMix  # noqa: E402
from stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency  # noqa: E402
from stream_t1_core.scoring import Critic  # noqa: E402
from stream_t1_core.tiny import load_tiny  # noqa: E402
from stream_t1_core.tools import Tools  # noqa: E402
from stream_t1_core.wan_vae import StreamingDecoder  # noqa: E402
from training import clips, oracle  # noqa: E402
from training.measure import LATENT_HW, evaluation_pair  # noqa: E402
from training.nearest import nearest, psnr, ssim  # noqa: E402

SEARCH = Search(beam_width=2, branch_factor=4, standardise=True)
BUDGETS = {
    "plain": Budget(amount=0.0),
    **{name: Budget(amount=quality) for name, quality in QUALITY.items()},
    "adaptive": Budget(amount=QUALITY["medium"], adaptive=True),
}
DIFFERENCES = (("low", "plain"), ("medium", "low"), ("high", "medium"), ("adaptive", "medium"))
RESAMPLES = 2000
FIRST_CLIP = 1000  # training/measure.py measures those from 0


@dataclass(frozen=True)
class Job:
    weights: Path
    budget: str
    clip: int
    latent_frames: int


def measure(job: Job) -> dict[str, float]:
    """One clip on one budget."""
    torch.set_num_threads(1)
    scene, prompt = evaluation_pair(job.clip)
    done: list[ChunkDone] = []

    def emit(event: Event) -> None:
        if isinstance(event, ChunkDone):
            done.append(event)

    config = StreamConfig(
        latent_frames=job.latent_frames,
        seed=clips.evaluation_seed(job.clip),
        noise=NoisePropagation(),
        search=SEARCH,
        memory=Memory(),
        budget=BUDGETS[job.budget],
    )
    with torch.inference_mode():
        frames = generate(tools(job.weights, prompt), config, LATENT_HW, emit).frames
        verdict = oracle.judge(oracle.track(frames), scene)
        truth = nearest(frames, scene)
        return {
            "ms per frame": 1000 * sum(chunk.budget.seconds for chunk in done) / len(frames),
            "denoiser calls": sum(chunk.budget.calls for chunk in done),
            "candidates": sum(len(chunk.candidates) for chunk in done),
            "oracle pass rate": float(verdict.all_right),
            "PSNR (dB)": psnr(frames, truth),
            "SSIM": ssim(frames, truth),
            "flicker (grey levels)": verdict.flicker,
        }


def tools(weights: Path, prompt: str) -> Tools:
    tiny, clip_score = _loaded(weights)
    model = CausalWan(tiny.backbone)
    consistency = RewardMix(
        (
            (1.0, TemporalConsistency()),
            (1.0, Flicker()),
            (0.5, MotionAmount(2.0)),
            (1.0, ColourDrift()),
        )
    )
    critic = Critic(StreamingDecoder(tiny.vae), clip_score, consistency, prompt)
    text = model.encode_text(tiny.encode_prompt(prompt))
    return Tools(model, text, critic, clock=time.process_time)


@functools.cache
def _loaded(weights: Path) -> tuple:
    return load_tiny(weights), ClipScore.from_folder(weights / "clip_tiny")


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, and where 95 % of the means of resampled values lie."""
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    low, high = means[RESAMPLES // 40], means[-RESAMPLES // 40 - 1]
    return {
        "mean": round(statistics.fmean(values), 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def table(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {key: interval([clip[key] for clip in of_budget]) for key in of_budget[0]}
        for name, of_budget in rows.items()
    }


def differences(rows: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """What one budget has more than another, clip by clip."""
    return {
        f"{more} - {less}": [
            {key: a[key] - b[key] for key in a} for a, b in zip(rows[more], rows[less], strict=True)
        ]
        for more, less in DIFFERENCES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=ROOT / "tiny_model")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--latent-frames", type=int, default=21)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "budget.json"
    )
    options = parser.parse_args()
    jobs = [
        Job(options.weights, budget, FIRST_CLIP + clip, options.latent_frames)
        for clip in range(options.clips)
        for budget in BUDGETS
    ]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in BUDGETS}
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        for job, row in zip(jobs, pool.map(measure, jobs), strict=True):
            rows[job.budget].append(row)
    result = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "clips": options.clips,
        "latent frames": options.latent_frames,
        "beam width": SEARCH.beam_width,
        "branch factor": SEARCH.branch_factor,
        "budgets": table(rows),
        "differences": table(differences(rows)),
    }
    for name, columns in (result["budgets"] | result["differences"]).items():
        for key, told in columns.items():
            spread = f"({told['low']:.3f}..{told['high']:.3f})"
            print(f"{name:18} {key:22} {told['mean']:9.3f} {spread}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
