r"""Prompt timeline: text with times in brackets -> which prompt begins at which second.

    [0:00-0:08] a red circle moving left [0:08-] a red circle moving up

A segment is ``[START-END]``, ``[START-]`` or ``[START]`` and the text up to the next one, new lines
included. Times are M:SS, H:MM:SS or plain seconds (``8``, ``8s``), each with up to three decimals
(``0:08.5``). The first segment starts at 0 and each END is the next START; a segment without END
runs to the next, the last one to the end of the video, whatever its END. Text without any time is
one prompt from 0.

A bracket that no time stands in is plain text: ``[a|b]``, ``(red:1.2)``. One that holds something
like a time must be a time, else it is an error with line and column; ``\[ \]`` are brackets that
are only text. Knows nothing of chunks, text encoders or tensors.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

CLOCK = (
    r"(?:[0-9]{1,3}:[0-5][0-9]|[0-9]{1,3}):[0-5][0-9](?:\.[0-9]{1,3})?"  # 1:02:30.5, 0:08
    r"|[0-9]{1,6}(?:\.[0-9]{1,3})?s?"  # 8.5, 8s
)
GAP = r"[ \t]{0,8}"
# a line that begins as a segment would, but for the brackets
BARE_TIME = re.compile(
    r"^[^\S\n]*\(?(?P<time>\d{1,3}:\d\d(?:\.\d+)?[^\S\n]*[-\u2013\u2014])", re.MULTILINE
)
TIME = re.compile(rf"\[{GAP}({CLOCK}){GAP}(?:[-–—]{GAP}({CLOCK})?{GAP})?\]")
# Repetitions are bounded, or cannot meet again what they have passed: hostile text stays linear.
SUSPECT = re.compile(
    r"\\\[[^\[\]\n]*"  # escaped: what follows is text, too
    r"|(?P<opened>[\[［【](?:[^\w\[\]［【(){}<>]*[\d\]]"
    r"|[^\[\]\n]{0,20}(?::\d\d|\d[-–—][\d.]{0,8}s?\])))"
    r"|\[[^\[\]\n]*\]"  # a pair of brackets around other text
    r"|(?P<closed>(?:\d{1,3}:\d\d[^\[\]\n\\]{0,20}"  # the opening bracket is missing
    r"|\d[\d.,]{0,11}s?\s?(?:[-–—]\s?[\d:.,]{0,12}s?\s?)?)\])"
)
PIECE = re.compile(r".[^\[\]\n]{0,40}\]?")


@dataclass(frozen=True)
class Segment:
    """A prompt, and the second of the video that it begins at."""

    seconds: float
    prompt: str


@dataclass(frozen=True)
class _Mark:
    """A time in brackets; ``at`` and ``after`` are its place in the text."""

    start: float
    end: float | None
    at: int
    after: int


def parse(text: str) -> tuple[Segment, ...]:
    """Segments in order, the first at 0. A ``ValueError`` tells line and column, both from 1."""
    marks = list(_marks(text))
    if not marks and (bare := BARE_TIME.search(text)):
        at = bare.start("time")
        raise _error(text, at, bare["time"], "is a time without brackets; write [0:00-0:08] ...")
    marks = marks or [_Mark(0.0, None, 0, 0)]
    leading = text[: marks[0].at]
    if leading.strip():
        at = len(leading) - len(leading.lstrip())
        raise _error(text, at, _piece(text, at), "stands before the first time; start with [0:00-]")
    _check_order(text, marks)
    stops = [mark.at for mark in marks[1:]] + [len(text)]
    return tuple(
        Segment(mark.start, _prompt(text, mark, stop))
        for mark, stop in zip(marks, stops, strict=True)
    )


def clock(seconds: float) -> str:
    """Seconds as a timeline writes them: 0:08, 0:08.5, 1:02:30."""
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{rest:06.3f}".rstrip("0").rstrip(".")
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _marks(text: str) -> Iterator[_Mark]:
    position = 0
    while suspect := SUSPECT.search(text, position):
        position = suspect.end()
        if suspect["opened"]:
            time = TIME.match(text, suspect.start())
            if not time:
                raise _not_a_time(text, suspect.start(), _piece(text, suspect.start()))
            position = time.end()
            end = _seconds(time[2]) if time[2] else None
            yield _Mark(_seconds(time[1]), end, time.start(), time.end())
        elif suspect["closed"]:
            raise _not_a_time(text, suspect.start(), suspect["closed"])


def _check_order(text: str, marks: list[_Mark]) -> None:
    if marks[0].start > 0:
        raise _wrong(text, marks[0], "is the first segment, which must start at 0:00")
    for i, mark in enumerate(marks):
        if mark.end is not None and mark.end <= mark.start:
            raise _wrong(text, mark, f"must end after its start, {clock(mark.start)}")
        if i == 0:
            continue
        before = marks[i - 1]
        if mark.start <= before.start:
            says = f"must start after {clock(before.start)}, where the segment before it starts"
            raise _wrong(text, mark, says)
        if before.end is not None and mark.start != before.end:
            says = f"must start at {clock(before.end)}, where the segment before it ends"
            raise _wrong(text, mark, says + "; no gaps, no overlaps")


def _prompt(text: str, mark: _Mark, stop: int) -> str:
    prompt = re.sub(r"\\([\[\]])", r"\1", text[mark.after : stop]).strip()
    if not prompt:
        raise _wrong(text, mark, "has no prompt; write what is to be seen")
    return prompt


def _seconds(time: str) -> float:
    parts = reversed(time.rstrip("s").split(":"))
    return round(sum(float(part) * 60**i for i, part in enumerate(parts)), 3)


def _piece(text: str, at: int) -> str:
    return PIECE.match(text, at)[0]


def _wrong(text: str, mark: _Mark, says: str) -> ValueError:
    return _error(text, mark.at, text[mark.at : mark.after], says)


def _not_a_time(text: str, at: int, piece: str) -> ValueError:
    says = (
        "is no time; write [START-END], [START-] or [START] with times such as 0:08, 0:08.5, "
        r"1:02:30 or 8 (brackets that are part of the prompt: \[ \])"
    )
    return _error(text, at, piece, says)


def _error(text: str, at: int, piece: str, says: str) -> ValueError:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return ValueError(f"Prompt Timeline: line {line}, column {column}: {piece!r} {says}")
