"""Targets as the steps have shown them, and the right output and loss for them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.wiring import Head, Tensor, read, write_layer
from tensorboard_plugin_initkit.record.setup import Shape

BINARY = frozenset({"binary_crossentropy", "binary_focal_crossentropy"})
SPARSE = frozenset({"sparse_categorical_crossentropy"})
CATEGORICAL = SPARSE | {
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
}
CROSSENTROPY = BINARY | CATEGORICAL
# Of two distributions or sets of pixels: the output is to be probabilities, too.
PROBABILITIES = CROSSENTROPY | {"kl_divergence", "dice", "tversky"}
# For labels -1 and 1, or 0 and 1.
HINGE = frozenset({"hinge", "squared_hinge"})
REGRESSION = frozenset(
    {
        "mean_squared_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
        "huber",
        "log_cosh",
    }
)
# The same on any scale of targets; those of relative errors are not.
DIFFERENCES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")
_NEARLY_ALL = THRESHOLDS["nearly_all"].value
_SCALE = "model = keras_initkit.with_normalization(model, x, y)"


class Target(NamedTuple):
    """A target over all records up to one of them.

    Attributes:
        shape: Shape of a sample; `None` if its rank changes.
        low, high: Least and greatest element.
        integers: Least fraction of integers among the elements of a batch.
        one_hot: Fraction of rows with one 1 and zeros, at least.
        ones: Sum of a row, on the average of a batch, at most.
        square: Mean square of the elements of a batch, at least.
        variance: Mean variance of an element over the samples.
    """

    shape: Shape | None
    low: float
    high: float
    integers: float
    one_hot: float
    ones: float
    square: float
    variance: float

    @property
    def width(self) -> int:
        """Number of elements along the last axis."""
        return self.shape[-1] if self.shape else 1

    @property
    def is_integer(self) -> bool:
        """Whether all elements are integers."""
        return self.integers == 1

    @property
    def is_plus_minus_one(self) -> bool:
        """Whether all elements are -1 or 1."""
        limits = (self.low, self.high) == (-1, 1)
        return limits and self.is_integer and self.square > _NEARLY_ALL

    @property
    def is_one_hot(self) -> bool:
        """Whether each row has one 1 and zeros, for exclusive classes."""
        return self.width > 1 and self.one_hot >= _NEARLY_ALL

    @property
    def is_multi_hot(self) -> bool:
        """Whether rows have several ones and zeros, for classes together."""
        return (
            self.width > 1
            and self.is_integer
            and (self.low, self.high) == (0, 1)
            and not self.is_one_hot
        )

    @property
    def span(self) -> str:
        """The range in words."""
        return f"{self.low:.4g} to {self.high:.4g}"


class Remedy(NamedTuple):
    """An output layer, a loss and a change of the targets, as code; "" for no change.

    `repairs` are those of the model; none where labels are to be changed by hand.
    """

    layer: str
    loss: str
    labels: str = ""
    repairs: dict[str, dict[str, Any]] = {}  # noqa: RUF012 (never written)

    def as_fix(self, text: str = "") -> Fix:
        """Return it as a fix, described by a text or by its code alone."""
        return Fix(text or f"Use {self}", self.repairs)

    def __str__(self) -> str:
        parts = [f"`{self.layer}`"] * bool(self.layer) + [f"`loss={self.loss}`"] * bool(self.loss)
        code = " with ".join(parts)
        return ", and ".join([code] * bool(code) + [f"`{self.labels}`"] * bool(self.labels)) + "."


def follow_target(facts: Facts, tensor: Tensor | None) -> Iterator[tuple[int, Target | None]]:
    """Yield a target at the first record, and at each one where it has shown something new."""
    if tensor is None or not len(facts.steps):
        yield 0, None
        return
    columns = [
        (read(facts, tensor, name, combine), combine)
        for name, combine in (
            ("min", np.fmin),
            ("max", np.fmax),
            ("integers", np.fmin),
            ("one_hot", np.fmin),
            ("mean", np.fmax),
            ("std", np.fmax),
            ("variance", np.fmax),
        )
    ]
    mean, std = columns[-3][0], columns[-2][0]
    columns[-2] = np.square(mean) + np.square(std), np.fmin
    table = np.stack([combine.accumulate(column) for column, combine in columns], axis=1)
    comparable = np.nan_to_num(table, nan=np.inf)
    changed = np.any(comparable[1:] != comparable[:-1], axis=1)
    for row in np.flatnonzero(np.append(True, changed)):
        target = Target(tensor.shape, *table[row].tolist())
        target = target._replace(ones=target.ones * target.width)
        yield int(row), None if np.isnan(target.low) else target


def suggest(head: Head, target: Target | None) -> Remedy:
    """Return the output and loss for these targets; without any, for the loss as it is."""
    loss, units = head.setup.loss, head.units
    if target is None:
        if loss in CATEGORICAL and units > 1:
            return _write(head, units, "softmax", loss)
        return _write(head, max(1, units), "sigmoid", "binary_crossentropy")
    width = target.width
    if target.is_one_hot:
        return _write(head, width, "softmax", "categorical_crossentropy")
    if target.is_multi_hot:
        return _write(head, width, "sigmoid", "binary_crossentropy")
    if loss == "kl_divergence" and target.low < 0 and width > 1:
        return _write(head, width, "softmax", loss, "y = keras.ops.softmax(y)")
    if _is_picture(head, target):
        return Remedy("", "", "y = y / 255")
    if _are_classes(head, target):
        return _suggest_classes(head, target)
    if target.low >= 0 and target.high <= 1 and loss in CROSSENTROPY:
        return _write(head, width, "sigmoid", "binary_crossentropy")
    is_near = -1 <= target.low < 0 and target.high <= 1
    if is_near and head.activation in ("sigmoid", "hard_sigmoid"):
        return Remedy("", "", "y = (y + 1) / 2")
    loss = loss if loss in REGRESSION else "mean_squared_error"
    numbers = _write(head, width, "", loss)
    if loss in DIFFERENCES and target.square > THRESHOLDS["target_size"].value ** 2:
        scale = {"normalize": {"inputs": True, "targets": True}} if numbers.repairs else {}
        return numbers._replace(labels=_SCALE, repairs=numbers.repairs | scale)
    return numbers


def _write(head: Head, units: int, activation: str, loss: str, labels: str = "") -> Remedy:
    code = write_layer(head.kernel, units, activation)
    repairs: dict[str, dict[str, Any]] = {}
    if head.kernel and head.layer and not labels:
        if units != head.units:
            repairs["rebuild"] = {"layers": {head.kernel.path: {"units": units}}}
        holder = head.layer if head.layer.activation else head.kernel
        repairs["activation"] = {"layers": {holder.path: activation or "linear"}}
        if loss != head.setup.loss or head.from_logits:
            repairs["loss"] = {"head": head.setup.name, "loss": loss, "from_logits": False}
    return Remedy(code, f'"{loss}"', labels, repairs)


def _is_picture(head: Head, target: Target) -> bool:
    """Check for pixels of 8 bits, in the shape of the output."""
    shape, size = head.shape, THRESHOLDS["picture_size"].value
    is_large = shape is not None and (len(shape) > 1 or target.width > size)
    return is_large and target.shape == shape and are_pixels(target.low, target.high)


def are_pixels(low: float, high: float) -> bool:
    """Check the range of numbers for that of pixels of 8 bits."""
    return low >= 0 and THRESHOLDS["pixels_least"].value < high <= 255


def _are_classes(head: Head, target: Target) -> bool:
    """Check for classes among integers: by the loss, the metrics, or the softmax of several."""
    if target.width > 1 and head.units == target.width:
        return False
    few = target.is_integer and -1 <= target.low <= 1
    few &= target.high <= THRESHOLDS["many_classes"].value
    asked = head.setup.loss in CROSSENTROPY | HINGE or (
        head.activation == "softmax" and head.units > 1
    )
    named = any("acc" in metric for metric in head.setup.metrics)
    return few and (asked or named or (target.low, target.high) == (0, 1))


def _suggest_classes(head: Head, target: Target) -> Remedy:
    """Return the output for integer labels: a sigmoid for two classes, a softmax for more."""
    low, high = int(target.low), int(target.high)
    two = head.units < 3
    if target.is_plus_minus_one and two:
        return _write(head, 1, "sigmoid", "binary_crossentropy", "y = (y + 1) / 2")
    shift = low if low < 0 else int(low > 0 and (high == head.units > 1 or (high == 2 and two)))
    labels = f"y = y {'-' if shift > 0 else '+'} {abs(shift)}" if shift else ""
    last = high - shift
    if last <= 1 and two and (head.units < 2 or head.setup.loss not in SPARSE):
        return _write(head, 1, "sigmoid", "binary_crossentropy", labels)
    count = max(last + 1, head.units)
    return _write(head, count, "softmax", "sparse_categorical_crossentropy", labels)
