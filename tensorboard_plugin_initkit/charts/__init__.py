"""Pictures of a `GradientHistory`, made once with Bokeh: for a notebook, a report, a page.

Names of layers and runs come from a log, and are shown as text, whatever they hold.
"""

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, Literal

from tensorboard_plugin_initkit.charts.depth_profile import depth_player, depth_profile
from tensorboard_plugin_initkit.charts.layer_map import difference_map, layer_map
from tensorboard_plugin_initkit.charts.lines import lines
from tensorboard_plugin_initkit.charts.names import as_html
from tensorboard_plugin_initkit.charts.theme import ThemeName, theme_of
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory

# isort: split
from bokeh.models import Div, Plot

__all__ = [
    "depth_player",
    "depth_profile",
    "difference_map",
    "findings_html",
    "findings_table",
    "layer_map",
    "lines",
    "plot",
]

_KINDS: dict[str, Callable[..., Any]] = {"map": layer_map, "depth": depth_profile, "lines": lines}


def plot(
    history: GradientHistory,
    kind: Literal["map", "depth", "lines"] = "map",
    *,
    width: int | None = None,
    **options: Any,
) -> Any:
    """Draw a record: see `GradientHistory.plot`."""
    if kind not in _KINDS:
        raise ValueError(f'`kind` must be "map", "depth" or "lines". Received: kind={kind!r}.')
    if width is not None and (
        not isinstance(width, Integral) or isinstance(width, bool) or width < 1
    ):
        raise ValueError(
            "`width` must be a positive integer, or None to be as wide as the page. "
            f"Received: width={width!r}."
        )
    if not len(history):
        raise ValueError(
            f"A record must hold steps to be drawn. Received: {history!r}. Train with "
            "`callbacks=[GradientMonitor()]` first."
        )
    drawn = _KINDS[kind](history, **options)
    if width is not None:
        _fix_width(drawn, int(width))
    return drawn


def _fix_width(drawn: Any, width: int) -> None:
    """Make a figure, or a layout and each of its figures, so many pixels wide."""
    for model in [drawn, *drawn.select({"type": Plot})]:
        # Not the sizing mode "fixed", by which a map would be higher than its frame needs.
        model.update(sizing_mode=None, width_policy="fixed", width=width)


def findings_table(findings: Iterable[Finding], theme: ThemeName = "light") -> Any:
    """What was found wrong, in order of steps, with its numbers.

    Returns:
        A Bokeh `Div`.
    """
    colours = theme_of(theme)
    style = f"<style>td, th {{ border-bottom: 1px solid {colours.grid}; }}</style>"
    return Div(
        text=style + findings_html([("", finding) for finding in findings]),
        disable_math=True,
        sizing_mode="stretch_width",
        styles={"color": colours.text, "font-size": "13px"},
    )


def findings_html(
    findings: Iterable[tuple[str, Finding]], places: Mapping[str, str] | None = None
) -> str:
    """A table of findings with the names of their runs, as HTML that is safe to show.

    Args:
        findings: With the name of the run of each; "" if there is only one.
        places: For names of runs, the id of the element that shows it, to be linked to.
    """
    found = sorted(findings, key=lambda item: item[1].rank)
    if not found:
        return "<p>The log holds no findings.</p>"
    runs = any(run for run, _ in found)
    heads = [*(["Run"] if runs else []), "Step", "What", "Layer", "Finding", "Evidence"]
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(f"<tr>{_cells(run, finding, runs, places or {})}</tr>" for run, finding in found)
    return f'<table class="findings"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(run: str, finding: Finding, runs: bool, places: Mapping[str, str]) -> str:
    evidence = ", ".join(f"{name} = {value:.4g}" for name, value in finding.evidence.items())
    layer = as_html(finding.layer, 48) if finding.layer else "all"
    name = as_html(run, 48)
    if run in places:
        name = f'<a href="#{places[run]}">{name}</a>'
    cells = [
        *([name] if runs else []),
        "" if finding.step is None else str(int(finding.step)),
        as_html(finding.kind.replace("_", " "), 48),
        layer,
        as_html(finding.message),
        as_html(evidence, 400),
    ]
    return "".join(f"<td>{cell}</td>" for cell in cells)
