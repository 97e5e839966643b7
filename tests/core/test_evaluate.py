"""Scoring a finished video: whole and by chunk, what cannot be scored, the table, the picture."""

import json
import math

import pytest
import torch
from torch import Tensor

from stream_t1_core.curve import PANEL, WIDTH, draw_curves
from stream_t1_core.drawing import axis_ticks
from stream_t1_core.evaluate import Evaluation, Marks, chunk_lengths, evaluate
from stream_t1_core.rewards.base import Clips, Needs
from stream_t1_core.rewards.drift import ColourDrift
from stream_t1_core.rewards.mix import RewardMix

VIDEO = torch.linspace(0, 1, 33).view(33, 1, 1, 1).expand(33, 16, 16, 3)  # brighter by the frame


def brightness(clips: Clips) -> Tensor:
    return clips.frames.mean(dim=(1, 2, 3, 4))


def length(clips: Clips) -> Tensor:
    return torch.full((len(clips.frames),), float(clips.frames.shape[1]))


def afraid_of_chunks(clips: Clips) -> Tensor:
    if clips.frames.shape[1] == 12:
        raise RuntimeError("twelve frames")
    return brightness(clips)


class Reader:
    name = "reader"
    needs = Needs(prompt=True)

    def __call__(self, clips: Clips) -> Tensor:
        return torch.tensor([float(len(clips.prompt))])


class Sampler:
    """Looks at 2 frames a second, at least 4, and says how many it got."""

    name = "sampler"
    needs = Needs(fps=2.0)
    __call__ = staticmethod(length)


MIX = RewardMix(((1.0, brightness), (0.5, length)))


def test_the_whole_video_and_each_chunk_are_scored() -> None:
    found = evaluate(VIDEO, MIX)
    assert found.lengths == (9, 12, 12) and found.starts == [0, 9, 21]
    bright, long = found.marks
    assert bright.video == pytest.approx(0.5)
    assert bright.chunks == pytest.approx((4 / 32, 14.5 / 32, 26.5 / 32))
    assert (long.weight, long.video, long.chunks) == (0.5, 33, (9, 12, 12))
    assert found.total.chunks == pytest.approx((4 / 32 + 4.5, 14.5 / 32 + 6, 26.5 / 32 + 6))


@pytest.mark.parametrize(
    ("total", "lengths"), [(33, [9, 12, 12]), (34, [9, 12, 12, 1]), (9, [9]), (5, [5]), (1, [1])]
)
def test_a_video_is_cut_where_the_sampler_put_it_together(total: int, lengths: list[int]) -> None:
    assert chunk_lengths(total, chunk_frames=12, first_frames=9) == lengths


def test_every_chunk_is_held_against_the_videos_first() -> None:
    (drift,) = evaluate(VIDEO, ColourDrift()).marks
    assert 0 > drift.chunks[0] > drift.chunks[1] > drift.chunks[2]


def test_a_reward_that_fails_is_told_and_costs_no_other_its_score() -> None:
    found = evaluate(VIDEO, RewardMix(((1.0, afraid_of_chunks), (1.0, length))))
    afraid, other = found.marks
    assert afraid.error == "chunk 2: RuntimeError: twelve frames"
    assert afraid.video == pytest.approx(0.5) and math.isnan(afraid.chunks[1])
    assert other.error is None and other.chunks == (9, 12, 12)
    assert math.isfinite(found.total.video) and math.isnan(found.total.chunks[1])
    assert "- afraid_of_chunks: chunk 2: RuntimeError: twelve frames" in found.table()


def test_a_last_chunk_too_short_for_a_video_reward_is_a_gap() -> None:
    found = evaluate(torch.rand(34, 16, 16, 3), Sampler())
    (mark,) = found.marks
    assert mark.video == 4 and mark.chunks[:3] == (4, 4, 4) and math.isnan(mark.chunks[3])
    assert mark.error.startswith("chunk 4: ValueError: a clip of 1 frame")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_holds_finite_numbers_or_null(bad: float) -> None:
    def odd(clips: Clips) -> Tensor:
        return torch.full((1,), bad)

    text = evaluate(VIDEO, RewardMix(((1.0, odd), (2.0, length))), prompt='a "red" fox').to_json()
    record = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert record["prompt"] == 'a "red" fox' and record["frames"] == 33 and record["fps"] == 16
    assert record["chunks"] == [
        {"start": 0, "frames": 9},
        {"start": 9, "frames": 12},
        {"start": 21, "frames": 12},
    ]
    nothing, lengths = record["rewards"]
    assert nothing["video"] is None and nothing["chunks"] == [None] * 3
    assert nothing["error"] == "the whole video: not a finite number"
    assert lengths == {
        "name": "length",
        "weight": 2.0,
        "video": 33.0,
        "chunks": [9.0, 12.0, 12.0],
        "error": None,
    }
    assert record["total"] == {"video": None, "chunks": [None] * 3}


