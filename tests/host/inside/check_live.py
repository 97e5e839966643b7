"""What a browser may watch stays within bounds: bytes per chunk, runs remembered."""

import io

import pytest
import torch
from boot import Pack
from PIL import Image


@pytest.mark.parametrize("candidates", [1, 4, 16])
def check_a_chunks_filmstrips_stay_within_64_kilobytes(pack: Pack, candidates: int) -> None:
    """Noise is the hardest picture for JPEG."""
    strips = pack.module("nodes.host.filmstrips").filmstrips(
        [torch.rand(12, 120, 208, 3) for _ in range(candidates)]
    )
    assert sum(len(strip.jpeg) for strip in strips) <= 64 * 1024
    for strip in strips:
        width, height = Image.open(io.BytesIO(strip.jpeg)).size
        assert width % strip.pictures == 0 and width // strip.pictures <= 96
        assert width // strip.pictures / height == pytest.approx(208 / 120, rel=0.05)


def check_frames_that_are_missing_or_not_finite_do_no_harm(pack: Pack) -> None:
    make = pack.module("nodes.host.filmstrips").filmstrips
    missing, broken = make([None, torch.full((9, 32, 32, 3), float("nan"))])
    assert missing is None and broken.pictures == 6
    assert make([]) == []


def check_the_oldest_runs_are_forgotten(pack: Pack) -> None:
    live, report = pack.module("nodes.host.live"), pack.module("stream_t1_core.report").Report
    runs = live.LiveRuns()
    ids = [runs.start("1", None, report()).id for _ in range(live.MOST_RUNS + 5)]
    assert [run.id for run in runs] == ids[5:]
    strip = pack.module("nodes.host.filmstrips").Filmstrip(bytes(live.MOST_BYTES // 2 + 1), 1)
    for run in list(runs)[-2:]:
        run.strips[0] = [strip]
    newest = runs.start("1", None, report())
    assert [run.id for run in runs] == [ids[-1], newest.id]


def check_a_refusal_names_the_latest_runs_and_how_many_more(pack: Pack) -> None:
    live, report = pack.module("nodes.host.live"), pack.module("stream_t1_core.report").Report
    runs = live.LiveRuns()
    assert runs.named() == "none"
    ids = [runs.start("1", None, report()).id for _ in range(live.MOST_NAMED + 2)]
    latest = ", ".join(f"{i} (running)" for i in ids[2:])
    assert runs.named() == f"2 more, {latest}"
    assert runs.named(lambda run: run.id == ids[0]) == f"{ids[0]} (running)"


def check_a_long_run_forgets_its_oldest_filmstrips(pack: Pack, monkeypatch) -> None:
    live, report = pack.module("nodes.host.live"), pack.module("stream_t1_core.report").Report
    made = pack.module("stream_t1_core.events").CandidatesMade
    monkeypatch.setattr(live, "MOST_BYTES", 20_000)
    run = live.LiveRun("1", None, report())
    for chunk in range(12):
        run(made(chunk, (torch.rand(12, 64, 64, 3),), (), ()))
    assert run.strip_bytes <= 20_000 and max(run.strips) == 11 and 0 not in run.strips
