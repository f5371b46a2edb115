"""What the page is answered: pictures, numbers and texts of some logs."""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tensorboard_plugin_initkit.charts.names import display_name
from tensorboard_plugin_initkit.charts.scales import SCALES
from tensorboard_plugin_initkit.diagnosis.depth import signal
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.tab.experiment import Run
from tensorboard_plugin_initkit.tab.parameters import ChartParameters, CsvParameters

_MOST_LINES = 10
_MOST_CELLS = 2_000_000
_BLOCK = 500_000
# Of a map, whatever the page asks for: it is to be sent and drawn.
_MOST_PIXELS, _FEWEST_COLUMNS = 2_000_000, 200


@dataclasses.dataclass(frozen=True)
class Record:
    """All that a log holds.

    Attributes:
        run: Where it is.
        history: What was recorded.
        findings: What was found wrong.
        notes: What must be known to read it rightly.
    """

    run: Run
    history: GradientHistory
    findings: Sequence[Finding]
    notes: Sequence[str]


def overview(record: Record) -> dict[str, Any]:
    """What there is to be seen of a run."""
    history = record.history
    types = zip(history.layers, history.layer_types, strict=True)
    return {
        "name": record.run.name,
        "title": record.run.title,
        "state": record.run.state,
        "records": len(history),
        "first": int(history.steps[0]),
        "last": int(history.steps[-1]),
        "thinned": history.thinned,
        "layers": [{"path": path, "type": kind} for path, kind in types],
        "optimizers": history.optimizers,
        "statistics": [{"name": name, **SCALES[name]._asdict()} for name in _drawable(history)],
        "findings": [_described(finding) for finding in record.findings],
        "notes": list(record.notes),
    }


def _drawable(history: GradientHistory) -> list[str]:
    recorded = {*history.recorded, *(["signal"] if "rms" in history.recorded else [])}
    return [name for name in SCALES if name in recorded]


def _described(finding: Finding) -> dict[str, Any]:
    evidence = {name: f"{value:.4g}" for name, value in finding.evidence.items()}
    return dataclasses.asdict(finding) | {"evidence": evidence}


def chart(charts: Any, parameters: ChartParameters, records: Sequence[Record]) -> bytes:
    """A picture, as compressed JSON.

    Args:
        charts: The module `tensorboard_plugin_initkit.charts`, which imports Bokeh.
        parameters: What is to be drawn.
        records: Of its runs.

    Raises:
        ValueError: If nothing can be drawn of that.
    """
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource

    notes = [note for record in records for note in record.notes]
    notes += _missing(parameters.statistic, records)
    layers = _chosen(parameters, records, notes)
    figure = _drawn(charts, parameters, records, layers)
    sources = list(figure.select({"type": ColumnDataSource}))
    changing = sorted(s.name for s in sources if (s.name or "").startswith("data-"))
    whole = dataclasses.replace(parameters, first=None, last=None, columns=1)
    structure = repr((whole, [record.run.state for record in records], layers, changing))
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


