"""Prompts over time: what the text may say, where its errors are, and which chunk a second is."""

import logging

import pytest
import torch

from stream_t1_core.config import StreamConfig
from stream_t1_core.cues import Cue, TimedPrompt, chunk_at, schedule, start_of
from stream_t1_core.timeline import Segment, clock, parse

GOOD = {
    "[0:00-0:08] red [0:08-] blue": [(0, "red"), (8, "blue")],
    "[0:00-0:08]red[0:08-0:12]blue": [(0, "red"), (8, "blue")],
    "[0] red [8] blue [9.5s] green": [(0, "red"), (8, "blue"), (9.5, "green")],
    "[0-] red [8-] blue": [(0, "red"), (8, "blue")],
    "[0s-8s] red [0:08.0-] blue": [(0, "red"), (8, "blue")],
    "  \n[ 0:00 – 1:00.125 ]\nred,\na circle\n[60.125—] blue\n": [
        (0, "red,\na circle"),
        (60.125, "blue"),
    ],
    "[0:00-59:59] red [59:59-1:02:30] blue [1:02:30-] green": [
        (0, "red"),
        (3599, "blue"),
        (3750, "green"),
    ],
    "[0:00] red [90:00] blue": [(0, "red"), (5400, "blue")],
    "a red circle": [(0, "a red circle")],
    " a (red:1.2) [circle|square], [blue:0.5] {x} <y> ": [
        (0, "a (red:1.2) [circle|square], [blue:0.5] {x} <y>")
    ],
    "[(1girl:1.2)|cat] in [style v2]": [(0, "[(1girl:1.2)|cat] in [style v2]")],
    "at 0:08 it stops - 8 times (8-9)": [(0, "at 0:08 it stops - 8 times (8-9)")],
    r"a \[0:08-0:10\] sign, \[3d] and \\ and \(x\)": [
        (0, r"a [0:08-0:10] sign, [3d] and \\ and \(x\)")
    ],
    r"[0:00] a [red] ]] [[ circle [a] [v2] 3\] [a": [(0, "a [red] ]] [[ circle [a] [v2] 3] [a")],
    "[0:00] 赤い円 [0:08-] 🔴": [(0, "赤い円"), (8, "🔴")],
}

