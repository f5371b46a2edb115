"""A report of trainings: one HTML file, without need of a network."""

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources

from tensorboard_plugin_initkit.charts.draw import CHARTS
from tensorboard_plugin_initkit.charts.theme import theme_of
from tensorboard_plugin_initkit.charts.view import ThemeName, View
from tensorboard_plugin_initkit.diagnosis.diagnosis import tell_verdict
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import as_html

_MOST_CELLS = 400_000
_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; $rules">
<title>$title</title>
<style>
body { margin: 0 auto; padding: 16px 28px 48px; max-width: 1700px; background: $page;
  color: $text; font: 15px/1.45 system-ui, sans-serif; color-scheme: $scheme; }
h1 { font-size: 24px; margin: 8px 0 2px; }
h2 { font-size: 19px; margin: 36px 0 6px; overflow-wrap: anywhere; }
p { max-width: 80ch; margin: 6px 0 12px; }
p, summary { color: $faint; }
a { color: inherit; }
summary { cursor: pointer; padding: 6px 0; }
pre { background: $code; padding: 12px 16px; overflow-x: auto; }
ul { padding-left: 20px; columns: 22em; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: start; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid $grid; overflow-wrap: break-word; }
th { color: $faint; font-weight: 600; }
td:nth-last-child(-n+2) { overflow-wrap: anywhere; }
td:nth-last-child(2) { min-width: 30ch; }
td:nth-last-child(1) { min-width: 16ch; }
</style>
$library
</head>
<body>
<h1>$title</h1>
$body
$script
</body>
</html>
""")
# Bokeh compiles the small scripts of its charts; nothing may be loaded from anywhere.
_RULES = (
    "script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:"
)
_DEPTH = (
    "<h2>Over the depth of the model</h2><p>The gradient that comes back to the units of each "
    "layer. It comes from the output, on the right: a line that falls to the left vanishes on "
    "its way to the input, one that rises to the left explodes. Click a run to hide it.</p>"
)
_HOW_TO_LOG = """<pre>from keras_initkit.callbacks import GradientMonitor
model.fit(x, y, callbacks=[GradientMonitor("runs/first")])</pre>"""


class _Charts:
    """The charts of a report: each is drawn, and put in its place when the page is done."""

    def __init__(self, theme: ThemeName) -> None:
        self._theme = theme
        self.models: dict[str, Any] = {}

    def add(self, kind: str, histories: Mapping[str, GradientHistory], view: View) -> str:
        """Draw a chart; return its place on the page."""
        key = f"chart{len(self.models)}"
        self.models[key] = CHARTS[kind](histories, view, self._theme)
        return _place(key)

    def embed(self, text: str) -> tuple[str, str]:
        """Return the page with its charts, and the script to draw them."""
        if not self.models:
            return text, ""
        document = Document()
        with document.models.freeze():  # else all are looked through for each that is added
            for model in self.models.values():
                document.add_root(model)
        script, divs = components(self.models)
        for key, div in divs.items():
            text = text.replace(_place(key), div)
        return text, script


def _place(key: str) -> str:
    # Text from a log has its angle brackets escaped.
    return f"<div chart={key}></div>"


def report_html(
    histories: Mapping[str, GradientHistory],
    *,
    statistic: str = "signal",
    title: str = "Gradient flow",
    notes: Sequence[str] = (),
    theme: ThemeName = "light",
) -> str:
    """Return an HTML page with the charts of some trainings.

    Args:
        histories: Records, by the names of their runs.
        statistic: Statistic of the maps and lines.
        title: Shown above.
        notes: Sentences below the title, such as the names of unreadable logs.
        theme: `"light"` or `"dark"`.

    Raises:
        ValueError: If `statistic` or `theme` is not as described.
    """
    colours, charts = theme_of(theme), _Charts(theme)
    recorded = {name: history for name, history in histories.items() if history.layers}
    body = [f"<p>{as_html(note)}</p>" for note in notes]
    if recorded:
        body.append(_findings_section(histories, {name: i for i, name in enumerate(recorded)}))
        body.append(_DEPTH + charts.add("player", recorded, View()))
        for i, (name, history) in enumerate(recorded.items()):
            view = View(statistic, columns=_columns(history))
            body.append(_run_section(charts, i, name, history, view))
        body.append(_difference_section(charts, recorded, statistic))
    body += [_empty_section(name) for name in histories if name not in recorded]
    if not histories:
        body.append(f"<p>There is no record to show. These two lines make one:</p>{_HOW_TO_LOG}")
    text, script = charts.embed("\n".join(body))
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets"])
    return _PAGE.substitute(
        rules=_RULES,
        title=as_html(title),
        page=colours.page,
        text=colours.text,
        faint=colours.faint,
        grid=colours.grid,
        code=colours.missing,
        scheme=theme,
        library=library.render() if charts.models else "",
        body=text,
        script=script,
    )


def _findings_section(histories: Mapping[str, GradientHistory], runs: Mapping[str, int]) -> str:
    """Write the verdicts, and all findings in order of steps with links to their runs."""
    verdicts = "".join(
        f"<p>{as_html(run, 48)}: {as_html(tell_verdict(history, history.findings).text)}</p>"
        for run, history in histories.items()
    )
    title = f"<h2>Findings</h2>{verdicts}"
    rows = [(run, finding) for run, history in histories.items() for finding in history.findings]
    if not rows:
        return f"{title}<p>The log holds no findings.</p>"
    rows.sort(key=lambda row: row[1].rank)
    heads = ("Run", "Step", "What", "Layer", "Finding", "Evidence")
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f"<tr>{_cells(run, finding, runs)}</tr>" for run, finding in rows)
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(run: str, finding: Finding, runs: Mapping[str, int]) -> str:
    evidence = ", ".join(f"{name} = {value:.4g}" for name, value in finding.evidence.items())
    name = as_html(run, 48)
    cells = [
        f'<a href="#run-{runs[run]}">{name}</a>' if run in runs else name,
        "" if finding.step is None else str(int(finding.step)),
        as_html(finding.kind.replace("_", " "), 48),
        as_html(finding.layer, 48) if finding.layer else "all",
        "<br>".join(map(as_html, _paragraphs(finding))),
        as_html(evidence, 400),
    ]
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _paragraphs(finding: Finding) -> Iterator[str]:
    """Yield what is seen, why, what to change, what follows from it, and where to read more."""
    yield finding.message
    if finding.cause:
        yield finding.cause
    if finding.fix:
        yield f"What to change: {finding.fix}"
    for consequence in finding.consequences:
        yield f"It follows: {consequence}"
    if finding.link:
        yield f"More: {finding.link}"


def _run_section(
    charts: _Charts, number: int, name: str, history: GradientHistory, view: View
) -> str:
    thinned = ", of a longer record that was thinned" if history.thinned else ""
    extent = (
        f"{len(history)} recorded steps, {history.steps[0]} to {history.steps[-1]}{thinned}; "
        f"{len(history.layers)} layers, the input at the bottom."
    )
    run = {name: history}
    return (
        f'<section id="run-{number}"><h2>{as_html(name, 200)}</h2><p>{extent}</p>'
        f"{charts.add('map', run, view)}"
        f"<details><summary>Layers over steps, loss and learning rate</summary>"
        f"{charts.add('lines', run, View(view.statistic))}</details></section>"
    )


def _difference_section(
    charts: _Charts, histories: Mapping[str, GradientHistory], statistic: str
) -> str:
    """Compare exactly two runs; write nothing if they cannot be compared."""
    if len(histories) != 2:
        return ""
    (first, a), (second, b) = histories.items()
    if not set(a.layers) & set(b.layers) or not len(np.intersect1d(a.steps, b.steps)):
        return ""
    view = View(statistic, columns=_columns(a))
    return (
        f"<section><h2>{as_html(second, 200)} relative to {as_html(first, 200)}</h2>"
        "<p>Of the layers and steps that both have: orange where the second is larger, purple "
        f"where it is smaller.</p>{charts.add('difference', histories, view)}</section>"
    )


def _columns(history: GradientHistory) -> int:
    """Limit the columns of a map for the size of the file."""
    return max(100, min(800, _MOST_CELLS // max(1, len(history.layers))))


def _empty_section(name: str) -> str:
    return (
        f"<section><h2>{as_html(name, 200)}</h2><p>This log holds no recorded step yet: "
        "the training has not come to one, or was stopped before. A training is recorded by these "
        f"two lines:</p>{_HOW_TO_LOG}</section>"
    )
