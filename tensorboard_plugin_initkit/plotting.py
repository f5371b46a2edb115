"""`plot`: the charts of the tab in a notebook, made by Bokeh."""

import dataclasses
import functools
import html
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal

from tensorboard_plugin_initkit.record.history import GradientHistory

Kind = Literal["map", "difference", "depth", "player", "lines"]


def plot(
    history: GradientHistory | Mapping[str, GradientHistory],
    kind: Kind = "map",
    *,
    width: int | None = None,
    theme: Literal["light", "dark"] = "light",
    **options: Any,
) -> Any:
    """Draw a history with Bokeh; a notebook shows it as the last line of a cell, without a network.

    Example:
    ```python
    history = keras_initkit.read_log("runs/he")
    keras_initkit.plot(history, "map", statistic="norm", theme="dark")
    ```

    Args:
        history: A history, or several by name.
        kind: `"map"`: layers x steps; `"difference"`: a map of two histories, the second relative
            to the first; `"depth"`: some steps over the depth of the model; `"player"`: the same
            with a slider for the step; `"lines"`: layers over steps, above the loss and the
            learning rate. Maps and lines are of one history.
        width: Pixels, a positive integer, as `export_png` needs it; or `None`: as wide as the page.
        theme: `"light"` or `"dark"`.
        **options: Of `View`; each chart uses some of them:
            `statistic`: one of `history[...]` by layers, `"signal"` by default;
            `layers`: paths of layers; by default all, and as lines ten, evenly over the depth;
            `steps`: first and last step on a map or of lines; by default all;
            `at`: steps of a depth profile, laid over each other; by default the last;
            `how`: `"max"`, `"min"` or `"mean"` of several records in one column;
            `columns`: largest number of columns of a map, or of points of a line;
            `limits`: ends of the colour scale of a map;
            `smoothing`: of lines, at least 0 and less than 1;
            `title`: shown above;
            `height`: pixels that there are for the chart;
            `beside`: histories whose values the axes of lines hold, too;
            `places`: of the histories in a longer list, whose colours they have.

    Returns:
        A Bokeh figure or layout, for `bokeh.io.show`, `save` or `export_png`.

    Raises:
        KeyError: If there is no such statistic.
        ValueError: If a history is empty, or `kind`, `width`, `theme` or an option is not as
            described.
    """
    # Bokeh takes half a second to import: only those pay who draw.
    from tensorboard_plugin_initkit.charts.draw import CHARTS
    from tensorboard_plugin_initkit.charts.view import View

    histories = {"": history} if isinstance(history, GradientHistory) else dict(history)
    if kind not in CHARTS:
        kinds = ", ".join(f'"{name}"' for name in CHARTS)
        raise ValueError(f"`kind` must be one of {kinds}. Received: kind={kind!r}.")
    if width is not None and (
        not isinstance(width, Integral) or isinstance(width, bool) or width < 1
    ):
        raise ValueError(
            "`width` must be a positive integer, or None to be as wide as the page. "
            f"Received: width={width!r}."
        )
    known = [field.name for field in dataclasses.fields(View)]
    for name in options.keys() - known:
        raise ValueError(
            f"The options must be of {', '.join(f'`{option}`' for option in known)}. Received: "
            f"{name}={options[name]!r}."
        )
    for each in histories.values():
        if not len(each):
            raise ValueError(
                f"A history must hold steps to be drawn. Received: {each!r}. Train with "
                "`callbacks=[GradientMonitor()]` first."
            )
    figure = CHARTS[kind](histories, View(**options), theme)
    if width is not None:
        _fix_width(figure, int(width))
    figure._repr_html_ = functools.partial(_to_html, figure)
    return figure


def _to_html(figure: Any) -> str:
    """Write a figure as a frame with all that it needs: 1.5 MB, of Bokeh's script."""
    from bokeh.embed import file_html
    from bokeh.models import Plot
    from bokeh.resources import INLINE

    plots = {figure, *figure.select({"type": Plot})}
    height = sum(getattr(plot, "frame_height", 0) or plot.height or 0 for plot in plots) + 160
    page = html.escape(file_html(figure, INLINE, "Gradient flow"))
    return f'<iframe srcdoc="{page}" style="width: 100%; height: {height}px; border: 0"></iframe>'


def _fix_width(figure: Any, width: int) -> None:
    """Make a figure, or a layout and each of its figures, so many pixels wide."""
    from bokeh.models import Plot

    for model in [figure, *figure.select({"type": Plot})]:
        # Not the sizing mode "fixed", by which a map would be higher than its frame needs.
        model.update(sizing_mode=None, width_policy="fixed", width=width)
