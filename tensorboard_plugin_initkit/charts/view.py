"""`View`: the options of every chart."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tensorboard_plugin_initkit.charts.binning import How
from tensorboard_plugin_initkit.record.history import GradientHistory

Histories = Mapping[str, GradientHistory]
ThemeName = Literal["light", "dark"]

# TensorBoard's own for its runs; on a light page its cyan, yellow and green are darkened to 3:1.
RUN_COLOURS: dict[ThemeName, tuple[str, ...]] = {
    "light": ("#425066", "#10a3b7", "#e52592", "#c58700", "#9334e6", "#70a13b", "#e8710a"),
    "dark": ("#8e98a3", "#12b5cb", "#e52592", "#f9ab00", "#9334e6", "#7cb342", "#e8710a"),
}


def colour_of_run(place: int, theme: ThemeName) -> str:
    """Return the colour of a run by its place in the list; after seven they repeat."""
    return RUN_COLOURS[theme][place % len(RUN_COLOURS[theme])]


@dataclasses.dataclass(frozen=True)
class View:
    """The options of a chart; each chart uses some of them.

    Attributes:
        statistic: One of layers. The default, `"signal"`, is the RMS of the gradient at the units
            of a layer: the rules compare layers by it.
        layers: Paths of layers; by default all, and as lines ten, evenly over the depth.
        steps: First and last step on a map or of lines; by default all.
        at: Steps of a depth profile, laid over each other: each history shows its last record up
            to a step. By default the last record of all.
        how: `"max"`, `"min"` or `"mean"` of several records in a column, or layers in a row.
        columns: Largest number of columns of a map, or of points of a line. Where a map has more
            than the chart has pixels, the browser leaves some out until one zooms in.
        limits: Ends of the colour scale of a map; by default those of the statistic.
        smoothing: Of lines, as TensorBoard's for scalars: at least 0 and less than 1. Logarithms
            are averaged where the axis is logarithmic.
        title: Shown above.
        height: Pixels that there are for the chart; by default, as the layers need them.
        beside: Other histories, drawn in charts of their own beside this one of lines, on axes that
            hold the values of all.
        places: Of the histories in a longer list, whose colours they have; by default their order.
    """

    statistic: str = "signal"
    layers: Sequence[str] | None = None
    steps: tuple[int, int] | None = None
    at: Sequence[int] = ()
    how: How = "max"
    columns: int = 800
    limits: tuple[float, float] | None = None
    smoothing: float = 0.0
    title: str = ""
    height: int = 0
    beside: Sequence[GradientHistory] = ()
    places: Sequence[int] = ()


def expect(count: int, histories: Histories) -> list[Any]:
    """Return the histories; check their number.

    Raises:
        ValueError: If there are more or fewer.
    """
    if len(histories) != count:
        raise ValueError(
            f"This chart shows {count} {'history' if count == 1 else 'histories'}. Received: "
            f"{len(histories)}. Draw each in a chart of its own, or all of them over depth."
        )
    return list(histories.values())
