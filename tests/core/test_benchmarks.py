"""What benchmarks make of the rows they measured: means, intervals, pages and pictures."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import compare, measured, page, rows, systems
from benchmarks.measured import Difference, Mean, differences, interval, means
from benchmarks.noise_again import Inherited
from stream_t1_core import noise
from stream_t1_core.events import CandidateReport, ChunkDone

ROW = {
    "ms per frame": 40.0,
    "denoiser calls": 35,
    "oracle pass rate": 1.0,
    "shape right": 1.0,
    "PSNR (dB)": 30.0,
    "broken": 0.0,
    "frozen": 0.0,
    "short reward": 80.0,
    "long reward": 0.4,
    "second 1: right": 1.0,
    "second 1: shape": 1.0,
    "second 2: right": 0.0,
    "second 2: shape": 1.0,
}
SETTINGS = {"clips": 2, "first_clip": 1000, "latent_frames": 21, "settings": {"noise": None}}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rows and results go instead."""
    monkeypatch.setattr(rows, "KEPT", tmp_path)
    for module in (measured, page, rows):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def test_figures_are_as_many_as_the_interval_allows() -> None:
    assert str(Mean(35.0, 35.0, 35.0)) == "35"
    assert str(Mean(28.0319, 26.8407, 29.1)) == "28.0 (26.8 to 29.1)"
    assert str(Mean(1470.4, 1310.2, 1602.8)) == "1470 (1310 to 1603)"
    assert str(Mean(-0.0072, -0.015, -0.000381)) == "-0.007 (-0.015 to -0.0004)"


def test_differences_clear_of_zero_are_bold() -> None:
    assert Difference(1.0, 0.4, 1.8).clear and not Difference(0.1, -0.1, 0.3).clear
    found = differences([{"a": 3.0}, {"a": 5.0}], [{"a": 1.0}, {"a": 3.0}])
    assert str(found["a"]) == "**2**"


def test_an_interval_holds_its_mean_and_is_the_same_each_time() -> None:
    found = interval([1.0, 2.0, 3.0, 10.0])
    assert found.low < found.mean == 4.0 < found.high
    assert found == interval([1.0, 2.0, 3.0, 10.0])


def test_a_page_says_what_was_run_and_what_its_columns_mean(results: Path) -> None:
    worse = {**ROW, "PSNR (dB)": 28.0, "frozen": 1.0}
    ways = {"ours": [ROW, ROW], "theirs": [worse, {**worse, "PSNR (dB)": 27.0}]}
    result = {
        **SETTINGS,
        "means": {"way": {name: means(of) for name, of in ways.items()}},
        "differences": {"less theirs": {"ours": differences(*ways.values())}},
    }
    page.publish("toy", "What is it for?\n\nRun ``this``.\n", result)
    words = (results / "toy.md").read_text(encoding="utf-8")
    assert words.startswith(
        "# What is it for?\n\nRun `this`.\n\n2 clips of 81 frames; captions and"
    )
    assert "seeds 1000 to 1001" in words and "noise: off" in words and "torch" in words
    assert "0 of 4 videos have a pixel" in words and "2 of 4 videos hardly change" in words
    assert "(theirs: 2)" in words and "With 2 clips intervals come out too narrow" in words
    assert "| way | PSNR (dB) ↑ |" in words and "| ours | **2.5 (2.0 to 3.0)** |" in words
    assert "Left out: shape right, the same as oracle pass rate" in words
    assert "| shape" not in words and "| broken" not in words and "second 1" not in words
    assert "- PSNR (dB): against the nearest clip" in words
    told = json.loads((results / "toy.json").read_text(encoding="utf-8"))
    assert told["differences"]["less theirs"]["ours"]["PSNR (dB)"]["low"] == 2.0


def test_a_few_clips_make_no_verdict(results: Path) -> None:
    told = {"means": {"all clips": {"it": means([ROW] * page.FEW)}}, "remarks": ["A beats B"]}
    for clips, said in ((page.FEW, True), (page.FEW - 1, False)):
        page.publish("toy", "What?", {**SETTINGS, "clips": clips, **told})
        assert ("- A beats B." in (results / "toy.md").read_text(encoding="utf-8")) == said


def test_one_row_with_many_columns_goes_downwards(results: Path) -> None:
    row = {**ROW, "SSIM": 0.9, "gain": 0.5}
    page.publish("toy", "What?", {**SETTINGS, "means": {"all clips": {"it": means([row, row])}}})
    words = (results / "toy.md").read_text(encoding="utf-8")
    assert "|  | all clips |" in words and "| PSNR (dB) ↑ | 30 |" in words
    assert "bold" not in words


def test_a_verdict_knows_which_way_is_better() -> None:
    row = {
        "PSNR (dB)": Difference(1.0, 0.5, 1.5),
        "SSIM": Difference(0.1, -0.1, 0.3),
        "flicker (grey levels)": Difference(-0.2, -0.3, -0.1),
        "ms per frame": Difference(10.0, 9.0, 11.0),
        "candidates apart (%)": Difference(1.0, 0.5, 1.5),
    }
    assert page.verdict("A less B", row) == (
        "A less B: better in PSNR (dB) and flicker (grey levels); worse in ms per frame; "
        "not clear of 0 in SSIM"
    )


