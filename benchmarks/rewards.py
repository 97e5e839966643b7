"""What rewards cost on this CPU: time and memory per candidate of 12 frames.

The training-free rewards and the tiny CLIP that ships with the pack. Run ``python
benchmarks/rewards.py`` in the repository; it prints a table and writes it as JSON to
``benchmarks/results/rewards_cpu.json``. One thread, processor time, best of three: other programs
on the machine disturb that least. Memory is the growth of a fresh process's peak while it scores
one batch of four candidates, frames and weights not counted. It measures cost only, not whether a
reward is right.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stream_t1_core.rewards.base import Clips, Reward  # noqa: E402
from stream_t1_core.rewards.clip import ClipScore  # noqa: E402
from stream_t1_core.rewards.drift import ColourDrift  # noqa: E402
from stream_t1_core.rewards.flicker import Flicker  # noqa: E402
from stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency  # noqa: E402
from stream_t1_core.rewards.sharpness import Sharpness  # noqa: E402

REWARDS = {
    "flicker": Flicker,
    "sharpness": Sharpness,
    "colour_drift": ColourDrift,
    "motion_amount": MotionAmount,
    "temporal_consistency": TemporalConsistency,
    "tiny clip_score": lambda: ClipScore.from_folder(ROOT / "tiny_model" / "clip_tiny"),
}
SIZES = ((64, 64), (480, 832))
CANDIDATES, FRAMES, REPEATS = 4, 12, 3


def milliseconds_per_candidate(reward: Reward, clips: Clips) -> float:
    reward(clips)
    spent = []
    for _ in range(REPEATS):
        start = time.process_time()
        reward(clips)
        spent.append(time.process_time() - start)
    return 1000 * min(spent) / len(clips.frames)


def megabytes_per_candidate(reward: Reward, clips: Clips) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    reward(clips)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) / 1024 / len(clips.frames)


def cost(name: str, height: int, width: int) -> dict[str, float]:
    """In a process of its own: a peak never falls again."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(CANDIDATES, FRAMES, height, width, 3, generator=generator)
    clips = Clips(frames, frames, "a red circle moving left on a dark background", 16.0)
    reward = REWARDS[name]()
    megabytes = megabytes_per_candidate(reward, clips)
    milliseconds = milliseconds_per_candidate(reward, clips)
    return {
        "ms_per_candidate": round(milliseconds, 2),
        "peak_mb_per_candidate": round(megabytes, 1),
    }


def measure(height: int, width: int) -> dict[str, dict[str, float]]:
    spawn = multiprocessing.get_context("spawn")
    costs = {}
    for name in REWARDS:
        with ProcessPoolExecutor(1, spawn) as process:
            costs[name] = process.submit(cost, name, height, width).result()
    cheapest = min(row["ms_per_candidate"] for row in costs.values())
    for row in costs.values():
        row["times_cheapest"] = round(row["ms_per_candidate"] / cheapest, 1)
    return costs


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    result = {
        "machine": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "frames_per_candidate": FRAMES,
        "sizes": {f"{height}x{width}": measure(height, width) for height, width in SIZES},
    }
    for size, rewards in result["sizes"].items():
        for name, row in rewards.items():
            print(f"{size:>8}  {name:22} {row['ms_per_candidate']:8.2f} ms", end="")
            print(f"  {row['times_cheapest']:5.1f} x the cheapest", end="")
            print(f"  {row['peak_mb_per_candidate']:7.1f} MB")
    path = ROOT / "benchmarks" / "results" / "rewards_cpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