def test_the_table_has_a_column_for_each_reward_and_a_row_for_each_part() -> None:
    assert evaluate(VIDEO, MIX).table().splitlines() == [
        "|         | frames | brightness | length | total |",
        "| ------- | -----: | ---------: | -----: | ----: |",
        "| weight  |        |          1 |    0.5 |       |",
        "| video   |   0-32 |        0.5 |     33 |    17 |",
        "| chunk 1 |    0-8 |      0.125 |      9 | 4.625 |",
        "| chunk 2 |   9-20 |     0.4531 |     12 | 6.453 |",
        "| chunk 3 |  21-32 |     0.8281 |     12 | 6.828 |",
    ]


def test_progress_is_told_and_may_stop_the_work() -> None:
    told = []
    evaluate(VIDEO, length, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(VIDEO, length, progress=stop)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frames": torch.rand(9, 16, 16, 4)}, r"shape \[9, 16, 16, 4\]"),
        ({"frames": torch.rand(0, 16, 16, 3)}, "at least one frame"),
        ({"fps": 0.0}, "frame rate 0.0"),
        ({"fps": math.nan}, "frame rate nan"),
        ({"chunk_frames": 0}, "chunks of 9, then 0"),
        ({"first_frames": 0}, "chunks of 0, then 12"),
        ({"reward": Reader()}, "'reader' reads the prompt"),
        ({"reward": Reader(), "prompt": "  "}, "'reader' reads the prompt"),
    ],
)
def test_what_cannot_be_scored_is_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(**{"frames": VIDEO, "reward": length, **changed})


def drawn(*chunks: float, video: float = 1.0) -> Tensor:
    return draw_curves(Evaluation("", 16.0, (9,) * len(chunks), (Marks("x", 1.0, video, chunks),)))


def inked(picture: Tensor) -> Tensor:
    """Where the first panel's colour is: [H, W]."""
    return ((picture[0] * 255).round() == torch.tensor([31, 119, 180])).all(dim=-1)


def test_the_picture_has_a_panel_for_each_reward_and_the_total() -> None:
    one, three = draw_curves(evaluate(VIDEO, length)), draw_curves(evaluate(VIDEO, MIX))
    assert one.shape[2] == three.shape[2] == WIDTH
    assert three.shape[1] - one.shape[1] == 2 * PANEL
    assert 0 <= three.min() < three.max() == 1
    assert three.equal(draw_curves(evaluate(VIDEO, MIX)))


def test_a_rising_score_rises_and_a_missing_one_is_a_gap() -> None:
    rising = inked(drawn(1.0, 2.0, 3.0, 4.0))[30:]
    left, right = rising[:, 145:150], rising[:, 540:545]
    assert left.nonzero()[:, 0].float().mean() > right.nonzero()[:, 0].float().mean() + 20
    assert rising[:, 200:500].any(dim=0).all()
    gap = inked(drawn(1.0, math.nan, 3.0, 4.0))[30:]
    assert not gap[:, 160:380].any() and gap[:, 430:530].any(dim=0).all()


def test_no_score_at_all_is_a_picture_too() -> None:
    assert drawn(math.nan, math.nan, video=math.nan).shape == drawn(1.0, 2.0).shape


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.25, 0.5, 0.75, 1]),
        (-0.61, -0.18, [-0.8, -0.6, -0.4, -0.2, 0]),
        (395.1, 411.2, [395, 400, 405, 410, 415]),
        (0.0, 0.0, [-1, -0.5, 0, 0.5, 1]),
        (5.0, 5.0, [4.6, 4.8, 5, 5.2, 5.4]),
    ],
)
def test_axis_numbers_are_round_and_enclose_the_scores(
    low: float, high: float, ticks: list[float]
) -> None:
    found = axis_ticks(low, high)
    assert found == pytest.approx(ticks)
    assert found[0] <= low and high <= found[-1]