def _drawn(
    charts: Any,
    parameters: ChartParameters,
    records: Sequence[Record],
    layers: list[str] | None,
) -> Any:
    first, last = parameters.first, parameters.last
    steps = None
    if first is not None or last is not None:
        ends = [step for record in records for step in record.history.steps[[0, -1]]]
        steps = (
            min(int(min(ends)), last or 0) if first is None else first,
            max(int(max(ends)), first or 0) if last is None else last,
        )
    options: dict[str, Any] = {"layers": layers, "theme": parameters.theme}
    histories = [record.history for record in records]
    titles = [record.run.title for record in records]
    if parameters.view == "depth":
        options |= {"statistic": parameters.statistic}
        # A log that was moved may have the title of another one.
        names = titles if len(set(titles)) == len(titles) else [r.run.name for r in records]
        named = dict(zip(names, histories, strict=True))
        if parameters.step:
            return charts.depth_profile(named, list(parameters.step), **options)
        return charts.depth_player(named, **options)
    shown = max(len(layers or history.layers) for history in histories)
    columns = min(parameters.columns, max(_FEWEST_COLUMNS, _MOST_PIXELS // max(1, shown)))
    options |= {"steps": steps, "how": parameters.how, "columns": columns}
    if parameters.view == "difference":
        options |= {"names": tuple(titles)}
        return charts.difference_map(*histories, parameters.statistic, **options)
    if parameters.view == "lines":
        options |= {"statistic": parameters.statistic, "smoothing": parameters.smoothing}
        return charts.lines(histories[0], **options)
    options |= {"limits": parameters.limits, "findings": records[0].findings}
    return charts.layer_map(histories[0], parameters.statistic, **options)


def _missing(statistic: str, records: Sequence[Record]) -> list[str]:
    return [
        f"{SCALES[statistic].title!r} was not recorded in {display_name(record.run.title)!r}."
        for record in records
        if statistic not in _drawable(record.history)
    ]


def _chosen(
    parameters: ChartParameters, records: Sequence[Record], notes: list[str]
) -> list[str] | None:
    """Paths of the layers to be drawn; None for what the chart draws by itself."""
    known = list(dict.fromkeys(layer for r in records for layer in filtered(r.history)))
    if parameters.view == "lines" and parameters.layer:
        there = [layer for layer in known if layer in parameters.layer]
        gone = [layer for layer in parameters.layer if layer not in there]
        if gone:
            names = ", ".join(display_name(layer) for layer in gone[:3])
            more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
            notes.append(f"The run has no such layer: {names}{more}.")
        if there:
            return there
    if not parameters.filter.split():
        return None
    some = {layer for r in records for layer in filtered(r.history, parameters.filter)}
    if not some:
        raise ValueError(
            "`filter` must be words that are found in the path or type of a layer. "
            f"Received: filter={parameters.filter!r}, which no layer has."
        )
    layers = [layer for layer in known if layer in some]
    if parameters.view == "lines" and len(layers) > _MOST_LINES:
        evenly = np.linspace(0, len(layers) - 1, _MOST_LINES).round().astype(int)
        return [layers[i] for i in evenly]
    return layers


def filtered(history: GradientHistory, words: str = "") -> list[str]:
    """Paths of the layers in whose path or type all words are found, in any case."""
    wanted = words.casefold().split()
    texts = (
        (path, f"{path}\n{kind}".casefold())
        for path, kind in zip(history.layers, history.layer_types, strict=True)
    )
    return [path for path, text in texts if all(word in text for word in wanted)]


def csv_lines(parameters: CsvParameters, history: GradientHistory) -> Iterator[bytes]:
    """A statistic as a table: a line for each recorded step, a column for each layer.

    Raises:
        ValueError: If it has no layer or too many cells, before the first line.
    """
    layers = filtered(history, parameters.filter)
    steps = history.steps
    first = 0 if parameters.first is None else int(np.searchsorted(steps, parameters.first))
    last = parameters.last
    end = len(steps) if last is None else int(np.searchsorted(steps, last, "right"))
    cells = (end - first) * len(layers)
    if not layers:
        raise ValueError(
            "`filter` must be words that are found in the path or type of a layer. "
            f"Received: filter={parameters.filter!r}, which no layer has."
        )
    if cells > _MOST_CELLS:
        raise ValueError(
            f"A table must have at most {_MOST_CELLS:,} numbers. Received: {end - first:,} steps "
            f"of {len(layers):,} layers. Zoom in, or filter layers."
        )
    part = history.select(slice(first, end))
    _values(part.select(slice(0, 1)), parameters.statistic)  # read now, as long as it can be said
    return _csv_lines(parameters.statistic, part, layers)


def _csv_lines(statistic: str, history: GradientHistory, layers: list[str]) -> Iterator[bytes]:
    place = {layer: i for i, layer in enumerate(history.layers)}
    columns = [place[layer] for layer in layers]
    yield _csv([["step", *map(_inert, layers)]])
    block = max(1, _BLOCK // max(1, len(history.variables)))
    for start in range(0, len(history), block):
        part = history.select(slice(start, start + block))
        values = _values(part, statistic)[:, columns]
        steps = part.steps.tolist()
        rows = ([step, *row] for step, row in zip(steps, values.tolist(), strict=True))
        yield _csv(rows)


def _values(history: GradientHistory, statistic: str) -> np.ndarray:
    return signal(history) if statistic == "signal" else history[statistic]


def _csv(rows: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _inert(name: str) -> str:
    """A name that a spreadsheet does not take for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
