"""A report of trainings: one HTML file, without need of a network."""

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from bokeh.document import Document
from bokeh.embed import components
from bokeh.resources import Resources

from tensorboard_plugin_initkit.charts.draw import CHARTS
from tensorboard_plugin_initkit.charts.theme import dark_colours, theme_of
from tensorboard_plugin_initkit.charts.view import ThemeName, View
from tensorboard_plugin_initkit.diagnosis.diagnosis import tell_verdict
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import as_html

_MOST_CELLS = 400_000
_LEVELS = ("error", "warning", "open", "healthy")
_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; $rules">
<title>$title</title>
<style>
$colours
body { margin: 0 auto; padding: 16px 28px 48px; max-width: 1700px; background: var(--page);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 8px 0 2px; }
h2 { font-size: 19px; margin: 36px 0 6px; overflow-wrap: anywhere; }
p { max-width: 80ch; margin: 6px 0 12px; }
p, summary { color: var(--faint); }
a { color: inherit; }
summary { cursor: pointer; padding: 6px 0; }
pre { background: var(--missing); padding: 12px 16px; overflow-x: auto; }
ul { padding-left: 20px; columns: 22em; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: start; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid var(--grid); overflow-wrap: break-word; }
th { color: var(--faint); font-weight: 600; }
td:nth-last-child(-n+2) { overflow-wrap: anywhere; }
td:nth-last-child(2) { min-width: 30ch; }
td:nth-last-child(1) { min-width: 16ch; }
dl { display: grid; grid-template-columns: max-content auto; gap: 2px 14px; margin: 10px 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.verdict { border-left: 5px solid var(--faint); padding: 2px 12px; color: inherit; }
.error { border-color: #d9534f; }
.warning { border-color: #c77c00; }
.healthy { border-color: #2e9e4f; }
</style>
$library
</head>
<body>
<h1>$title</h1>
$head
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
# All charts in the colours of a page as the reader prefers it, also when that changes.
_FOLLOW = string.Template("""<script>
const dark = matchMedia("(prefers-color-scheme: dark)"), darker = $colours, before = new Map();
const change = (value) => typeof value === "string"
  ? value.replace(/#[0-9a-f]{6}/g, (colour) => darker[colour] ?? colour)
  : Array.isArray(value) && value.length < 10 ? value.map(change)
  : typeof value?.value === "string" ? {...value, value: change(value.value)} : value;
function follow() {
  for (const doc of Bokeh.documents) for (const model of doc.all_models) {
    for (const property of Object.values(model.properties)) {
      if (!/color|palette|stylesheets/.test(property.attr)) continue;
      if (!before.has(property)) before.set(property, model[property.attr]);
      const value = before.get(property);
      model.setv({[property.attr]: dark.matches ? change(value) : value});
    }
  }
}
dark.addEventListener("change", follow);
const wait = setInterval(() => {
  if (!Bokeh.documents.length || !Bokeh.documents.every((doc) => doc.is_idle)) return;
  clearInterval(wait);
  if (dark.matches) follow();
}, 50);
</script>""")
_DEPTH = (
    "<h2>Over the depth of the model</h2><p>The gradient that reaches the units of each layer. "
    "Gradients start at the output, on the right: a line that falls towards the left is a "
    "vanishing gradient, one that rises an exploding one. Click a run to hide it.</p>"
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
    theme: ThemeName | Literal["auto"] = "auto",
    head: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return an HTML page with the charts of some trainings.

    Args:
        histories: Records, by the names of their runs.
        statistic: Statistic of the maps and lines.
        title: Shown above.
        notes: Sentences below the title, such as the names of unreadable logs.
        theme: `"light"`, `"dark"`, or `"auto"`: as the reader's system prefers it.
        head: What else is said below the title, by name.

    Raises:
        ValueError: If `statistic` or `theme` is not as described.
    """
    charts = _Charts("light" if theme == "auto" else theme)
    recorded = {name: history for name, history in histories.items() if history.layers}
    links = {name: i for i, name in enumerate(recorded)}
    body = [f"<p>{as_html(note)}</p>" for note in notes]
    body.append(_verdicts(histories, links))
    if recorded:
        body.append(_findings_section(histories, links))
        body.append(_DEPTH + charts.add("player", recorded, View()))
        for i, (name, history) in enumerate(recorded.items()):
            view = View(statistic, columns=_columns(history))
            body.append(_run_section(charts, i, name, history, view))
        body.append(_difference_section(charts, recorded, statistic))
    body += [_empty_section(name) for name in histories if name not in recorded]
    if not histories:
        body.append(f"<p>Nothing recorded yet. Add these two lines:</p>{_HOW_TO_LOG}")
    text, script = charts.embed("\n".join(body))
    if script and theme == "auto":
        script += _FOLLOW.substitute(colours=json.dumps(dark_colours()))
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets"])
    return _PAGE.substitute(
        rules=_RULES,
        title=as_html(title),
        head=_head({"Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **head}),
        colours=_colours(theme),
        library=library.render() if charts.models else "",
        body=text,
        script=script,
    )


def _colours(theme: ThemeName | Literal["auto"]) -> str:
    """Write the colours of the page as variables of CSS."""

    def write(name: ThemeName) -> str:
        variables = (f"--{key}: {value};" for key, value in theme_of(name)._asdict().items())
        return f":root {{ color-scheme: {name}; {' '.join(variables)} }}"

    if theme != "auto":
        return write(theme)
    return f"{write('light')}\n@media (prefers-color-scheme: dark) {{ {write('dark')} }}"


def _head(facts: Mapping[str, str]) -> str:
    lines = (f"<dt>{as_html(name)}</dt><dd>{as_html(text)}</dd>" for name, text in facts.items())
    return f"<dl>{''.join(lines)}</dl>"


def _verdicts(histories: Mapping[str, GradientHistory], links: Mapping[str, int]) -> str:
    """Write the verdict on each run, the worst first: it is the table of contents as well."""
    verdicts = {name: tell_verdict(h, h.findings) for name, h in histories.items()}
    worst_first = sorted(verdicts, key=lambda name: _LEVELS.index(verdicts[name].level))
    return "".join(
        f'<p class="verdict {verdicts[name].level}">{_link(name, links)}: '
        f"{as_html(verdicts[name].text)}</p>"
        for name in worst_first
    )


def _link(run: str, links: Mapping[str, int]) -> str:
    name = as_html(run, 48)
    return f'<a href="#run-{links[run]}">{name}</a>' if run in links else name


def _findings_section(histories: Mapping[str, GradientHistory], links: Mapping[str, int]) -> str:
    """Write all findings in order of steps, with links to their runs."""
    title = "<h2>Findings</h2>"
    rows = [(run, finding) for run, history in histories.items() for finding in history.findings]
    if not rows:
        return f"{title}<p>Nothing wrong was found.</p>"
    rows.sort(key=lambda row: row[1].rank)
    heads = ("Run", "Step", "Kind", "Layer", "Finding", "Evidence")
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f"<tr>{_cells(run, finding, links)}</tr>" for run, finding in rows)
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(run: str, finding: Finding, links: Mapping[str, int]) -> str:
    evidence = ", ".join(map(" = ".join, finding.numbers.items()))
    cells = [
        _link(run, links),
        "" if finding.step is None else f"{int(finding.step):,}",
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
        yield f"What follows from this: {consequence}"
    if finding.link:
        yield f"More: {finding.link}"


def _run_section(
    charts: _Charts, number: int, name: str, history: GradientHistory, view: View
) -> str:
    thinned = ", others were thinned out" if history.thinned else ""
    extent = (
        f"{len(history):,} recorded steps, {history.steps[0]:,} to {history.steps[-1]:,}{thinned}; "
        f"{len(history.layers):,} layers, the input at the bottom."
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
        "<p>For the layers and steps that both have: orange where the first named is larger, "
        f"purple where it is smaller.</p>{charts.add('difference', histories, view)}</section>"
    )


def _columns(history: GradientHistory) -> int:
    """Limit the columns of a map for the size of the file."""
    return max(100, min(800, _MOST_CELLS // max(1, len(history.layers))))


def _empty_section(name: str) -> str:
    return (
        f"<section><h2>{as_html(name, 200)}</h2><p>This log holds no recorded step: the "
        "training has not reached one yet, or was stopped before it did. These two lines record "
        f"a training:</p>{_HOW_TO_LOG}</section>"
    )
