"""The answers to the page: charts, tables and texts of some logs."""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.charts.scales import SCALES
from tensorboard_plugin_initkit.charts.values import MOST_LINES, spread_evenly
from tensorboard_plugin_initkit.charts.view import View
from tensorboard_plugin_initkit.diagnosis.depth import fold_layers
from tensorboard_plugin_initkit.diagnosis.diagnosis import tell_verdict
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.kinds import explain
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import display_name
from tensorboard_plugin_initkit.tab.experiment import Run
from tensorboard_plugin_initkit.tab.parameters import ChartParameters, CsvParameters

_MOST_CELLS = 2_000_000
_BLOCK = 500_000
# Of a map, whatever the page asks for: it is to be sent and drawn.
_MOST_PIXELS, _FEWEST_COLUMNS = 2_000_000, 200


@dataclasses.dataclass(frozen=True)
class Log:
    """A log: its run in TensorBoard, its records with findings, and sentences on its gaps."""

    run: Run
    history: GradientHistory
    notes: Sequence[str]


def overview(log: Log) -> dict[str, Any]:
    """Describe a run: its verdict, steps, layers, statistics and findings."""
    history = log.history
    types = history.layout.layer_types.items()
    return {
        "name": log.run.name,
        "title": log.run.title,
        "state": log.run.state,
        "records": len(history),
        "first": int(history.steps[0]),
        "last": int(history.steps[-1]),
        "thinned": history.thinned,
        "layers": [{"path": path, "type": kind} for path, kind in types],
        "optimizers": history.optimizers,
        "statistics": [{"name": name, **SCALES[name]._asdict()} for name in _statistics(history)],
        "verdict": judge(history),
        "findings": [_describe(finding) for finding in history.findings],
        "notes": list(log.notes),
    }


def judge(history: GradientHistory) -> dict[str, Any]:
    """Describe the verdict on a run: its level, its text, what to change, why, and more."""
    verdict = tell_verdict(history, history.findings)
    finding = verdict.finding
    more: dict[str, Any] = {"fix": "", "cause": "", "explanation": []}
    if finding:
        more = {
            "fix": str(finding.fix),
            "cause": finding.cause,
            "explanation": explain(finding.kind),
        }
    return {"level": verdict.level, "text": verdict.text} | more


def _statistics(history: GradientHistory) -> list[str]:
    return [name for name in SCALES if name in history]


def _describe(finding: Finding) -> dict[str, Any]:
    more = {
        "evidence": finding.numbers,
        "fix": str(finding.fix),
        "explanation": explain(finding.kind),
    }
    return dataclasses.asdict(finding) | more


