"""Every chart by its name: the same histories and `View`, whatever is drawn."""

from collections.abc import Callable
from typing import Any

from tensorboard_plugin_initkit.charts.depth_profile import draw_depth, draw_player
from tensorboard_plugin_initkit.charts.difference_map import draw_difference
from tensorboard_plugin_initkit.charts.layer_map import draw_map
from tensorboard_plugin_initkit.charts.lines import draw_lines
from tensorboard_plugin_initkit.charts.view import Histories, ThemeName, View

CHARTS: dict[str, Callable[[Histories, View, ThemeName], Any]] = {
    "map": draw_map,
    "difference": draw_difference,
    "depth": draw_depth,
    "player": draw_player,
    "lines": draw_lines,
}
