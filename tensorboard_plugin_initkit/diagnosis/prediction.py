"""The signals that were predicted from the first weights, beside those of the first record."""

from typing import NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import Floats
from tensorboard_plugin_initkit.diagnosis.wiring import find_first_layers
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup
from tensorboard_plugin_initkit.safe_text import write_number

# Of the layers nearest to the output, where measured and predicted signals are made equal.
_NEAREST = 3


class Parting(NamedTuple):
    """The first layer, from the output on, where signals are not as predicted.

    Attributes:
        layer: Its path.
        factor: The measured signal relative to the predicted one.
        cause: "data", "activation" or "weights".
        reason: The cause in words.
    """

    layer: str
    factor: float
    cause: str
    reason: str

    def __str__(self) -> str:
        number = write_number(self.factor, 2)
        return f"×{number} of the prediction from `{self.layer}` on: {self.reason}"


def predict_signals(history: GradientHistory) -> Floats:
    """Return the predicted signal of each layer at step 0: array (layers,), NaN if not known.

    The loss sets the scale of all gradients, which is not predicted: near the output the
    predicted signals are made equal to the measured ones, by a median over three layers.
    """
    prediction = history.setup.prediction if history.setup else {}
    predicted = np.array([prediction.get(layer, (0.0, 0.0))[1] for layer in history.layers])
    predicted[predicted == 0.0] = np.nan
    if not prediction or not len(history) or history.steps[0]:
        return predicted * np.nan
    measured = history.select(slice(0, 1))["signal"][0]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = np.where(measured > 0, measured / predicted, np.nan)
        # The gradient of the output layer does not come through weights.
        known = ratios[:-1][np.isfinite(ratios[:-1])]
        return predicted * (np.median(known[-_NEAREST:]) if len(known) else np.nan)


def find_parting(history: GradientHistory) -> Parting | None:
    """Find the first layer from the output on where the first record is not as predicted.

    The next layer must be off as well. Chance counts: of n layers of u units each, the logarithm
    of the gradient's norm varies by sqrt(5n/4u) between draws of the weights (Hanin & Nica, 2020).
    Of inputs of another scale than assumed, the first layer may tell alone, by a step.
    """
    predicted = predict_signals(history)
    first = history.select(slice(0, 1))
    places = np.flatnonzero(np.isfinite(predicted[:-1]))[::-1]
    if len(places) < THRESHOLDS["depth_layers"].value - 1:
        return None
    with np.errstate(divide="ignore"):
        off = np.log(first["signal"][0, places] / predicted[places])
    variables = history.layout.variables
    units = {variable.layer: max(variable.units, 1) for variable in variables}
    widths = np.array([units[history.layers[place]] for place in places], float)
    chance = np.sqrt(np.cumsum(1.25 / widths))
    least = np.log(THRESHOLDS["prediction_factor"].value)
    most = least + THRESHOLDS["prediction_errors"].value * chance
    is_off = np.where(np.abs(off) > most, np.sign(off), 0.0)
    rows = np.flatnonzero((is_off[:-1] != 0.0) & (is_off[:-1] == is_off[1:]))
    is_step = abs(off[-1] - off[-2]) > least / 2.0 and _find_inputs(first) is not None
    if not len(rows) and not is_step:
        return None
    row = int(rows[0]) if len(rows) else len(places) - 1
    cause, reason = _find_cause(first, int(places[row]))
    return Parting(history.layers[places[row]], float(np.exp(off[row])), cause, reason)


def explain_slope(history: GradientHistory, total: float) -> str:
    """Tell where a change over depth comes from, and if the first weights predicted it.

    Args:
        history: The records, with the first.
        total: The change, from the last layer in front of the output to the first.
    """
    predicted = predict_signals(history)[:-1]
    known = predicted[np.isfinite(predicted)]
    if len(known) < THRESHOLDS["depth_layers"].value - 1:
        ends = "hardly learn" if total < 1 else "change far more than the last"
        return (
            "Each layer multiplies the gradient by its weights and by the slope of its activation, "
            f"here by too {'little' if total < 1 else 'much'}: the first layers {ends}."
        )
    if parting := find_parting(history):
        return f"Step 0 is not as the weights predicted: {parting}."
    before = float(known[0] / known[-1])
    number = write_number(before, 2)
    if abs(np.log(before)) > THRESHOLDS["prediction_share"].value * abs(np.log(total)):
        return f"The initial weights cause it: ×{number} was predicted for step 0, and measured."
    return f"Training causes it: ×{number} was predicted for step 0, and measured."


def _find_cause(first: GradientHistory, place: int) -> tuple[str, str]:
    """Tell why a layer's signal at the first record is not as predicted."""
    rms = _find_inputs(first)
    if rms is not None:
        return "data", f"the inputs are of the size of {rms:.3g}, and 1 was assumed"
    share = first["dead_units"][0, place] if "dead_units" in first else 0.0
    if share > THRESHOLDS["prediction_dead"].value:
        return "activation", f"{share:.0%} of its units are dead"
    return "weights", "its weights, or those of the layers after it, do not act like random ones"


def _find_inputs(first: GradientHistory) -> float | None:
    """Return the RMS of inputs if it is far from 1; of tokens it means nothing."""
    layers = find_first_layers(first.setup or Setup())
    if any(layer.type == "Embedding" for layer in layers):
        return None
    ports = [i for i, port in enumerate(first.ports) if port.role == "x"]
    mean, std = (first.per_port(name)[0, ports] for name in ("mean", "std"))
    sizes = np.hypot(mean, std)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not len(sizes):
        return None
    rms = float(sizes[np.argmax(np.abs(np.log(sizes)))])
    return rms if abs(np.log(rms)) > np.log(THRESHOLDS["prediction_inputs"].value) else None
