"""Absolute or relative positions: which of them keeps a long video what it was asked to be?

Run ``python -m benchmarks.positions``; it writes ``benchmarks/results/positions.{json,md}``. The
tiny model streams half a minute, six times as long as the clips it was trained on, with each kind
of positions; the oracle judges every second, told here by fives. It says nothing of other models: a
large one, trained on a minute, has less to gain.
"""

import statistics
from dataclasses import replace

import torch

from stream_t1_core.config import POSITIONS, StreamConfig
from stream_t1_core.generate import generate
from training import oracle
from training.clips import evaluation_seed
from training.measure import LATENT_HW, LONG_FRAMES, SHORT_FRAMES, evaluation_pair

from .columns import SECOND
from .compare import command_line
from .measured import Job, Row, differences, means
from .page import publish
from .rows import rows
from .tiny_runs import FIRST_CLIP, tiny_tools

CONFIG = StreamConfig(latent_frames=LONG_FRAMES, trained_frames=SHORT_FRAMES)
SECONDS = range(1, 31)
TOGETHER = 5  # seconds
JUDGED = {
    "object there": "survives",
    "shape right": "shape",
    "direction right": "motion",
    "flicker (grey levels)": "flicker",
}


def measure(job: Job) -> Row:
    """One clip with one kind of positions, second by second: plain streaming, fixed sink."""
    positions, clip = job
    scene, prompt = evaluation_pair(clip)
    config = replace(CONFIG, seed=evaluation_seed(clip), positions=positions)
    with torch.inference_mode():
        frames = generate(tiny_tools(prompt), config, LATENT_HW).frames
        verdicts = oracle.judge_seconds(oracle.track(frames), scene)
    return {
        f"{SECOND}{second}: {name}": float(getattr(verdict, judged))
        for second, verdict in zip(SECONDS, verdicts, strict=True)
        for name, judged in JUDGED.items()
    }


def part(row: Row, first: int) -> Row:
    """Means over the seconds from ``first`` on that are told together."""
    seconds = range(first, first + TOGETHER)
    return {name: statistics.fmean(row[f"{SECOND}{s}: {name}"] for s in seconds) for name in JUDGED}


def main() -> None:
    options = command_line(__doc__, clips=24, adds=False).parse_args()
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    jobs = [(kind, clip) for clip in clips for kind in POSITIONS]
    found = rows("positions", measure, jobs, options.processes)
    parts = {
        (first, kind): [part(found[kind, clip], first) for clip in clips]
        for first in SECONDS[::TOGETHER]
        for kind in POSITIONS
    }
    names = {first: f"{first} to {first + TOGETHER - 1}" for first in SECONDS[::TOGETHER]}
    result = {
        "clips": options.clips,
        "first_clip": FIRST_CLIP,
        "latent_frames": LONG_FRAMES,
        "means": {
            "seconds": {f"{names[first]}, {kind}": means(of) for (first, kind), of in parts.items()}
        },
        "differences": {
            "relative less absolute, seconds": {
                name: differences(parts[first, "relative"], parts[first, "absolute"])
                for first, name in names.items()
            }
        },
        "by_second": {kind: means([found[kind, clip] for clip in clips]) for kind in POSITIONS},
    }
    publish("positions", __doc__, result)


if __name__ == "__main__":
    main()
