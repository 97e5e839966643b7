"""Draw the tree of a search: a band of chunks as columns, their candidates as rows.

A cell says by number, word and shape, not by colour alone, what became of a candidate; lines lead
from parents to children; below each column stand the winner and what the chunk cost. Chunks and
candidates count from 0 here and from 1 in every text, as in the browser. It knows a ``RunRecord``
and where on the picture to draw; ``plot.py`` puts bands together.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from .drawing import FAINT, GROUND, INK, Colour, Pen
from .run_record import ChunkRecord, GivenUp, RunRecord, Tried

PATH, KEPT, PALE, RED = (204, 134, 0), (228, 237, 249), (125, 125, 125), (190, 30, 40)
LINK, GOLD = (120, 120, 120), (255, 196, 0)
ROUTE_GROUNDS = {
    "drop": (235, 235, 235),
    "blend": (214, 230, 250),
    "append": (212, 240, 214),
    "sink": (250, 238, 200),
}
STRIPS = ("winner", "ahead by", "memory route", "sinks in use", "seconds", "K/V in MB")
HEADING = 22  # pixels for the chunks' numbers above the cells
MOST_ROWS = 64


@dataclass(frozen=True)
class Look:
    """Sizes in pixels."""

    column: int  # least distance from one column to the next
    gap: int  # between a cell and the next column's, for the lines
    cell: int
    row: int
    strip: int  # height of a line below the cells
    text: int
    small: int
    early: int  # of a row of those pruned early, below the others
    roomy: bool  # cells have three lines, not one

    def height(self, rows: int, early: int) -> int:
        """Of a band."""
        return self.below(rows, early) + len(STRIPS) * self.strip

    def below(self, rows: int, early: int) -> int:
        """From a band's top to the strips below its cells."""
        return HEADING + rows * self.row + early * self.early


ROOMY = Look(column=140, gap=40, cell=52, row=60, strip=18, text=15, small=11, early=18, roomy=True)
COMPACT = Look(
    column=52, gap=12, cell=15, row=18, strip=14, text=10, small=10, early=14, roomy=False
)


@dataclass(frozen=True)
class Band:
    """Some chunks of a run, and the place they are drawn at."""

    run: RunRecord
    path: list[int]
    chunks: range
    left: float
    top: float
    pitch: float  # from one column to the next
    look: Look

    def centre(self, chunk: int) -> float:
        return self.left + (chunk - self.chunks.start + 0.5) * self.pitch

    def half(self) -> float:
        """Half a cell's width."""
        return min(self.pitch - self.look.gap, 150) / 2

    def middle(self, row: int) -> float:
        return self.top + HEADING + (row + 0.5) * self.look.row

    @cached_property
    def rows(self) -> int:
        return max(len(rows_of(self.run.chunks[chunk])) for chunk in self.chunks)

    @cached_property
    def early(self) -> int:
        """Rows of those pruned early."""
        return max(len(early_of(self.run.chunks[chunk])) for chunk in self.chunks)

    def middle_early(self, row: int) -> float:
        return self.top + self.look.below(self.rows, 0) + (row + 0.5) * self.look.early

    def on_path(self, chunk: int, candidate: int) -> bool:
        return chunk < len(self.path) and self.path[chunk] == candidate


def rows_of(chunk: ChunkRecord) -> dict[int, int]:
    """Candidate -> row. Of very many, all that were kept and the best of the others."""
    order = range(len(chunk.candidates))
    if len(order) > MOST_ROWS:
        order = sorted(order, key=lambda i: _merit(chunk.candidates[i]))[:MOST_ROWS]
    return {candidate: row for row, candidate in enumerate(sorted(order))}


def early_of(chunk: ChunkRecord) -> tuple[GivenUp, ...]:
    """Those pruned early that are shown."""
    return chunk.pruned_early[:MOST_ROWS]


def draw_band(pen: Pen, band: Band) -> None:
    below = band.top + band.look.below(band.rows, band.early)
    _labels(pen, band, below)
    for chunk in band.chunks:
        pen.text(
            (band.centre(chunk), band.top + HEADING / 2 - 2),
            f"chunk {chunk + 1}" if band.look.roomy else str(chunk + 1),
            "mm",
            size=band.look.text - 2 if band.look.roomy else band.look.text,
            bold=True,
        )
        _links(pen, band, chunk)
    for chunk in band.chunks:
        for candidate, row in rows_of(band.run.chunks[chunk]).items():
            _cell(pen, band, chunk, candidate, row)
        for row, candidate in enumerate(early_of(band.run.chunks[chunk])):
            _early_cell(pen, band, chunk, candidate, row)
        _strips(pen, band, chunk, below)


