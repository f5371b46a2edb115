"""How objects show themselves in a notebook, and as data frames of pandas."""

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from tensorboard_plugin_initkit.safe_text import as_html

# At least 3:1 on the white and on the black pages of notebooks, whose own colours hold otherwise.
_COLOURS = {"error": "#d9534f", "warning": "#c77c00", "healthy": "#2e9e4f"}
_FAINT = "#888888"
_MOST_ROWS = 50
FINDING_COLUMNS = ("", "Kind", "Layer", "Step", "Seen, and why", "What to change")


def make_card(
    title: str,
    level: str = "",
    sentences: Iterable[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> str:
    """Return HTML with a title, sentences and a table; all text is escaped.

    It loads nothing. Text and background are the notebook's, so that they follow its theme.

    Args:
        title: The line in bold, or the verdict.
        level: `"error"`, `"warning"` or `"healthy"`, for the colour at the edge; or another word.
        sentences: A paragraph each.
        columns: Heads of the table.
        rows: Its cells; only the first 50 rows are shown, and it is said.
    """
    cell = 'style="text-align: left; vertical-align: top; white-space: pre-wrap"'
    if len(rows) > _MOST_ROWS:
        sentences = [*sentences, f"{_MOST_ROWS} of {len(rows):,} rows are shown."]
    parts = [f"<strong>{as_html(title)}</strong>"]
    parts += [f"<p>{as_html(sentence)}</p>" for sentence in sentences]
    if rows:
        head = "".join(f"<th {cell}>{as_html(name)}</th>" for name in columns)
        lines = (
            "".join(f"<td {cell}>{_write_cell(text)}</td>" for text in row)
            for row in rows[:_MOST_ROWS]
        )
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    edge = f"border-left: 5px solid {_COLOURS.get(level, _FAINT)}; padding: 2px 12px"
    return f'<div style="{edge}">{"".join(parts)}</div>'


def finding_rows(findings: Iterable[Any]) -> list[tuple[str, ...]]:
    """Return the cells of a table of `Finding`s, below `FINDING_COLUMNS`."""
    return [
        (
            finding.severity,
            finding.kind.replace("_", " "),
            finding.layer or "all",
            "" if finding.step is None else f"{finding.step:,}",
            f"{finding.message} {finding.cause}".rstrip(),
            str(finding.fix),
        )
        for finding in findings
    ]


def import_pandas(instead: str) -> Any:
    """Return pandas; raise ImportError with what there is `instead` if it is missing."""
    try:
        return importlib.import_module("pandas")
    except ImportError:
        raise ImportError(
            "`to_dataframe` needs pandas, which is not installed. Install it: "
            f"`pip install keras-initkit[report]`. Without it there is {instead}."
        ) from None


def _write_cell(text: str) -> str:
    return "\n".join(as_html(line, 2000) for line in text.split("\n"))