BAD = [  # text, line, column, what the message holds
    ("", 1, 1, "'' has no prompt"),
    (" \n\t", 1, 1, "has no prompt"),
    ("[0:08-", 1, 1, "'[0:08-' is no time; write [START-END]"),
    ("[0:08 - ", 1, 1, "'[0:08 - ' is no time"),
    ("[8-", 1, 1, "'[8-' is no time"),
    ("[0:8x-]", 1, 1, "'[0:8x-]' is no time"),
    ("[-0:08]", 1, 1, "'[-0:08]' is no time"),
    ("[0:8-] red", 1, 1, "'[0:8-]' is no time"),
    ("[0:60-] red", 1, 1, "'[0:60-]' is no time"),
    ("[1:60:00-] red", 1, 1, "'[1:60:00-]' is no time"),
    ("[0,5-] red", 1, 1, "'[0,5-]' is no time"),
    ("[0:00--0:08] red", 1, 1, "'[0:00--0:08]' is no time"),
    ("[0:00-0:08-] red", 1, 1, "'[0:00-0:08-]' is no time"),
    ("[0:00 0:08] red", 1, 1, "'[0:00 0:08]' is no time"),
    ("[0:08s] red", 1, 1, "'[0:08s]' is no time"),
    ("[.5-] red", 1, 1, "'[.5-]' is no time"),
    ("[:08-] red", 1, 1, "'[:08-]' is no time"),
    ("[at 0:08] red", 1, 1, "'[at 0:08]' is no time"),
    ("[O:08-] red", 1, 1, "'[O:08-]' is no time"),
    ("[] red", 1, 1, "'[]' is no time"),
    ("[0] red [ - ] blue", 1, 9, "'[ - ]' is no time"),
    ("[~8-] red", 1, 1, "'[~8-]' is no time"),
    ("[0] red [#8] blue", 1, 9, "'[#8]' is no time"),
    ("[0] red [l2-] blue", 1, 9, "'[l2-]' is no time"),
    ("[9999999-] red", 1, 1, "'[9999999-]' is no time"),
    ("[٠:٠٨-] red", 1, 1, "is no time"),
    ("【0:00-】 red", 1, 1, "is no time"),
    ("[0:00\n-0:08] red", 1, 1, "'[0:00' is no time"),
    ("a nice [3d render]", 1, 8, r"'[3d render]' is no time"),
    ("[0:00-0:08] red 0:08-] blue", 1, 17, "'0:08-]' is no time"),
    ("[0:00-0:08] red 8-] blue", 1, 17, "'8-]' is no time"),
    ("[0] red 8] blue", 1, 9, "'8]' is no time"),
    ("[0:00-0:08 red [0:08-] blue", 1, 1, "'[0:00-0:08 red ' is no time"),
    ("[0:00-0:08] red\n  [0:8-] blue", 2, 3, "'[0:8-]' is no time"),
    ("[0:00-0:08] red\r\n[0:8-] blue", 2, 1, "'[0:8-]' is no time"),
    ("[0:00] 🔴\n🔴[0:8]", 2, 2, "'[0:8]' is no time"),
    ("[[0:00-] red", 1, 1, "'[' stands before the first time"),
    ("\n a red [0:00-] circle", 2, 2, "'a red ' stands before the first time"),
    ("[0:08-] red", 1, 1, "'[0:08-]' is the first segment, which must start at 0:00"),
    ("[0:00-0:00] red", 1, 1, "'[0:00-0:00]' must end after its start, 0:00"),
    ("[0-8] red [8-7] blue", 1, 11, "'[8-7]' must end after its start, 0:08"),
    ("[0-] red [8] blue [8-] green", 1, 19, "'[8-]' must start after 0:08, where the segment"),
    ("[0-] red\n[8] blue\n[5] green", 3, 1, "'[5]' must start after 0:08"),
    ("[0-8] red [9-] blue", 1, 11, "'[9-]' must start at 0:08, where the segment before it ends"),
    ("[0-8] red [7-] blue", 1, 11, "'[7-]' must start at 0:08"),
    ("[0-8] [8-] blue", 1, 1, "'[0-8]' has no prompt"),
    ("[0-8] red\n [8-] \n", 2, 2, "'[8-]' has no prompt"),
]


@pytest.mark.parametrize(("text", "segments"), GOOD.items())
def test_a_timeline_reads_as_written(text: str, segments: list[tuple[float, str]]) -> None:
    assert parse(text) == tuple(Segment(seconds, prompt) for seconds, prompt in segments)


@pytest.mark.parametrize(("text", "line", "column", "says"), BAD, ids=lambda value: repr(value))
def test_a_malformed_timeline_is_an_error_with_its_place(
    text: str, line: int, column: int, says: str
) -> None:
    with pytest.raises(ValueError) as error:
        parse(text)
    told = str(error.value)
    assert told.startswith(f"Prompt Timeline: line {line}, column {column}: ")
    assert says in told


@pytest.mark.parametrize(
    "text",
    [
        "[0:00-0:08] red [0:08-0:12.5] blue [0:12.5-] green",
        "[0] red [8] blue [12.5s] green",
        "[0-8] red [8-12s] blue [12-] green",
    ],
)
def test_every_cut_or_doubled_timeline_is_whole_or_an_error(text: str) -> None:
    """A slip of one key never turns two prompts into one."""
    brackets = [i for i, char in enumerate(text) if char in "[]0123456789:.-"]
    for i in brackets:
        for slip in (text[:i] + text[i + 1 :], text[:i] + text[i] + text[i:]):
            try:
                assert len(parse(slip)) == 3, slip
            except ValueError as error:
                assert str(error).startswith("Prompt Timeline: line 1, column ")