def draw_cell(
    pen: Pen, box: tuple[float, float, float, float], candidate: Tried, star: bool, look: Look
) -> None:
    """A candidate: its score and fate, in ``box`` (left, top, right, bottom)."""
    left, top, right, bottom = box
    kept = candidate.rank is not None
    ink = RED if candidate.failure else INK if kept else PALE
    outline, width = (PATH, 3 if look.roomy else 2) if star else (ink if kept else FAINT, 1)
    pen.draw.rectangle(box, fill=KEPT if kept else GROUND, outline=outline, width=width)
    line = top + 13 if look.roomy else (top + bottom) / 2
    mark = (right - (16 if look.roomy else 7), line)
    if kept:
        _badge(pen, mark, candidate.rank, look)
    elif candidate.failure:
        pen.text(mark, "!", "mm", RED, look.text + 1, bold=True)
    else:
        _cross(pen, mark, 4 if look.roomy else 3)
    if star:
        draw_star(pen, (left, top if look.roomy else line), 9 if look.roomy else 6)
    at = left + (12 if look.roomy else 7)
    if look.roomy:
        score = "no score" if candidate.score is None else f"{candidate.score:.4g}"
        score = "failed" if candidate.failure else score
        pen.text((at, line), score, "lm", ink, look.text, bold=kept)
        for i, (name, part) in enumerate((("short", candidate.short), ("long", candidate.long))):
            if part is not None:
                below = line + 16 + 13 * i
                pen.text((at, below), name, "lm", ink, look.small)
                pen.text((at + 36, below), f"{part:.4g}", "lm", ink, look.small)
    else:
        score = "fail" if candidate.failure else brief(candidate.score)
        pen.text((at, line), score, "lm", ink, look.text, bold=kept)


def draw_star(pen: Pen, at: tuple[float, float], radius: float) -> None:
    points = [
        (
            at[0] + reach * math.sin(i * math.pi / 5),
            at[1] - reach * math.cos(i * math.pi / 5),
        )
        for i, reach in enumerate((radius, 0.45 * radius) * 5)
    ]
    pen.draw.polygon(points, fill=GOLD, outline=INK)


def draw_route(pen: Pen, at: tuple[float, float], route: str | None, size: int, word: bool) -> None:
    """A route's letter on its ground; ``word`` adds the whole word."""
    if route is None:
        pen.text(at, "-", "mm", PALE, size)
        return
    text = f"{route[0].upper()}  {route}" if word else route[0].upper()
    half = pen.font(size).getlength(text) / 2 + 5
    box = [(at[0] - half, at[1] - size / 2 - 1), (at[0] + half, at[1] + size / 2 + 1)]
    pen.draw.rectangle(box, fill=ROUTE_GROUNDS[route])
    pen.text(at, text, "mm", INK, size, bold=True)


def winner(chunk: ChunkRecord) -> tuple[int | None, float | None]:
    """The best survivor, and by how much its score leads the next one's; None for neither."""
    if not chunk.survivors:
        return None, None
    best = chunk.survivors[0]
    others = [c.score for i, c in enumerate(chunk.candidates) if i != best and c.score is not None]
    score = chunk.candidates[best].score
    return best, score - max(others) if others and score is not None else None


def brief(score: float | None) -> str:
    """A number in five characters, six with a minus; no more digits than say something."""
    if score is None:
        return "-"
    for digits in (3, 2, 1):
        text = f"{score:.{digits}g}".replace("e+0", "e").replace("e-0", "e-")
        text = text.replace("0.", ".", 1) if abs(score) < 1 else text
        if len(text.lstrip("-")) <= 5:
            break
    return text


def _merit(candidate: Tried) -> tuple[bool, float, float]:
    """Sorts survivors first, then the others, best first."""
    score = -math.inf if candidate.score is None else candidate.score
    return candidate.rank is None, candidate.rank or 0, -score


def _labels(pen: Pen, band: Band, below: float) -> None:
    at = band.left - (8 if band.look.roomy else 2)
    aligned = all(len(band.run.chunks[chunk].candidates) <= MOST_ROWS for chunk in band.chunks)
    for row in range(band.rows if aligned else 0):
        name = f"candidate {row + 1}" if band.look.roomy else str(row + 1)
        pen.text((at - 6, band.middle(row)), name, "rm", PALE, max(band.look.small, 10))
    heading = "chunk" if not band.look.roomy else ""
    pen.text((at - 6, band.top + HEADING / 2 - 2), heading, "rm", PALE, band.look.small)
    if band.early:
        middle = (band.middle_early(0) + band.middle_early(band.early - 1)) / 2
        pen.text((at - 6, middle), "pruned early", "rm", PALE, band.look.small)
    for i, name in enumerate(STRIPS):
        pen.text((at - 6, below + (i + 0.5) * band.look.strip), name, "rm", PALE, 11)


