"""Does the Refiner help? The tiny model, plain streaming, with and without it, and the oracle.

Same captions and seeds for all, 81 frames each, the quickstart's rewards: CLIP score as the short
reward, the mix of four as the long one, standardised. The oracle of ``training/`` sees pixels only
and knows no reward. Beside plain streaming and each method with one and two passes stand a lower
strength, and what the same denoiser calls buy otherwise: two candidates a chunk, no refining.

Run ``python -m benchmarks.refine``; it prints a table and writes all to
``benchmarks/results/refine.json``.
Intervals are 95 % bootstrap intervals over captions; those of differences are paired. Seconds are
processor time of one thread. ``mean gain`` is what all passes added to a chunk's fused score, in
standard deviations of its run. Says nothing of other models.
"""

import argparse
import functools
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import Refine, Search, StreamConfig
from stream_t1_core.generate import generate
from stream_t1_core.report import Report
from stream_t1_core.rewards.clip import ClipScore
from stream_t1_core.rewards.drift import ColourDrift
from stream_t1_core.rewards.flicker import Flicker
from stream_t1_core.rewards.mix import RewardMix
from stream_t1_core.rewards.motion import MotionAmount, TemporalConsistency
from stream_t1_core.scoring import Critic
from stream_t1_core.tiny import load_tiny
from stream_t1_core.tools import Tools
from stream_t1_core.wan_vae import StreamingDecoder
from training import oracle
from training.clips import evaluation_seed
from training.measure import LATENT_HW, NAMED, SHORT_FRAMES, evaluation_pair

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "refine.json"
PLAIN = "plain streaming"
ONE, TWO = Search(1, 1, standardise=True), Search(1, 2, standardise=True)
RUNS: dict[str, tuple[Search, Refine | None]] = {
    PLAIN: (ONE, None),
    **{
        f"{method}, {passes} pass{'es' * (passes > 1)}": (ONE, Refine(method, passes))
        for method in ("iterative", "ensemble", "extended")
        for passes in (1, 2)
    },
    "iterative, 2 passes, strength 0.1": (ONE, Refine("iterative", 2, strength=0.1)),
    "two candidates, no refining": (TWO, None),
}
RESAMPLES = 10_000
Row = dict[str, float]


def one(job: tuple[str, int]) -> Row:
    """A run of one caption: what the oracle saw, and what refining did."""
    (search, refine), index = RUNS[job[0]], job[1]
    tiny, short = _models()
    scene, prompt = evaluation_pair(index)
    model = CausalWan(tiny.backbone)
    mix = RewardMix(
        (
            (1.0, TemporalConsistency()),
            (1.0, Flicker()),
            (0.5, MotionAmount(2.0)),
            (1.0, ColourDrift()),
        )
    )
    critic = Critic(StreamingDecoder(tiny.vae), short, mix, prompt)
    tools = Tools(model, model.encode_text(tiny.encode_prompt(prompt)), critic)
    config = StreamConfig(
        latent_frames=SHORT_FRAMES, seed=evaluation_seed(index), search=search, refine=refine
    )
    report, start = Report(), time.process_time()
    with torch.inference_mode():
        video = generate(tools, config, LATENT_HW, report)
    seconds = time.process_time() - start
    verdict = oracle.judge(oracle.track(video.frames), scene)
    chunks = [record for record in report.records if record["event"] == "chunk_done"]
    told = [c for chunk in chunks for c in chunk["candidates"] if c["refined"]]
    return {
        "everything": float(verdict.all_right),
        **{name: float(getattr(verdict, name)) for name in NAMED},
        "flicker (grey levels)": verdict.flicker,
        "whole video's long reward": report.records[-1]["final_scores"][0],
        "seconds": seconds,
        "calls": float(config.denoiser_calls),
        **(
            {
                "mean gain": statistics.fmean(c["refined"]["fused"] - c["fused"] for c in told),
                "passes accepted": sum(c["refined"]["accepted"] for c in told)
                / sum(c["refined"]["passes"] for c in told),
            }
            if told
            else {}
        ),
    }


@functools.cache
def _models() -> tuple[object, ClipScore]:
    return load_tiny(ROOT / "tiny_model"), ClipScore.from_folder(ROOT / "tiny_model" / "clip_tiny")


def interval(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Mean, and between which values it lies in 95 % of resamples."""
    rng = random.Random(0)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return {"mean": round(statistics.fmean(values), 4), "95 %": [round(low, 4), round(high, 4)]}


def summary(rows: Sequence[Row], plain: Sequence[Row]) -> dict[str, dict]:
    """Every number by itself, and where plain streaming has it too, less that one's."""
    shared = [name for name in rows[0] if name in plain[0] and name not in ("seconds", "calls")]
    return {
        **{name: interval([row[name] for row in rows]) for name in rows[0]},
        "less plain streaming": {
            name: interval([a[name] - b[name] for a, b in zip(rows, plain, strict=True)])
            for name in shared
        },
    }


def written(rows: Mapping[tuple[str, int], Row], captions: int) -> dict[str, dict]:
    """The table of all runs, also written to the result's file."""
    by_run = {name: [rows[name, i] for i in range(captions)] for name in RUNS}
    table = {name: summary(found, by_run[PLAIN]) for name, found in by_run.items()}
    result = {
        "captions": captions,
        "latent_frames": SHORT_FRAMES,
        "torch": torch.__version__,
        "refiners": {name: refine and asdict(refine) for name, (_, refine) in RUNS.items()},
        "runs": table,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return table


def show(table: Mapping[str, dict]) -> None:
    heads = ("everything", 11), ("less plain", 24), ("gain", 8), ("accepted", 10), ("s", 7)
    print(" " * 36 + "".join(f"{head:>{width}}" for head, width in (*heads, ("calls", 7))))
    for name, row in table.items():
        less = row["less plain streaming"]["everything"]
        low, high = less["95 %"]
        gain, accepted = (
            row.get(key, {}).get("mean", 0) for key in ("mean gain", "passes accepted")
        )
        print(
            f"{name:36}{row['everything']['mean']:11.3f}"
            f"{less['mean']:+9.3f} [{low:+.3f} {high:+.3f}]{gain:8.3f}{accepted:10.2f}"
            f"{row['seconds']['mean']:7.1f}{row['calls']['mean']:7.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=32)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    jobs = [(name, index) for index in range(options.captions) for name in RUNS]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, spawn, torch.set_num_threads, (1,)) as pool:
        rows = dict(zip(jobs, pool.map(one, jobs), strict=True))
    show(written(rows, options.captions))


if __name__ == "__main__":
    main()
