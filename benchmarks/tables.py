"""Tables of the docs, which benchmarks write with `--write`: whole, or row by row."""

import functools
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "measurements.md"


def read_lines(page: str, name: str) -> list[str]:
    """Return the lines of a page in Markdown between the marks of a name.

    Raises:
        ValueError: If the page has no such marks.
    """
    first, last = (f"<!-- {name}: {edge} -->" for edge in ("begin", "end"))
    lines = page.split("\n")
    if first not in lines or last not in lines:
        raise ValueError(f"The page must have the lines {first} and {last}. One is missing.")
    return lines[lines.index(first) + 1 : lines.index(last)]


def replace_lines(page: str, name: str, lines: Sequence[str]) -> str:
    """Return a page in Markdown with other lines between the marks of a name.

    Raises:
        ValueError: If the page has no such marks.
    """
    first, *rest = f"<!-- {name}: begin -->", *read_lines(page, name)
    before, _, after = page.partition("\n".join([first, *rest]))
    return before + "\n".join([first, *lines]) + after


def put_row(page: str, table: str, cells: Sequence[str]) -> str:
    """Return a page in Markdown with a row put in the table between the marks of its name.

    The row replaces the one with the same first two cells, or becomes the last.

    Raises:
        ValueError: If there is no such table, or if it has another number of columns.
    """
    rows = read_lines(page, table)
    columns = rows[0].count("|") - 1
    if columns != len(cells):
        raise ValueError(f"A row of {table!r} must have {columns} cells. Received: {len(cells)}.")
    same = [i for i, row in enumerate(rows) if row.startswith(_tell(cells[:2]))]
    rows[same[0] if same else len(rows) : same[0] + 1 if same else None] = [_tell(cells)]
    return replace_lines(page, table, rows)


def print_row(table: str, cells: Sequence[str], write: bool) -> None:
    """Print a row of a table, after its heading the first time; `write`: into the docs, too."""
    _print_heading(table)
    print(_tell(cells), flush=True)
    if write:
        DOCS.write_text(put_row(DOCS.read_text(), table, cells))


@functools.cache
def _print_heading(table: str) -> None:
    print(*read_lines(DOCS.read_text(), table)[:2], sep="\n")


def _tell(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