@pytest.mark.parametrize(
    "piece",
    ["[", "]", "[0", "[0:", "[0:00", "[ ", "[-", "0", "0:00", "0-", "\\[", "\\", "[[0:00-]", "\0",
     "0 ", "٠", ":", "[0:00-]a", "[a:", "\ud800", "\u202e[", "［"],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("lead", ["", "[0:00] "], ids=repr)
def test_hostile_text_neither_hangs_nor_crashes(lead: str, piece: str) -> None:
    """100 kB: what is not linear takes minutes."""
    text = lead + piece * (100_000 // len(piece))
    try:
        parse(text)
    except ValueError as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0:00"), (8, "0:08"), (8.5, "0:08.5"), (59.9996, "1:00"), (3750.25, "1:02:30.25")],
)
def test_clock_writes_what_parse_reads(seconds: float, written: str) -> None:
    assert clock(seconds) == written
    assert parse(f"[0] red [{written}] blue")[-1].seconds == round(seconds, 3) if seconds else True


@pytest.mark.parametrize(
    ("seconds", "chunk"),
    [
        (0, 0),
        (0.28, 0),  # chunk 1 begins at pixel frame 4 * 3 - 3 = 9: 0.5625 s
        (0.28125, 0),  # halfway: the earlier one
        (0.29, 1),
        (0.5625, 1),
        (0.9, 1),
        (0.95, 2),  # chunk 2: frame 21, 1.3125 s
        (1000, 1334),  # it begins at 1000.31 s,
    ],
)
def test_a_second_is_at_the_chunk_that_starts_nearest(seconds: float, chunk: int) -> None:
    assert chunk_at(seconds, StreamConfig()) == chunk


@pytest.mark.parametrize("given", [0, 1, 2, 20])
@pytest.mark.parametrize("frames_per_chunk", [1, 3])
def test_the_start_of_every_chunk_is_that_chunk(given: int, frames_per_chunk: int) -> None:
    config = StreamConfig(latent_frames=60, given_frames=given, frames_per_chunk=frames_per_chunk)
    for chunk in range(config.chunks):
        assert chunk_at(start_of(chunk, config), config) == chunk
    assert start_of(0, config) == (max(0, 4 * given - 3)) / 16
    assert chunk_at(0, config) == 0


CONFIG = StreamConfig(latent_frames=30)  # chunks begin at 0, 0.5625, 1.3125, 2.0625 ...


def prompt(seconds: float, *rows: float, fade: float = 0.0, words: str = "") -> TimedPrompt:
    """``rows`` of a text encoder of width 2, all numbers of a row the same."""
    tensor = torch.tensor(rows or (1.0,))[None, :, None].expand(1, -1, 2)  # (1, L, 2)
    return TimedPrompt(seconds, tensor, words, fade, keep_sinks=seconds > 0)


def table(cues: list[Cue]) -> list[tuple[int, list[float]]]:
    return [(cue.first_chunk, cue.rows[0, :, 0].tolist()) for cue in cues]


def test_prompts_begin_at_their_chunks_in_order_of_time() -> None:
    cues = schedule([prompt(2, 5.0, words="blue"), prompt(0, 4.0, words="red")], CONFIG)
    assert table(cues) == [(0, [4.0]), (3, [5.0])]
    assert [cue.prompt for cue in cues] == ["red", "blue"]
    assert [cue.keep_sinks for cue in cues] == [False, True]


def test_a_fade_runs_to_the_new_prompt_over_the_chunks_in_its_time() -> None:
    new = prompt(1.3, 8.0, words="blue", fade=3.0)
    cues = schedule([prompt(0, 4.0, 2.0, words="red"), new], CONFIG)
    rows = [(2, [5.0, 1.5]), (3, [6.0, 1.0]), (4, [7.0, 0.5]), (5, [8.0])]
    assert table(cues) == [(0, [4.0, 2.0]), *rows]
    assert cues[-1].rows is new.rows
    assert {cue.prompt for cue in cues[1:]} == {"blue"}
    assert all(cue.keep_sinks for cue in cues[1:])


@pytest.mark.parametrize("fade", [0.0, 0.1, 0.74])
def test_a_fade_shorter_than_a_chunk_is_a_hard_switch(fade: float) -> None:
    for seconds in (0.5625, 1.2, 2.0):
        cues = schedule([prompt(0), prompt(seconds, 5.0, fade=fade)], CONFIG)
        assert len(cues) == 2


def test_a_fade_of_the_first_prompt_has_nothing_to_fade_from() -> None:
    assert table(schedule([prompt(0, 4.0, fade=5.0)], CONFIG)) == [(0, [4.0])]


def test_a_fade_keeps_only_rows_that_hold_something() -> None:
    """Hosts pad to 512 rows of 4096; a long fade would hold megabytes per chunk."""
    padded = [prompt(0, 4.0, 2.0, *510 * [0.0]), prompt(2, 8.0, *511 * [0.0], fade=2.0)]
    assert [cue.rows.shape[1] for cue in schedule(padded, CONFIG)] == [512, 2, 2, 512]
    empty = [prompt(0, *8 * [0.0]), prompt(2, *8 * [0.0], fade=2.0)]
    assert table(schedule(empty, CONFIG))[1] == (3, [0.0])


def test_a_fade_that_outlasts_the_video_ends_with_it() -> None:
    cues = schedule([prompt(0, 0.0), prompt(5.8, 1.0, fade=1e9)], CONFIG)
    assert [cue.first_chunk for cue in cues] == [0, 8, 9]


def test_prompts_beyond_the_end_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cues = schedule([prompt(0), prompt(8), prompt(8.1)], CONFIG)
    assert table(cues) == [(0, [1.0])]
    assert "prompts from 0:08 on are not used; the last chunk begins at 0:06.562" in caplog.text


def test_prompts_for_given_footage_have_passed() -> None:
    """Footage of 20 latent frames is 77 pixel frames, 4.8 s; the run begins after it."""
    config = StreamConfig(latent_frames=50, given_frames=20)
    given = [prompt(0, 1.0), prompt(3, 2.0), prompt(5, 3.0), prompt(6.4, 4.0)]
    assert table(schedule(given, config)) == [(0, [3.0]), (2, [4.0])]


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ([prompt(3), prompt(8)], "no prompt at second 0, the first begins at 0:03; add one"),
        (
            [prompt(0), prompt(2), prompt(2.1)],
            "prompts at 0:02 and 0:02.1 both begin with chunk 4, at 0:02.06.*at least 0.75 s apart",
        ),
        ([prompt(0), prompt(0.1)], "prompts at 0:00 and 0:00.1 both begin with chunk 1"),
        (
            [prompt(0), prompt(2, fade=3), prompt(3)],
            "at 0:02 fades in over 3 s, but the next one begins at 0:03; make the fade shorter",
        ),
    ],
)
def test_prompts_that_do_not_fit_are_errors(prompts: list[TimedPrompt], says: str) -> None:
    with pytest.raises(ValueError, match=f"^Prompt Timeline: .*{says}"):
        schedule(prompts, CONFIG)


def test_two_prompts_at_the_same_second_are_an_error_in_given_footage_too() -> None:
    with pytest.raises(ValueError, match="both begin with chunk 1"):
        schedule([prompt(0), prompt(0)], StreamConfig(latent_frames=50, given_frames=20))


@pytest.mark.parametrize("number", [-1.0, float("nan"), float("inf")])
def test_seconds_and_fades_are_numbers_from_zero(number: float) -> None:
    for seconds, fade in ((number, 0.0), (0.0, number)):
        with pytest.raises(ValueError, match="both must be 0 or more"):
            prompt(seconds, fade=fade)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0:00-0:01 a red circle\n0:01- a blue one", "line 1, column 1"),
        ("(0:00-0:01) a (0:01-) b", "line 1, column 2"),
        ("a red circle\n  0:08 - a blue one", "line 2, column 3"),
    ],
)
def test_times_without_brackets_are_no_silent_single_prompt(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=f"Prompt Timeline: {place}.*without brackets"):
        parse(text)


@pytest.mark.parametrize("text", ["16:9 film", "a clock at 4:30", "4:30 in the morning - rain"])
def test_clocks_in_a_prompt_are_text(text: str) -> None:
    assert parse(text)[0].prompt == text
