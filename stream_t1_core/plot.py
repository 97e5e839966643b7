"""Draw a run from its report alone: what the browser's panel shows, as one picture.

Header, tree of candidates, costs, scores along the chosen path, what failed, legend. The tree is
broken into bands like a text into lines, with large cells while they fit and small ones beyond; of
an endless run it shows the last chunks, and the curves show all. One report, one picture.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .beam_tree import (
    COMPACT,
    MOST_ROWS,
    PALE,
    ROOMY,
    Band,
    Look,
    draw_band,
    draw_cell,
    draw_route,
    early_of,
    ordinal,
    rows_of,
)
from .drawing import COLOURS, GROUND, Curve, Pen, draw_panel, pixels
from .run_record import RunRecord, Tried, read_report

LEAST_WIDTH, MOST_WIDTH = 900, 1280
LEFT, RIGHT = 112, 16  # beside the columns
MARGIN = 16
WIDEST_COLUMN = 240
ROOMY_HEIGHT, MOST_HEIGHT = 2000, 6000  # of all bands: where cells turn small; where they end
BETWEEN = 18  # bands
PANEL = 118
LINE = 20
LEGEND = 84
MOST_NOTES = 8
MOST_PROMPTS = 4  # told after the first
FINAL = "Star and thick border: the final video"


def draw_report(report: str) -> Tensor:
    """The picture as [1, H, W, 3] in 0..1, W from 900 to 1280.

    Raises ValueError naming the line of a report that cannot be read.
    """
    return draw_run(read_report(report))


def draw_run(run: RunRecord) -> Tensor:
    """The picture of one run as [1, H, W, 3] in 0..1."""
    from PIL import Image, ImageDraw

    plan = _plan(run)
    path = run.path
    curves, notes, header = _curves(run, path), _notes(run), _header(run, plan)
    tree = plan.height + (MARGIN if run.chunks else 0)
    height = MARGIN + LINE * len(header) + tree + PANEL * len(curves)
    height += LINE * len(notes) + LEGEND + 2 * MARGIN
    image = Image.new("RGB", (plan.width, height), GROUND)
    pen = Pen(ImageDraw.Draw(image))
    top = MARGIN
    for i, text in enumerate(header):
        _line(pen, plan, top, text, bold=i == 0)
        top += LINE
    for i, chunks in enumerate(plan.bands):
        at = top + MARGIN / 2 + i * plan.each
        draw_band(pen, Band(run, path, chunks, LEFT, at, plan.pitch, plan.look))
    top += tree
    for curve in curves:
        draw_panel(pen, curve, (LEFT, top, plan.width - RIGHT, top + PANEL))
        top += PANEL
    top += MARGIN
    for text in notes:
        _line(pen, plan, top, text)
        top += LINE
    _legend(pen, top, run)
    return pixels(image)


@dataclass(frozen=True)
class _Plan:
    """How the tree is laid out."""

    look: Look
    bands: tuple[range, ...]
    each: int  # height of a band, and of the gap below
    width: int
    pitch: float

    @property
    def height(self) -> int:
        return len(self.bands) * self.each


def _plan(run: RunRecord) -> _Plan:
    count = len(run.chunks)
    rows = max((len(rows_of(chunk)) for chunk in run.chunks), default=0)
    roomy = _columns(count, ROOMY)
    early = max((len(early_of(chunk)) for chunk in run.chunks), default=0)
    fits = math.ceil(count / roomy) * (ROOMY.height(rows, early) + BETWEEN) <= ROOMY_HEIGHT
    look = ROOMY if fits else COMPACT
    each, high = _columns(count, look), look.height(rows, early) + BETWEEN
    most = max(1, MOST_HEIGHT // high) * each
    first = max(0, count - most)
    starts = range(first, count, each)
    bands = tuple(range(start, min(start + each, count)) for start in starts)
    wide = LEFT + RIGHT + each * WIDEST_COLUMN
    width = min(max(wide, LEAST_WIDTH), MOST_WIDTH)
    return _Plan(look, bands, high, width, (width - LEFT - RIGHT) / each)


def _columns(count: int, look: Look) -> int:
    """Columns of a band: as many as fit, evenly spread over the bands."""
    most = (MOST_WIDTH - LEFT - RIGHT) // look.column
    bands = max(1, math.ceil(count / most))
    return max(1, math.ceil(count / bands))


def _header(run: RunRecord, plan: _Plan) -> list[str]:
    tried = max((len(chunk.candidates) for chunk in run.chunks), default=0)
    seconds = sum(chunk.seconds for chunk in run.chunks)
    beam = "" if run.best_beam is None else f", best beam {run.best_beam + 1}"
    each = f" of {tried} candidate{'s' * (tried != 1)}" if tried else ""
    lines = [
        f"Stream-T1 run, {run.status}: {len(run.chunks)} of {run.planned} "
        f"chunks{each}{beam}, {seconds:.4g} seconds",
        f'prompt "{run.prompt}"' if run.prompt.strip() else "no prompt",
        *_prompts(run),
    ]
    if run.stopped is not None:
        reason = run.stopped.strip().removesuffix(":")
        cancelled = reason == "InterruptProcessingException"  # the host's word for it
        lines.append("stopped: " + ("cancelled" if cancelled else reason or "no reason given"))
    if run.chunks:
        lines += [_why_kept(run), *_why_early(run), *_by_hand(run), _why_chosen(run)]
    if plan.bands and plan.bands[0].start:
        lines.append(
            f"The tree shows the last chunks, from {plan.bands[0].start + 1}; curves show all."
        )
    if tried > MOST_ROWS:
        lines.append(
            f"The tree shows {MOST_ROWS} candidates a chunk: all kept ones, and the best others."
        )
    return lines


def _prompts(run: RunRecord) -> list[str]:
    """Where the prompt changes."""
    changes = [
        f'from chunk {number} "{chunk.prompt}"'
        for number, chunk in enumerate(run.chunks, 1)
        if chunk.prompt is not None
    ]
    more = len(changes) - MOST_PROMPTS
    return changes if more <= 0 else [*changes[:MOST_PROMPTS], f"... and {more} more prompts"]


def _by_hand(run: RunRecord) -> Iterator[str]:
    """Chunks whose survivors the artist chose, or was asked to."""
    for chosen, words in (
        ("artist", "Chosen by hand, whatever the score, in chunk"),
        ("timeout", "The artist was asked and did not answer in time, in chunk"),
    ):
        chunks = [str(n) for n, chunk in enumerate(run.chunks, 1) if chunk.chosen == chosen]
        if chunks:
            yield f"{words} {', '.join(chunks)}."


def _why_kept(run: RunRecord) -> str:
    scored = any(c.score is not None for chunk in run.chunks for c in chunk.candidates)
    if not scored:
        return "No candidate has a score: the run had no rewards, or all of them failed."
    return (
        "Large number: the fused score, a weighted mean of short and long reward. The highest "
        "wins the chunk (1st); the best are kept and continued, the others pruned."
    )


def _why_early(run: RunRecord) -> Iterator[str]:
    if any(chunk.pruned_early for chunk in run.chunks):
        when = f"after step {run.early_step}" if run.early_step else "early"
        yield f"Small cells: pruned {when}, before they were done, by an estimated short score."


def _why_chosen(run: RunRecord) -> str:
    if run.best_beam is None:
        return "Star and thick border: the path that leads so far, to the latest chunk's 1st."
    finals = run.final_scores
    chosen = finals[run.best_beam] if run.best_beam < len(finals) else None
    if chosen is None:
        return f"{FINAL}, the path to the last chunk's {ordinal(run.best_beam)}."
    others = [
        f"{score:.4g}" for i, score in enumerate(finals) if i != run.best_beam and score is not None
    ]
    against = f", against {', '.join(others)}" if others else ""
    return f"{FINAL}, best as a whole: {chosen:.4g}{against}."


def _curves(run: RunRecord, path: list[int]) -> list[Curve]:
    """Scores along the path, and the best of each chunk; those that there are."""
    chosen = [chunk.candidates[i].went_on for chunk, i in zip(run.chunks, path, strict=False)]
    gone = [None] * (len(run.chunks) - len(chosen))
    best = [
        max((c.score for c in chunk.candidates if c.score is not None), default=None)
        for chunk in run.chunks
    ]
    which = "the final video's path" if run.status == "done" else "the leading path"
    series = (
        (f"short reward along {which}", "", [*(c.short for c in chosen), *gone]),
        (f"long reward along {which}", "", [*(c.long for c in chosen), *gone]),
        ("best fused score of each chunk", "short weighs more with every early chunk", best),
    )
    return [
        Curve(heading, colour, [math.nan if s is None else s for s in scores], note)
        for (heading, note, scores), colour in zip(series, COLOURS, strict=False)
        if any(score is not None for score in scores)
    ]


def _notes(run: RunRecord) -> list[str]:
    """What failed, in words."""
    notes = list(_failures(run))
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES - 1 :] = [f"... and {len(notes) - MOST_NOTES + 1} more failures"]
    return notes


def _failures(run: RunRecord) -> Iterator[str]:
    for number, chunk in enumerate(run.chunks):
        for name, reason in chunk.left_out.items():
            yield f"Chunk {number + 1} was scored without {name}: {reason}"
        for i, candidate in enumerate(chunk.candidates):
            if candidate.failure:
                yield f"Chunk {number + 1}, candidate {i + 1} failed: {candidate.failure}"


def _line(pen: Pen, plan: _Plan, top: float, text: str, bold: bool = False) -> None:
    size = 15 if bold else 13
    shown = pen.fitted(text, plan.width - 2 * MARGIN - 4, size)
    pen.text((MARGIN, top + LINE / 2), shown, "lm", size=size, bold=bold)


def _legend(pen: Pen, top: float, run: RunRecord) -> None:
    samples = (
        (Tried(0, None, 0.9, 0.9, None, 0, None), True, "star, thick border: in the final video"),
        (Tried(0, None, 0.8, 0.8, None, 0, None), False, "1st, 2nd: kept, and its place"),
        (Tried(0, None, 0.7, 0.7, None, None, None), False, "faded, cross: pruned"),
        (Tried(0, None, None, None, None, None, "failed"), False, "failed, cannot win"),
    )
    x = MARGIN + 6.0
    for candidate, star, text in samples:
        draw_cell(pen, (x, top + 12, x + 46, top + 28), candidate, star, COMPACT)
        if star and run.status != "done":
            text = text.replace("in the final video", "leading so far")
        pen.text((x + 54, top + 20), text, "lm", PALE, 12)
        x += 54 + pen.font(12).getlength(text) + 24
    pen.text((MARGIN, top + 46), "Memory of a chunk that leaves the window:", "lm", PALE, 12)
    x = MARGIN + 262
    for route, text in (
        ("sink", "a sink from the start"),
        ("drop", "forgotten"),
        ("blend", "mixed into the newest sink"),
        ("append", "a new sink"),
        (None, "not routed"),
    ):
        draw_route(pen, (x, top + 46), route, 11, word=False)
        pen.text((x + 14, top + 46), text, "lm", PALE, 12)
        x += 14 + pen.font(12).getlength(text) + 30
    below = (
        "Memory and sinks are the starred path's. K/V: keys and values kept by all paths "
        "together. Counted from 1; the report's lines count from 0."
    )
    pen.text((MARGIN, top + 68), below, "lm", PALE, 12)
