"""A report of trainings: one HTML file that needs nothing else, no network either."""

import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorboard_plugin_initkit import charts
from tensorboard_plugin_initkit.charts.names import as_html
from tensorboard_plugin_initkit.charts.theme import ThemeName, theme_of
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory

# isort: split
from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources

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
_HOW_TO_LOG = """<pre>from keras_initkit.callbacks import GradientMonitor
model.fit(x, y, callbacks=[GradientMonitor("runs/first")])</pre>"""


def write_report(
    histories: Mapping[str, GradientHistory],
    findings: Mapping[str, Sequence[Finding]] | None,
    path: str | os.PathLike[str],
    *,
    statistic: str = "rms",
    title: str = "Gradient flow",
    notes: Sequence[str] = (),
    theme: ThemeName = "light",
) -> None:
    """Write one HTML file with the charts of some trainings.

    Args:
        histories: Records, by the names of their runs.
        findings: What was found wrong, by the names of the runs.
        path: File to write.
        statistic: Colour of the maps, and what the lines show.
        title: Shown above.
        notes: Sentences to be shown below the title, such as what could not be read.
        theme: `"light"` or `"dark"`.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If `statistic` or `theme` is not as described.
    """
    html = report_html(histories, findings or {}, statistic, title, notes, theme)
    Path(path).write_text(html, encoding="utf-8")


def report_html(
    histories: Mapping[str, GradientHistory],
    findings: Mapping[str, Sequence[Finding]],
    statistic: str,
    title: str,
    notes: Sequence[str],
    theme: ThemeName,
) -> str:
    """The text of the report."""
    colours = theme_of(theme)
    recorded = {name: history for name, history in histories.items() if len(history)}
    body = [f"<p>{as_html(note)}</p>" for note in notes]
    models: dict[str, Any] = {}
    if recorded:
        places = {name: f"run-{i}" for i, name in enumerate(recorded)}
        body.append(_findings_section(findings, places))
        body.append(_depth_section(recorded, models, theme))
        for i, (name, history) in enumerate(recorded.items()):
            found = findings.get(name, ())
            body.append(_run_section(i, name, history, found, statistic, models, theme))
        body.append(_difference_section(recorded, statistic, models, theme))
    body += [_empty_section(name) for name in histories if name not in recorded]
    if not histories:
        body.append(f"<p>There is no record to show. These two lines make one:</p>{_HOW_TO_LOG}")
    script, divs = _embedded(models)
    text = "\n".join(body)
    for key, div in divs.items():
        text = text.replace(_place(key), div)
    return _PAGE.substitute(
        rules=_RULES,
        title=as_html(title),
        page=colours.page,
        text=colours.text,
        faint=colours.faint,
        grid=colours.grid,
        code=colours.missing,
        scheme=theme,
        library=_library() if models else "",
        body=text,
        script=script,
    )


def _embedded(models: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The script that draws charts, and the elements that it draws them in."""
    if not models:
        return "", {}
    document = Document()
    with document.models.freeze():  # else all are looked through for each that is added
        for model in models.values():
            document.add_root(model)
    return components(models)


def _library() -> str:
    """Bokeh's own JavaScript, from its package."""
    return str(Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).render())


def _place(key: str) -> str:
    # Text from a log has its angle brackets escaped.
    return f"<div chart={key}></div>"


def _findings_section(findings: Mapping[str, Sequence[Finding]], places: Mapping[str, str]) -> str:
    rows = [(run, finding) for run, found in findings.items() for finding in found]
    return f"<h2>Findings</h2>{charts.findings_html(rows, places)}"


def _depth_section(
    histories: Mapping[str, GradientHistory], models: dict[str, Any], theme: ThemeName
) -> str:
    models["depth"] = charts.depth_player(histories, theme=theme)
    return (
        "<h2>Over the depth of the model</h2><p>The gradient that comes back to the units of each "
        "layer. It comes from the output, on the right: a line that falls to the left vanishes on "
        "its way to the input, one that rises to the left explodes. Click a run to hide it.</p>"
        f"{_place('depth')}"
    )


def _run_section(
    number: int,
    name: str,
    history: GradientHistory,
    findings: Sequence[Finding],
    statistic: str,
    models: dict[str, Any],
    theme: ThemeName,
) -> str:
    models[f"map{number}"] = charts.layer_map(
        history, statistic, columns=_columns(history), findings=findings, theme=theme
    )
    models[f"lines{number}"] = charts.lines(history, statistic=statistic, theme=theme)
    thinned = ", of a longer record that was thinned" if history.thinned else ""
    extent = (
        f"{len(history)} recorded steps, {history.steps[0]} to {history.steps[-1]}{thinned}; "
        f"{len(history.layers)} layers, the input at the bottom."
    )
    return (
        f'<section id="run-{number}"><h2>{as_html(name, 200)}</h2><p>{extent}</p>'
        f"{_place(f'map{number}')}"
        f"<details><summary>Layers over steps, loss and learning rate</summary>"
        f"{_place(f'lines{number}')}</details></section>"
    )


def _difference_section(
    histories: Mapping[str, GradientHistory],
    statistic: str,
    models: dict[str, Any],
    theme: ThemeName,
) -> str:
    """Of exactly two runs, the second relative to the first; nothing if they cannot be compared."""
    if len(histories) != 2:
        return ""
    (first, a), (second, b) = histories.items()
    if not set(a.layers) & set(b.layers) or not len(np.intersect1d(a.steps, b.steps)):
        return ""
    models["difference"] = charts.difference_map(
        a, b, statistic, columns=_columns(a), names=(first, second), theme=theme
    )
    return (
        f"<section><h2>{as_html(second, 200)} relative to {as_html(first, 200)}</h2>"
        "<p>Of the layers and steps that both have: orange where the second is larger, purple "
        f"where it is smaller.</p>{_place('difference')}</section>"
    )


def _columns(history: GradientHistory) -> int:
    """Of a map, so that the file does not become too large."""
    return max(100, min(800, _MOST_CELLS // max(1, len(history.layers))))


def _empty_section(name: str) -> str:
    return (
        f"<section><h2>{as_html(name, 200)}</h2><p>This log holds no recorded step yet: "
        "the training has not come to one, or was stopped before. A training is recorded by these "
        f"two lines:</p>{_HOW_TO_LOG}</section>"
    )
