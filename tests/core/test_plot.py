"""The picture of a run: its size, what stands where, and that text stays text."""

from __future__ import annotations

import json
import math

import pytest
import torch
from told import candidate, chunk, line_of, report, searched
from torch import Tensor

from stream_t1_core.beam_tree import (
    GOLD,
    HEADING,
    KEPT,
    MOST_ROWS,
    PATH,
    RED,
    ROOMY,
    STRIPS,
    brief,
    ordinal,
    rows_of,
    winner,
)
from stream_t1_core.events import PrunedEarly
from stream_t1_core.plot import (
    LEFT,
    LEGEND,
    LINE,
    MARGIN,
    MOST_WIDTH,
    RIGHT,
    draw_report,
    draw_run,
)
from stream_t1_core.run_record import read_report

MOST_PIXELS = 1280 * 7000


def where(picture: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """Pixels of a colour: [H, W]."""
    return ((picture[0] * 255).round() == torch.tensor(colour)).all(dim=-1)


def cell(picture: Tensor, columns: int, column: int, row: int, header: int = 4) -> Tensor:
    """What is drawn of one roomy candidate in the only band: [1, h, w, 3]."""
    pitch = (picture.shape[2] - LEFT - RIGHT) / columns
    x = round(LEFT + (column + 0.5) * pitch)
    y = round(MARGIN + header * LINE + MARGIN / 2 + HEADING + (row + 0.5) * ROOMY.row)
    half = int(min(pitch - ROOMY.gap, 150) / 2)
    return picture[:, y - ROOMY.cell // 2 : y + ROOMY.cell // 2 + 1, x - half : x + half + 1]


FOUR = report(
    chunk(0, candidate(3.0, 0), candidate(2.0, 1), candidate(1.0), candidate(0.5)),
    chunk(
        1,
        candidate(4.0, 1, parent=0),
        candidate(None, parent=0, failure="latent not finite"),
        candidate(5.0, 0, parent=1),
        candidate(3.5, parent=1),
    ),
    best=1,
)


def test_the_final_path_is_bordered_and_starred() -> None:
    picture = draw_report(FOUR)
    on_path = {
        (column, row): where(cell(picture, 2, column, row), PATH).sum() > 400
        for column in range(2)
        for row in range(4)
    }
    assert [place for place, found in on_path.items() if found] == [(0, 0), (1, 0)]
    stars = where(picture, GOLD)[: -LEGEND - MARGIN].any(dim=0)  # columns of pixels
    runs = (stars[1:] & ~stars[:-1]).sum()
    assert runs == 2


def test_kept_pruned_and_failed_look_different() -> None:
    picture = draw_report(FOUR)
    kept = [where(cell(picture, 2, 1, row), KEPT).sum().item() for row in range(4)]
    failed = [where(cell(picture, 2, 1, row), RED).sum().item() for row in range(4)]
    assert kept[0] > 3000 and kept[2] > 3000 and kept[1] == kept[3] == 0
    assert failed[1] > 50 and failed[0] == failed[2] == failed[3] == 0
    inked = [(cell(picture, 2, 0, row) < 0.3).all(dim=-1).sum() for row in (1, 2)]
    assert inked[0] > 200 and inked[1] == 0  # pruned: nothing dark


def test_one_report_one_picture() -> None:
    picture = draw_report(FOUR)
    assert picture.dtype == torch.float32 and picture.ndim == 4
    assert 0 <= picture.min() < picture.max() == 1
    assert picture.equal(draw_report(FOUR))
    assert not picture.equal(draw_report(FOUR.replace('"best_beam": 1', '"best_beam": 0')))


@pytest.mark.parametrize(
    ("chunks", "width", "branches"), [(1, 1, 1), (7, 2, 2), (20, 2, 2), (120, 4, 4)]
)
def test_the_picture_is_never_large(chunks: int, width: int, branches: int) -> None:
    _, height, wide, _ = draw_report(searched(chunks, width, branches)).shape
    assert 900 <= wide <= MOST_WIDTH
    assert height < 1000 if chunks <= 7 else height < 3500


def test_an_endless_run_shows_its_last_chunks() -> None:
    *_, height, wide, _ = draw_report(searched(400, 4, 4)).shape
    assert height * wide < MOST_PIXELS


def test_of_very_many_candidates_all_kept_ones_are_shown() -> None:
    run = read_report(searched(2, 30, 30))
    for index, record in enumerate(run.chunks):
        rows = rows_of(record)
        assert len(rows) == MOST_ROWS and set(record.survivors) < set(rows)
        best = sorted(range(900), key=lambda i: -record.candidates[i].fused)[:MOST_ROWS]
        assert set(rows) == set(best), index
    assert draw_report(searched(2, 30, 30)).shape[2] <= MOST_WIDTH


def test_those_pruned_early_are_small_cells_below_with_a_line_that_says_so() -> None:
    early = (PrunedEarly(1, 45, 0.52), PrunedEarly(0, 46, None))
    text = report(
        chunk(0, candidate(3.0, 0), candidate(2.0, 1)),
        chunk(1, candidate(4.0, 0), candidate(3.5, 1), pruned_early=early),
    )
    plain = line_of(text, 3, pruned_early=[])
    rows = 2 * ROOMY.early + LINE
    assert draw_report(text).shape[1] == draw_report(plain).shape[1] + rows
    started = json.loads(text.splitlines()[0])["settings"] | {"search": {"early": {"step": 2}}}
    run = read_report(line_of(text, 1, settings=started))
    assert [c.score for c in run.chunks[1].pruned_early] == [0.52, None] and run.early_step == 2
    told, untold = draw_run(run), draw_report(text)
    assert told.shape == untold.shape and not torch.equal(told, untold)


@pytest.mark.parametrize("looks", [10, 400])
def test_many_pruned_early_stay_within_the_picture(looks: int) -> None:
    early = tuple(PrunedEarly(0, i, float(i)) for i in range(100))
    chunks = (chunk(i, candidate(3.0, 0), pruned_early=early) for i in range(looks))
    assert draw_report(report(*chunks))[0, ..., 0].numel() <= MOST_PIXELS


def test_without_scores_there_are_no_curves() -> None:
    plain = chunk(0, candidate(0.0, 0, short=None, long=None))
    without, scored = draw_report(report(plain)), draw_report(report(chunk(0, candidate(rank=0))))
    assert without.shape[1] < scored.shape[1] - 300


def test_a_run_stopped_before_its_first_chunk_is_a_picture_too() -> None:
    picture = draw_report(report(best=None, stopped="out of memory"))
    assert picture.shape[1] < 300


@pytest.mark.parametrize(
    "text",
    [
        "</script><img src=x onerror=alert(1)>",
        "two\nlines\r\n\x00\x1b[31m\u2028\u202e",
        "\ud800 \U0010ffff \u0338" * 50,
        "W" * 100_000,
        "   ",
    ],
)
def test_any_text_is_only_drawn(text: str) -> None:
    failing = chunk(
        0,
        candidate(rank=0),
        candidate(None, failure=text),
        left_out={text: text},
    )
    picture = draw_report(report(failing, prompt=text, best=None, stopped=text))
    calm = draw_report(report(failing, prompt="x", best=None, stopped="x"))
    assert picture.shape == calm.shape
    assert (picture[:, :, -8:] == 1).all()  # nothing runs over the edge


@pytest.mark.parametrize("score", [0.0, -1.0, 5e-324, 1e-300, -9e18, 9e18])
def test_any_score_has_a_place(score: float) -> None:
    draw_report(report(chunk(0, candidate(score, 0)), chunk(1, candidate(0.0, 0))))


def test_many_failures_are_counted() -> None:
    lost = [candidate(None, failure="latent not finite") for _ in range(3)]
    few, many = (
        draw_report(report(*(chunk(i, candidate(rank=0), *lost) for i in range(n)))) for n in (2, 7)
    )
    assert many.shape[1] - few.shape[1] == 2 * LINE  # eight lines instead of six


def test_the_winner_leads_by_its_distance_to_the_next() -> None:
    first, second = read_report(FOUR).chunks
    assert winner(first) == (0, 1.0) and winner(second) == (2, 1.0)
    (alone,) = read_report(report(chunk(0, candidate(rank=0)))).chunks
    assert winner(alone) == (0, None)


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (None, "-"),
        (31.149, "31.1"),
        (0.0, "0"),
        (-0.01234, "-.0123"),
        (0.5, ".5"),
        (-123.4, "-123"),
        (123456.0, "1.2e5"),
        (-0.00001234, "-1e-5"),
        (9.99e17, "1e+18"),
    ],
)
def test_numbers_fit_small_cells(score: float | None, text: str) -> None:
    assert brief(score) == text


def test_places_are_words() -> None:
    assert [ordinal(rank) for rank in (0, 1, 2, 3, 10, 20, 111)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "21st",
        "112th",
    ]


def test_the_strips_below_the_tree_are_told_in_the_margin() -> None:
    picture = draw_report(FOUR)
    top = MARGIN + 4 * LINE + MARGIN // 2 + HEADING + 4 * ROOMY.row
    margin = picture[0, top : top + len(STRIPS) * ROOMY.strip, :LEFT]
    written = (margin < 0.7).any(dim=-1).any(dim=1).view(len(STRIPS), -1).any(dim=1)
    assert written.all() and math.prod(margin.shape) > 0


def test_new_prompts_and_choices_by_hand_have_lines_of_their_own() -> None:
    plain = [chunk(n, candidate(2.0, 0), candidate(1.0)) for n in range(7)]
    told = [
        chunk(n, candidate(2.0, 0), candidate(1.0), prompt=f"prompt {n}", chosen="artist")
        for n in range(7)
    ]
    more = draw_report(report(*told)).shape[1] - draw_report(report(*plain)).shape[1]
    assert more == 6 * LINE  # four prompts, how many more, and one line of choices
