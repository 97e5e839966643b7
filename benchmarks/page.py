"""A result as JSON, as a page of Markdown that stands on its own, and as a picture.

A page says what was run and what its numbers mean, then shows tables, then the picture. Its heading
and first words are the benchmark's docstring. A result has ``means`` and ``differences``: by
table, row and column. Columns that say nothing are left out and named. Measures nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import COLUMNS, COUNTED, LESS, MORE, PART_OF, SECOND, groups, head, known
from .measured import RESAMPLES, RESULTS, Difference, Mean, machine, markdown, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = Mapping[str, Mapping[str, Mean]]
Result = Mapping[str, Any]
WAYS = ("better", "worse", "not clear of 0")
FEW = 12  # clips, below which percentile intervals hold the truth clearly less often than they say
MOST_ACROSS = 6  # columns; a table of one row and more of them goes downwards


def publish(
    name: str,
    about: str,
    result: Result,
    plot: Callable[[Result], "Figure"] | None = None,
    folder: Path | None = None,
) -> None:
    """Writes ``NAME.{json,md}``, and ``NAME.png`` with what ``plot`` draws, where results lie."""
    folder = folder or RESULTS
    result = {**machine(), **result}
    said = result.get("remarks", ()) if result["clips"] >= FEW else ()  # no verdicts by a few
    remarks = "".join(f"- {remark}.\n" for remark in said)
    parts = [opening(about, result), _brackets(result), remarks, *_tables(result), _legend(result)]
    if plot:
        folder.mkdir(parents=True, exist_ok=True)
        plot(result).savefig(folder / f"{name}.png", dpi=100)
        parts.append(f"![{name}]({name}.png)\n\n{inspect.getdoc(plot)}\n")
    write(name, result, "\n".join(part for part in parts if part), folder)


def opening(about: str, result: Result) -> str:
    """Heading, and what was run on what."""
    clips, first, frames = (result[key] for key in ("clips", "first_clip", "latent_frames"))
    said = [
        f"{clips} clip{'s' * (clips > 1)} of {4 * frames - 3} frames; captions and seeds "
        f"{first} to {first + clips - 1}, which training never saw.",
    ]
    if made_by := result.get("rows_made_by"):  # by other code or another machine than this page
        told = "; ".join(f"{rows} rows on {maker}" for maker, rows in made_by.items())
        said.append(f"Measured: {told} (a hash of all code and weights).")
    else:
        said.append(
            f"Measured on {result['machine']}, {result['cpu_count']} cores, "
            f"Python {result['python']}, torch {result['torch']}."
        )
    if "settings" in result:
        units = "; ".join(f"{unit}: {_said(of)}" for unit, of in result["settings"].items())
        said.append(f"Settings, where a name does not say otherwise: {units}.")
    return f"{headed(about)}\n\n{' '.join(said)}\n"


def headed(about: str) -> str:
    """A benchmark's docstring: its first sentence is the heading."""
    heading, *paragraphs = inspect.cleandoc(about).replace("``", "`").split("\n\n")
    return "\n\n".join([f"# {heading.rstrip('.')}", *paragraphs])


def verdict(name: str, row: Mapping[str, Difference]) -> str:
    """Which of a row's differences are clear of 0, and which way."""
    found = {key: _way(key, cell) for key, cell in row.items()}
    told = [(way, [key for key, of in found.items() if of == way]) for way in WAYS]
    return f"{name}: {'; '.join(f'{way} in {_listed(keys)}' for way, keys in told if keys)}"


def told_apart(table: str, rows: Mapping[str, Mapping[str, Difference]], key: str) -> str:
    """Which rows of a table of differences are better or worse in one column, and clear of 0."""
    found = {name: _way(key, row[key]) for name, row in rows.items()}
    told = [(way, [name for name, of in found.items() if of == way]) for way in WAYS[:2]]
    words = "; ".join(f"{way} by {_listed(names)}" for way, names in told if names)
    return f"{key}, {table}: {words or 'nothing is clear of 0'}"


def _way(key: str, cell: Difference) -> str | None:
    """Which way a difference goes; None in a column that has no better."""
    better = COLUMNS[known(key)].better if known(key) else ""
    if not better or not cell.clear:
        return WAYS[2] if better else None
    return WAYS[0] if (cell.mean > 0) == (better == MORE) else WAYS[1]


def _brackets(result: Result) -> str:
    """How sure a mean is."""
    told = (
        "In brackets: 95 % intervals over captions (percentile bootstrap, "
        f"{RESAMPLES:,} resamples). {MORE}: more is better, {LESS}: less is."
    )
    if result.get("differences"):
        told += (
            " Differences are taken caption by caption, and bold where the interval is clear of 0;"
            " of twenty that are truly 0, about one would be bold by chance."
        )
    if result["clips"] < FEW:
        told += f" With {result['clips']} clips intervals come out too narrow: take them as hints."
    return told + "\n"


def _tables(result: Result) -> Iterator[str]:
    """Means, differences, and what is left out of both."""
    yield from (_counts(table, result["clips"]) for table in result["means"].values())
    tables = {**result["means"], **result.get("differences", {})}
    left_out = _left_out(list(tables.values()))
    for corner, table in tables.items():
        names = [key for key in _columns([table]) if key not in left_out]
        if len(table) == 1 and len(names) > MOST_ACROSS:
            (cells,) = table.values()
            yield markdown({head(key): {corner: cells[key]} for key in names}, "", [corner])
            continue
        for group in groups(names):
            rows = {row: cells for row, cells in table.items() if cells.keys() & {*group}}
            yield markdown(rows, corner, group)
    if left_out:
        yield f"Left out: {'; '.join(f'{key}, {why}' for key, why in left_out.items())}.\n"


def _left_out(tables: Sequence[Table]) -> dict[str, str]:
    """Columns that say nothing in any table, and why."""
    found: dict[str, str] = {}
    for key in _columns(tables):
        cells, whole = [_column(table, key) for table in tables], PART_OF.get(key)
        if not any(cell.low or cell.high for column in cells for cell in column.values()):
            found[key] = "0 in every row"
        elif whole and cells == [_column(table, whole) for table in tables]:
            found[key] = f"the same as {whole} in every row"
    return found


def _counts(table: Table, clips: int) -> str:
    """A sentence for each kind of video that should not be."""
    told = []
    for key, means in COUNTED.items():
        found = {row: round(clips * cell.mean) for row, cell in _column(table, key).items()}
        if found:
            where = ", ".join(f"{row}: {count}" for row, count in found.items() if count)
            told.append(
                f"{sum(found.values())} of {clips * len(found)} videos {means}"
                + (f" ({where})" if where else "")
            )
    return f"{'; '.join(told)}.\n" if told else ""


def _legend(result: Result) -> str:
    """What the columns mean."""
    tables = [table for kind in ("means", "differences") for table in result.get(kind, {}).values()]
    shown = {known(key) for key in _columns(tables)}
    return "".join(f"- {key}: {column.means}\n" for key, column in COLUMNS.items() if key in shown)


def _columns(tables: Sequence[Table]) -> list[str]:
    """Names in all tables, but for counts and single seconds."""
    names = dict.fromkeys(key for table in tables for cells in table.values() for key in cells)
    return [key for key in names if key not in COUNTED and not key.startswith(SECOND)]


def _column(table: Table, key: str) -> dict[str, Mean]:
    return {row: cells[key] for row, cells in table.items() if key in cells}


def _said(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return "off"
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
