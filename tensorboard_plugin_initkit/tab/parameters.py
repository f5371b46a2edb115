"""The parameters of requests; they are checked here, and nowhere else."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from werkzeug.datastructures import MultiDict

from tensorboard_plugin_initkit.charts.binning import How
from tensorboard_plugin_initkit.charts.scales import SCALES, scale_of
from tensorboard_plugin_initkit.charts.view import ThemeName

_RUNS = {"map": (1, 1), "difference": (2, 2), "depth": (1, 100), "lines": (1, 1)}
_COLUMNS = (1, 4000)
_STEPS = (0, 2**48)
_MOST_TEXT = 1000
_MOST_STEPS = 20


@dataclasses.dataclass(frozen=True)
class RunParameters:
    """A run."""

    run: str


@dataclasses.dataclass(frozen=True)
class CsvParameters:
    """A table of numbers."""

    run: str
    statistic: str = "signal"
    first: int | None = None
    last: int | None = None
    filter: str = ""


@dataclasses.dataclass(frozen=True)
class ChartParameters:
    """A chart.

    Attributes:
        view: `"map"`, `"difference"`, `"depth"` or `"lines"`.
        run: TensorBoard's names of the runs.
        statistic: One of `SCALES`.
        how: `"max"`, `"min"` or `"mean"` of several records.
        columns: Largest number of columns.
        first, last: First and last step, if not all.
        low, high: Ends of the colour scale, if not its own.
        filter: Words in the path or type of a layer.
        layer: Paths of layers drawn as lines; by default some of all.
        smoothing: Of lines.
        step: Steps of a profile over depth without a slider.
        theme: `"light"` or `"dark"`.
        height: Pixels that there are for the chart, if that is known.
        beside: TensorBoard's names of runs in charts of lines beside this one.
    """

    view: str
    run: tuple[str, ...]
    statistic: str = "signal"
    how: How = "max"
    columns: int = 1200
    first: int | None = None
    last: int | None = None
    low: float | None = None
    high: float | None = None
    filter: str = ""
    layer: tuple[str, ...] = ()
    smoothing: float = 0.0
    step: tuple[int, ...] = ()
    theme: ThemeName = "light"
    height: int = 0
    beside: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Name of the chart: over depth with a slider, unless steps are given."""
        return "player" if self.view == "depth" and not self.step else self.view

    @property
    def limits(self) -> tuple[float, float] | None:
        """Ends of the colour scale, if they are not its own."""
        if self.low is None and self.high is None:
            return None
        scale = scale_of(self.statistic)
        return (
            scale.low if self.low is None else self.low,
            scale.high if self.high is None else self.high,
        )


Query = MultiDict[str, str]


def chart_parameters(query: Query) -> ChartParameters:
    """Read the parameters of `./chart`.

    Raises:
        ValueError: If one is not as described, missing or unknown.
    """
    view = _one_of(tuple(_RUNS))("view", _single("view", query.getlist("view")))
    parameters = parse(query, ChartParameters)
    least, most = _RUNS[view]
    if not least <= len(parameters.run) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(
            f"`run` must be given {count} times for the view {view!r}. "
            f"Received: {len(parameters.run)} runs."
        )
    if parameters.limits is not None:
        low, high = parameters.limits
        if not low < high or (scale_of(parameters.statistic).log and low <= 0):
            raise ValueError(
                "The colour range must go from a lower to a higher number, above 0 if logarithmic. "
                f"Received: {low:g} to {high:g}. Write for example 1e-6 to 1."
            )
    return parameters


Parameters = TypeVar("Parameters", RunParameters, CsvParameters, ChartParameters)
Reader = Callable[[str, str], Any]


def parse(query: Query, kind: type[Parameters]) -> Parameters:
    """Read the parameters of a request.

    Raises:
        ValueError: If one is not as described, missing or unknown.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in query:
        if name not in fields:
            known = ", ".join(f"`{known}`" for known in fields)
            raise ValueError(f"A parameter must be one of {known}. Received: {_quote(name)}.")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        received = query.getlist(name)
        if received:
            read = _READERS[name]
            if str(field.type).startswith("tuple"):
                values[name] = tuple(read(name, text) for text in received)
            else:
                values[name] = read(name, _single(name, received))
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"`{name}` must be given. Received: no such parameter.")
    if len(values.get("step", ())) > _MOST_STEPS:
        raise ValueError(
            f"`step` must be given at most {_MOST_STEPS} times. Received: {len(values['step'])}."
        )
    first, last = values.get("first"), values.get("last")
    if first is not None and last is not None and first > last:
        raise ValueError(
            f"`first` must not be larger than `last`. Received: first={first}, last={last}."
        )
    return kind(**values)


def _single(name: str, values: list[str]) -> str:
    if len(values) != 1:
        raise ValueError(f"`{name}` must be given once. Received: {len(values)} values.")
    return values[0]


def _one_of(known: tuple[str, ...]) -> Reader:
    def read(name: str, text: str) -> str:
        if text not in known:
            names = ", ".join(f'"{item}"' for item in known)
            raise ValueError(f"`{name}` must be one of {names}. Received: {name}={_quote(text)}.")
        return text

    return read


def _integer(low: int, high: int) -> Reader:
    def read(name: str, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(
                f"`{name}` must be an integer from {low} to {high}. "
                f"Received: {name}={_quote(text)}."
            )
        return int(text)

    return read


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number. Received: {name}={_quote(text)}.")
    return value


def _fraction(name: str, text: str) -> float:
    value = _number(name, text)
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be at least 0 and less than 1. Received: {name}={_quote(text)}."
        )
    return value


def _short_text(name: str, text: str) -> str:
    if len(text) > _MOST_TEXT:
        raise ValueError(
            f"`{name}` must be at most {_MOST_TEXT} characters long. Received: {len(text)}."
        )
    return text


def _quote(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def _text(name: str, text: str) -> str:
    return text


_READERS: dict[str, Reader] = {
    "view": _one_of(tuple(_RUNS)),
    "run": _text,
    "beside": _text,
    "statistic": _one_of(tuple(SCALES)),
    "how": _one_of(("max", "min", "mean")),
    "columns": _integer(*_COLUMNS),
    "first": _integer(*_STEPS),
    "last": _integer(*_STEPS),
    "low": _number,
    "high": _number,
    "filter": _short_text,
    "layer": _text,
    "smoothing": _fraction,
    "step": _integer(*_STEPS),
    "height": _integer(0, 4000),
    "theme": _one_of(("light", "dark")),
}
