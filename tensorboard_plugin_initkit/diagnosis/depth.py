"""The gradient over the depth of a model: the signal that comes back, and its slope."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.diagnosis.verdicts import THRESHOLDS
from tensorboard_plugin_initkit.record.history import GradientHistory

Floats = npt.NDArray[np.float64]


class Slope(NamedTuple):
    """How a gradient changes over depth, on its way from the output to the input.

    Attributes:
        factor: By which it changes per layer; NaN if there are too few layers.
        total: By which it changes over all of them.
        at_output: Where the fitted line begins, at the last layer.
        reading: `"vanishing"` or `"exploding"` if that is more than the verdicts let pass,
            `"falling"` or `"rising"` from its square root on, `"healthy"` below; or why there is
            no slope.
    """

    factor: float
    total: float
    at_output: float
    reading: str

    def __str__(self) -> str:
        if np.isnan(self.factor):
            return self.reading
        factors = f"×{self.factor:.3g} per layer towards the input, ×{self.total:.2g} in all"
        return f"{factors}: {self.reading}"


def signal(history: GradientHistory) -> Floats:
    """The signal that comes back to the units of each layer, averaged over a batch: (n, layers).

    That is the RMS of the gradient of the layer's biases, or of its kernel if it has none, over
    the elements that are not zero. A kernel's gradient is the product of this signal and of the
    layer's inputs: in a ReLU network of badly scaled weights, where one falls over depth as the
    other grows, it is the same in all layers. NaN for a layer that has neither, or no gradient.
    """
    rms, zeros = history.per_variable("rms"), np.nan_to_num(history.per_variable("zeros"))
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = np.where(zeros == 1, 0.0, rms / np.sqrt(1 - zeros))
    result = np.full((len(history), len(history.layers)), np.nan)
    for i, columns in enumerate(_unit_columns(history)):
        if columns:
            result[:, i] = np.fmax.reduce(rms[:, columns], axis=1)
    return result


def _unit_columns(history: GradientHistory) -> list[list[int]]:
    """For each layer the columns of its variables with one element a unit, or its kernels."""
    reached = ~np.isnan(history.per_variable("dead_units")).all(axis=0)
    columns: list[list[int]] = [[] for _ in history.layers]
    for i, (path, layer) in enumerate(zip(history.variables, history.layer_of, strict=True)):
        if reached[i] or path.endswith(("/bias", "/beta")):
            columns[layer].append(i)
    return columns


def slope(values: npt.ArrayLike) -> Slope:
    """Fit a line to the logarithm of a statistic of the layers, input first.

    The output layer is left out, as its gradient comes through no weights, and so are layers
    without a gradient or with one of exactly zero. What is read into it is what the callback's
    verdicts begin with; they look besides at whether it lasts, and at the loss.

    Args:
        values: One number a layer.
    """
    values = np.asarray(values, np.float64)[:-1]
    broken = int(np.isinf(values).sum())
    if broken:
        return Slope(np.nan, np.nan, np.nan, f"not finite in {broken} layers")
    depth = np.flatnonzero(np.nan_to_num(values) > 0)
    if len(depth) + 1 < THRESHOLDS["depth_layers"].value:
        zero = len(values) > 0 and not np.nan_to_num(values).any() and not np.isnan(values).all()
        text = "zero" if zero else "too few layers for a slope"
        return Slope(np.nan, np.nan, np.nan, text)
    gradient, offset = np.polyfit(depth, np.log(values[depth]), 1)
    change = -gradient * (depth[-1] - depth[0])
    with np.errstate(over="ignore", under="ignore"):
        factor, total, at_output = np.exp([-gradient, change, offset + gradient * len(values)])
    return Slope(float(factor), float(total), float(at_output), _reading(change))


def _reading(change: float) -> str:
    """The words for a change of the logarithm over all layers."""
    steepness = change / abs(np.log(THRESHOLDS["depth_ratio"].value))
    if abs(steepness) < 0.5:
        return "healthy"
    if abs(steepness) <= 1:
        return "falling" if change < 0 else "rising"
    return "vanishing" if change < 0 else "exploding"
