"""`View`: the options of every chart."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tensorboard_plugin_initkit.charts.binning import How
from tensorboard_plugin_initkit.record.history import GradientHistory

Histories = Mapping[str, GradientHistory]
ThemeName = Literal["light", "dark"]

# As Okabe and Ito's, which stay apart for the colour-blind; at least 3:1 on both pages.
RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07c00", "#3d9be0", "#8c8c8c")


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
