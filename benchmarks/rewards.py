"""What the training-free rewards cost on this CPU: milliseconds per candidate of 12 frames.

Run ``python benchmarks/rewards.py`` in the repository; it prints a table and writes it as JSON to
``benchmarks/results/rewards_cpu.json``. One thread, processor time, best of three: other programs
on the machine disturb that least. It measures cost only, not whether a reward is right.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from stream_t1_core.rewards.base import Clips, Reward  # noqa: E402
from stream_t1_core.rewards.drift import ColourDrift  # noqa: E402
from stream_t1_core.rewards.flicker import Flicker  # noqa: E402
from stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency  # noqa: E402
from stream_t1_core.rewards.sharpness import Sharpness  # noqa: E402

REWARDS = (Flicker(), Sharpness(), ColourDrift(), MotionAmount(), TemporalConsistency())
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


def measure(height: int, width: int) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(CANDIDATES, FRAMES, height, width, 3, generator=generator)
    clips = Clips(frames, frames, "noise", 16.0)
    spent = {reward.name: milliseconds_per_candidate(reward, clips) for reward in REWARDS}
    cheapest = min(spent.values())
    return {
        name: {"ms_per_candidate": round(ms, 2), "times_cheapest": round(ms / cheapest, 1)}
        for name, ms in spent.items()
    }


def main() -> None:
    torch.set_num_threads(1)
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
        for name, cost in rewards.items():
            print(f"{size:>8}  {name:22} {cost['ms_per_candidate']:8.2f} ms", end="")
            print(f"  {cost['times_cheapest']:5.1f} x the cheapest")
    path = ROOT / "benchmarks" / "results" / "rewards_cpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
