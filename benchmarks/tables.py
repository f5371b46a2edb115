"""Tables of docs/measurements.md, whose rows the benchmarks print, and write with `--write`."""

import functools
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "measurements.md"


def find_table(lines: Sequence[str], name: str) -> slice:
    """Return the place of a table in the lines of a page, which a comment before it names.

    Raises:
        ValueError: If there is no such table.
    """
    mark = f"<!-- table: {name} -->"
    if mark not in lines:
        raise ValueError(f"The page must have a line {mark!r} before the table. It has none.")
    begin = end = lines.index(mark) + 1
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return slice(begin, end)


def put_row(page: str, table: str, cells: Sequence[str]) -> str:
    """Return a page in Markdown with a row put in a table.

    The row replaces the one with the same first two cells, or becomes the last.

    Raises:
        ValueError: If there is no such table, or if it has another number of columns.
    """
    lines = page.split("\n")
    place = find_table(lines, table)
    columns = lines[place.start].count("|") - 1
    if columns != len(cells):
        raise ValueError(f"A row of {table!r} must have {columns} cells. Received: {len(cells)}.")
    rows = lines[place]
    same = [i for i, row in enumerate(rows) if row.startswith(_tell(cells[:2]))]
    rows[same[0] if same else len(rows) : same[0] + 1 if same else None] = [_tell(cells)]
    lines[place] = rows
    return "\n".join(lines)


def print_row(table: str, cells: Sequence[str], write: bool) -> None:
    """Print a row of a table, after its heading the first time; `write`: into the docs, too."""
    _print_heading(table)
    print(_tell(cells), flush=True)
    if write:
        DOCS.write_text(put_row(DOCS.read_text(), table, cells))


@functools.cache
def _print_heading(table: str) -> None:
    lines = DOCS.read_text().split("\n")
    print(*lines[find_table(lines, table)][:2], sep="\n")


def _tell(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