def _links(pen: Pen, band: Band, chunk: int) -> None:
    """From the chunk before to this one, each parent in a lane of its own; the path on top."""
    if chunk == 0:
        return
    before, now = band.run.chunks[chunk - 1], band.run.chunks[chunk]
    above, rows = rows_of(before), rows_of(now)
    end = band.centre(chunk) - band.half()
    start = end - band.pitch + 2 * band.half()
    if chunk == band.chunks.start:
        start = band.left - 4  # from the band above: short of the rows' names
    lane = (end - start) / (len(before.survivors) + 1)

    def line(parent: int, there: float, colour: Colour, width: int) -> None:
        x, y = round(start + (parent + 1) * lane), band.middle(above[before.survivors[parent]])
        pen.draw.line([(start, y), (x, y), (x, there), (end, there)], fill=colour, width=width)

    for row, candidate in enumerate(early_of(now)):
        line(candidate.parent, band.middle_early(row), FAINT, 1)

    def weight(candidate: int) -> tuple[bool, bool]:
        return band.on_path(chunk, candidate), now.candidates[candidate].rank is not None

    for candidate in sorted(rows, key=weight):
        rank = now.candidates[candidate].parent
        chosen = band.on_path(chunk, candidate)
        chosen = chosen and band.on_path(chunk - 1, before.survivors[rank])
        kept = now.candidates[candidate].rank is not None
        colour = PATH if chosen else LINK if kept else FAINT
        width = (3 if band.look.roomy else 2) if chosen else 1
        line(rank, band.middle(rows[candidate]), colour, width)


def _cell(pen: Pen, band: Band, chunk: int, candidate: int, row: int) -> None:
    x, y, half = band.centre(chunk), band.middle(row), band.half()
    box = (x - half, y - band.look.cell / 2, x + half, y + band.look.cell / 2)
    found = band.run.chunks[chunk].candidates[candidate]
    draw_cell(pen, box, found, band.on_path(chunk, candidate), band.look)


def _early_cell(pen: Pen, band: Band, chunk: int, candidate: GivenUp, row: int) -> None:
    """One that was pruned before it was done: small, faded, with its estimated score."""
    x, y, half = band.centre(chunk), band.middle_early(row), band.half()
    high = band.look.early / 2 - 1
    pen.draw.rectangle((x - half, y - high, x + half, y + high), fill=GROUND, outline=FAINT)
    score, step = brief(candidate.score), band.run.early_step
    told = f"after step {step}: {score}" if band.look.roomy and step else score
    pen.text((x, y), told, "mm", PALE, band.look.small)


def _strips(pen: Pen, band: Band, chunk: int, top: float) -> None:
    record = band.run.chunks[chunk]
    best, lead = winner(record)
    route, sinks = None, "-"
    if chunk < len(band.path):
        chosen = record.candidates[band.path[chunk]]
        route = "sink" if chunk < band.run.first_sinks else chosen.route
        sinks = str(record.sinks[chosen.rank])
    name = "-"
    if best is not None:
        name = f"candidate {best + 1}" if band.look.roomy else str(best + 1)
    ahead, seconds, megabytes = (
        f"{value:.3g}" if band.look.roomy and value is not None else brief(value)
        for value in (lead, record.seconds, record.kv_bytes / 1e6)
    )
    texts = (name, ahead, None, sinks, seconds, megabytes)
    size = 12 if band.look.roomy else band.look.small
    for i, text in enumerate(texts):
        at = (band.centre(chunk), top + (i + 0.5) * band.look.strip)
        if text is None:
            draw_route(pen, at, route, size, band.look.roomy)
        else:
            pen.text(at, text, "mm", INK, size, bold=i == 0)


def _badge(pen: Pen, at: tuple[float, float], rank: int, look: Look) -> None:
    """Place among the survivors: the winner's in white on dark."""
    place = ordinal(rank) if look.roomy else str(rank + 1)
    half, high = (14, 8) if look.roomy else (5, 5)
    best = rank == 0
    box = (at[0] - half, at[1] - high, at[0] + half, at[1] + high)
    pen.draw.rectangle(box, fill=INK if best else GROUND, outline=INK)
    ink: Colour = GROUND if best else INK
    pen.text((at[0] + 0.5, at[1]), place, "mm", ink, 11 if look.roomy else 9, bold=best)


def _cross(pen: Pen, at: tuple[float, float], reach: int) -> None:
    for way in (-1, 1):
        ends = [(at[0] - reach, at[1] - way * reach), (at[0] + reach, at[1] + way * reach)]
        pen.draw.line(ends, fill=PALE, width=1)


def ordinal(rank: int) -> str:
    """Rank from 0 -> 1st, 2nd, 3rd, 4th."""
    place = rank + 1
    ending = "th" if 10 < place % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