def chart(
    parameters: ChartParameters,
    logs: Sequence[Log],
    beside: Sequence[Log] = (),
    notes: Sequence[str] = (),
) -> bytes:
    """Draw a chart; return it as compressed JSON, with notes on what is missing in it.

    Its axes hold the lines of the logs beside it, too.

    Raises:
        ValueError: If no layer passes the filter, or the runs cannot be compared.
    """
    # Bokeh takes half a second to import: TensorBoard's start does not wait for it.
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource, SaveTool, WheelZoomTool

    from tensorboard_plugin_initkit.charts.draw import CHARTS

    notes = [*notes, *_list_notes(parameters, logs)]
    layers = _choose_layers(parameters, logs, notes)
    if layers is None and parameters.statistic == "signal":
        folds = (str(fold_layers(log.history)) for log in logs)
        notes += [f"Not shown, having no signal: {folded}." for folded in folds if folded]
    shown = max(len(layers or log.history.layers) for log in logs)
    view = View(
        parameters.statistic,
        layers,
        _steps(parameters, logs),
        parameters.step,
        parameters.how,
        min(parameters.columns, max(_FEWEST_COLUMNS, _MOST_PIXELS // max(1, shown))),
        parameters.limits,
        parameters.smoothing,
        # In a saved picture, the page around it is lacking.
        logs[0].run.title if parameters.kind in ("map", "lines") else "",
        parameters.height,
        [log.history for log in beside],
        [log.run.place for log in logs],
    )
    # By their titles, or by the names of their runs if two titles are the same.
    titled = {log.run.title: log.history for log in logs}
    by_name = titled if len(titled) == len(logs) else {log.run.name: log.history for log in logs}
    figure = CHARTS[parameters.kind](by_name, view, parameters.theme)
    for tool in figure.select({"type": SaveTool}):
        tool.filename = _name_file(parameters.view, list(by_name))
    if parameters.view in ("map", "difference"):  # the page decides when the wheel reaches it
        figure.toolbar.active_scroll = figure.select_one({"type": WheelZoomTool})
    sources = list(figure.select({"type": ColumnDataSource}))
    changing = sorted(s.name for s in sources if (s.name or "").startswith("data-"))
    whole = dataclasses.replace(parameters, first=None, last=None, columns=1)
    states = [(log.run.state, log.run.place) for log in (*logs, *beside)]
    structure = repr((whole, states, layers, changing))
    item = json_item(figure)
    for source in sources:  # models refer to each other: they wait for the garbage collector
        source.data = {}
    content = {
        "item": item,
        "key": hashlib.blake2b(structure.encode("utf-8", "replace"), digest_size=9).hexdigest(),
        "notes": notes,
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode("ascii"), 1, mtime=0)


def _list_notes(parameters: ChartParameters, logs: Sequence[Log]) -> list[str]:
    """List what is to be said of the logs: their gaps, and that a statistic is missing."""
    return [note for log in logs for note in log.notes] + [
        f"{SCALES[parameters.statistic].title!r} was not recorded in "
        f"{display_name(log.run.title)!r}."
        for log in logs
        if parameters.statistic not in _statistics(log.history)
    ]


def _name_file(view: str, names: Sequence[str]) -> str:
    """Name the picture of a chart."""
    name = "_".join([*(display_name(name, 40) for name in names[:3]), view])
    return re.sub(r"[^\w.-]+", "_", name)


def _steps(parameters: ChartParameters, logs: Sequence[Log]) -> tuple[int, int] | None:
    """Return the first and last step; a request may give only one of them."""
    first, last = parameters.first, parameters.last
    if first is None and last is None:
        return None
    ends = [int(step) for log in logs for step in log.history.steps[[0, -1]]]
    return (
        min(min(ends), last or 0) if first is None else first,
        max(max(ends), first or 0) if last is None else last,
    )


def _choose_layers(
    parameters: ChartParameters, logs: Sequence[Log], notes: list[str]
) -> list[str] | None:
    """Return the paths of the layers to be drawn, or None for the default of the chart."""
    histories = [log.history for log in logs]
    known = find_layers(histories)
    if parameters.view == "lines" and parameters.layer:
        gone = [layer for layer in parameters.layer if layer not in known]
        if gone:
            names = ", ".join(display_name(layer) for layer in gone[:3])
            more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
            notes.append(f"Layers that this run does not have: {names}{more}.")
        if len(gone) < len(parameters.layer):
            return [layer for layer in known if layer in parameters.layer]
    if not parameters.filter.split():
        return None
    layers = find_layers(histories, parameters.filter)
    if parameters.view == "lines" and len(layers) > MOST_LINES:
        return [layers[i] for i in spread_evenly(len(layers), MOST_LINES)]
    return layers


def find_layers(histories: Sequence[GradientHistory], words: str = "") -> list[str]:
    """Return the paths of the layers with all words in their path or type, in any case.

    Raises:
        ValueError: If no layer has them.
    """
    wanted = words.casefold().split()
    types = {
        path: kind for history in histories for path, kind in history.layout.layer_types.items()
    }
    texts = {path: f"{path}\n{kind}".casefold() for path, kind in types.items()}
    found = [path for path, text in texts.items() if all(word in text for word in wanted)]
    if not found:
        raise ValueError(
            f"No layer has all of these words in its name or type: {words!r}. "
            "Use fewer or other words."
        )
    return found


def csv_lines(parameters: CsvParameters, history: GradientHistory) -> Iterator[bytes]:
    """Write a statistic as a table: a line for each recorded step, a column for each layer.

    Raises:
        ValueError: If no layer passes the filter, or the table is too large.
    """
    layers = find_layers([history], parameters.filter)
    steps = history.steps
    first = 0 if parameters.first is None else int(np.searchsorted(steps, parameters.first))
    last = parameters.last
    end = len(steps) if last is None else int(np.searchsorted(steps, last, "right"))
    cells = (end - first) * len(layers)
    if cells > _MOST_CELLS:
        raise ValueError(
            f"A table must have at most {_MOST_CELLS:,} numbers. Received: {end - first:,} steps "
            f"of {len(layers):,} layers. Zoom in, or filter layers."
        )
    part = history.select(slice(first, end))
    part.select(slice(0, 1))[parameters.statistic]  # read now, as long as errors can be said
    return _csv_lines(parameters.statistic, part, layers)


def _csv_lines(statistic: str, history: GradientHistory, layers: list[str]) -> Iterator[bytes]:
    place = {layer: i for i, layer in enumerate(history.layers)}
    columns = [place[layer] for layer in layers]
    yield _csv([["step", *map(_inert, layers)]])
    block = max(1, _BLOCK // max(1, len(history.variables)))
    for start in range(0, len(history), block):
        part = history.select(slice(start, start + block))
        values = part[statistic][:, columns]
        steps = part.steps.tolist()
        rows = ([step, *row] for step, row in zip(steps, values.tolist(), strict=True))
        yield _csv(rows)


def _csv(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _inert(name: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{name}" if name.startswith(tuple("=+-@\t\r\n＝＋－＠")) else name