def test_rows_are_told_apart_where_they_are_clear_of_zero() -> None:
    clear, lower, unclear = (
        Difference(1.0, 0.5, 1.5),
        Difference(-1.0, -2.0, -0.5),
        Difference(1, -1, 2),
    )
    found = {
        "a": {"SSIM": clear},
        "b": {"SSIM": lower},
        "c": {"SSIM": unclear},
        "d": {"SSIM": clear},
    }
    said = page.told_apart("less x", found, "SSIM")
    assert said == "SSIM, less x: better by a and d; worse by b"
    said = page.told_apart("less x", {"c": {"SSIM": unclear}}, "SSIM")
    assert said == "SSIM, less x: nothing is clear of 0"
    flicker = {"a": {"flicker (grey levels)": clear}}
    assert page.told_apart("less x", flicker, "flicker (grey levels)").endswith("worse by a")


def test_noise_is_handed_down_by_rank() -> None:
    """Two beams of four branches each: the first has its parent's noise, the others a mix."""

    def report(rank: int | None) -> CandidateReport:
        values = dict.fromkeys(("short", "long", "fused", "route"))
        return CandidateReport(0, 0, parts={}, standard=None, rank=rank, failure=None, **values)

    inherited = Inherited(beta=0.6)
    shape = (16, 3, 4, 4)
    tried = [inherited.draw(seed, 4, shape) for seed in range(8)]
    kept = {5: 0, 2: 1}  # the sixth candidate is the best, the third the second best
    reports = tuple(report(kept.get(i)) for i in range(8))
    inherited.told(ChunkDone(0, reports, (), {}, 0))
    again = [inherited.draw(seed, 4, shape) for seed in range(10, 18)]
    assert torch.equal(again[0], tried[5]) and torch.equal(again[4], tried[2])
    assert torch.allclose(again[6], 0.6 * tried[2] + 0.8 * noise.draw(16, 4, shape))


def test_systems_make_their_page_of_rows_that_are_done(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last row is cut off, as a benchmark that was killed leaves it, and is not needed."""
    pytest.importorskip("matplotlib", reason="only benchmarks draw with it")
    lines = []
    for clip in range(1000, 1000 + page.FEW):
        for place, (name, system) in enumerate(systems.SYSTEMS.items()):
            row = {**ROW, "PSNR (dB)": 30.0 + place + clip / 1000}
            if system.search:
                row["candidates apart (%)"] = 0.3
            lines.append(json.dumps([name, clip, row]) + "\n")
    kept = results / f"systems_long-{rows.digest()}.jsonl"
    kept.write_text("".join(lines) + '["plain stre', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["systems", "--long", "--clips", f"{page.FEW}"])
    systems.main()
    words = (results / "systems_long.md").read_text(encoding="utf-8")
    assert f"{page.FEW} clips of 481 frames" in words
    assert "- Stream-T1 less best of 7 videos: better in PSNR (dB);" in words
    assert "| less plain streaming |" in words and "| Stream-T1 less |" in words
    assert (results / "systems_long.png").stat().st_size > 10_000


def test_published_rows_are_added_to(results: Path) -> None:
    """Without ``--add`` all are made anew, for other code may have made them."""
    first, second, third = ("ours", 1000), ("ours", 1001), ("theirs", 1000)
    kept = {first: {"PSNR (dB)": 20}, second: {"PSNR (dB)": 21}, third: {"SSIM": 0.5}}
    lines = [json.dumps([*job, row]) + "\n" for job, row in kept.items()]
    (results / f"toy-{rows.digest()}.jsonl").write_text("".join(lines), encoding="utf-8")
    before = {first: rows.Made({"PSNR (dB)": 30.123456789}, "earlier", "another machine")}
    rows.publish_rows("toy", before, results)
    added = rows.made_rows("toy", dict, [*kept], add=True, folder=results)
    assert added[first] == rows.Made({"PSNR (dB)": 30.1235}, "earlier", "another machine")
    assert added[second].row == kept[second] and added[second].code == rows.digest()
    published = rows.read_published("toy", results)
    assert published == added and [*published] == [first, second, third]
    anew = rows.made_rows("toy", dict, [*kept], add=False, folder=results)
    assert anew[first].row == kept[first] and rows.read_published("toy", results) == anew


def test_a_page_says_which_rows_other_code_or_machines_made(results: Path) -> None:
    made_by = {"one machine, code abc": 3, "another, code def": 1}
    said = page.opening("What?", {**page.machine(), **SETTINGS, "rows_made_by": made_by})
    assert "3 rows on one machine, code abc; 1 rows on another, code def" in said


def test_a_try_of_fewer_captions_does_not_replace_what_is_published(results: Path) -> None:
    (results / "toy.json").write_text('{"clips": 64}', encoding="utf-8")
    assert measured.folder_for("toy", 64) == results
    assert measured.folder_for("toy", 63) == measured.TRIED != results
    assert measured.folder_for("another", 1) == results


@pytest.mark.parametrize("text", ["0", "-3", "x", "1.5"])
def test_impossible_numbers_of_captions_are_refused(
    text: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        compare.command_line("What?", clips=4).parse_args([f"--clips={text}"])
    assert f"'{text}': give 1 or more" in capsys.readouterr().err
