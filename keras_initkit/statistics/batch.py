"""Numbers of a batch: of the inputs, targets, predictions and sample weights of a step."""

import math
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from tensorboard_plugin_initkit.record.layout import Port
from tensorboard_plugin_initkit.record.port_statistics import TargetBatch

Shape = tuple[int | None, ...]

ROLES = ("x", "y", "y_pred", "sample_weight")
# In the order of `PORT_STATISTICS`: those measured of a batch.
MEASURED_OF_PORTS = 10
# Elements of a sample; 8 sequences of 512 words out of 8,192 are 134 MB.
MOST_ELEMENTS = 2**17
# Targets with more classes or features have no profile: a step would be spent on counting classes,
# each in all rows. Features, as the pixels of a small picture, are a sum each.
MOST_CLASSES, MOST_FEATURES = 256, 1024
# Rows of softmax or smoothed labels in float16 add up to 1 this exactly.
_SUM_TOLERANCE = 2e-3


def list_ports(role: str, structure: Any) -> list[tuple[Port, Any]]:
    """List the ports of a role and their tensors: the real dense ones of a structure."""
    found = [
        ("/".join(map(str, path)), tensor)
        for path, tensor in keras.tree.flatten_with_path(structure)
        if hasattr(tensor, "dtype") and hasattr(tensor, "shape") and _is_real(tensor)
    ]
    return [
        (_describe_port(role, name if len(found) > 1 else "", tensor), tensor)
        for name, tensor in found
    ]


def _is_real(tensor: Any) -> bool:
    """Check for a dense tensor of real numbers, with a batch axis."""
    try:
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except ValueError:  # of NumPy's strings and objects
        return False
    if dtype == "string" or dtype.startswith("complex") or not len(tensor.shape):
        return False
    return not hasattr(tensor, "row_splits") and not hasattr(tensor, "dense_shape")


def _describe_port(role: str, name: str, tensor: Any) -> Port:
    shape = tuple(size or 0 for size in tensor.shape[1:])
    return Port(role, name, shape, keras.backend.standardize_dtype(tensor.dtype))


def measure_port(tensor: Any) -> Any:
    """Measure a real tensor (batch, …): float32 array (MEASURED_OF_PORTS,).

    These are the first ones of `PORT_STATISTICS`; all but `nonfinite` are of its finite elements.
    Of samples with more than `MOST_ELEMENTS`, positions at equal distances are measured.
    """
    values = ops.cast(_thin(tensor), "float32")
    values = ops.reshape(values, (-1, 1)) if len(values.shape) < 2 else values
    is_finite = ops.isfinite(values)
    # Made on the device: a number of Python's would be copied to it, which waits for that.
    zero = ops.zeros((), "float32")
    clean = ops.where(is_finite, values, zero)
    # Several numbers of one reduction: each is compiled by itself.
    count, total, whole = _over_all(ops.sum, is_finite, clean, ops.floor(clean) == clean)
    mean = total / count
    # A constant's squares would not cancel to zero.
    centred = ops.where(is_finite, values - mean, zero)
    samples = centred - ops.mean(centred, axis=0, keepdims=True)
    squares, of_samples = _over_all(ops.sum, ops.square(centred), ops.square(samples))
    size = ops.cast(ops.size(values), "float32")
    axes = tuple(range(len(values.shape) - 1))
    features = centred - ops.mean(centred, axis=axes, keepdims=True)
    of_features = ops.sqrt(ops.mean(ops.square(features), axis=axes))
    # The mean of a constant is rounded.
    rounding = (ops.max(ops.abs(centred), axis=axes) + ops.abs(mean)) * 1e-6
    of_features = ops.where(of_features > rounding, of_features, zero)
    least, most = zero + math.inf, zero - math.inf
    lowest, highest = _over_all(
        ops.max, -ops.where(is_finite, values, least), ops.where(is_finite, values, most)
    )
    narrowest, widest = _over_all(ops.max, -of_features, of_features)
    one_hot = mean * math.nan
    if values.shape[-1] != 1:
        marks = ops.cast(ops.stack([clean == 1, clean == 0]), "float32")
        counts = ops.sum(marks, axis=-1)
        # Of a length that a graph does not know, such as a padded text's.
        others = ops.cast(ops.shape(values)[-1], "float32") - 1
        is_row = ops.logical_and(counts[0] == 1, counts[1] == others)
        one_hot = ops.where(others > 0, ops.mean(ops.cast(is_row, "float32")), one_hot)
    return ops.stack(
        [
            mean,
            ops.sqrt(squares / count),
            -lowest,
            highest,
            size - count,
            ops.sqrt(of_samples / size),
            -narrowest,
            widest,
            whole / size,
            one_hot,
        ]
    )


def _over_all(reduce: Any, *arrays: Any) -> Any:
    """Reduce arrays of one shape to a number each."""
    stack = ops.stack([ops.cast(array, "float32") for array in arrays])
    reduced = reduce(ops.reshape(stack, (len(arrays), -1)), axis=1)
    return [reduced[i] for i in range(len(arrays))]


def _thin(tensor: Any) -> Any:
    """Take positions at equal distances of samples with more than `MOST_ELEMENTS`."""
    sizes = list(tensor.shape)[1:]
    if len(sizes) < 2 or None in sizes or math.prod(sizes) < 2 * MOST_ELEMENTS:
        return tensor
    rows = ops.reshape(tensor, (-1, math.prod(sizes[:-1]), sizes[-1]))
    return rows[:, :: math.prod(sizes) // MOST_ELEMENTS]


class Profile(NamedTuple):
    """What is measured of a target for the loss of the best constant prediction.

    Of classes, these are the frequencies of each; of features, means, variances and the share of
    rows that are distributions: not negative, with a sum of 1.
    """

    size: int  # number of classes or features
    are_classes: bool

    @classmethod
    def of(cls, target: Shape, prediction: Shape) -> Self | None:
        """Choose the profile of a target by its shape and its prediction's, the batch first.

        Its elements are numbers of classes where the prediction has an axis more, or a longer last
        one. There is none for more than `MOST_CLASSES` classes or `MOST_FEATURES` features.
        """
        width = target[-1] if len(target) > 1 else 1
        units = prediction[-1] if prediction else None
        are_classes = (units or 0) > 1 and (len(target) == len(prediction) - 1 or width == 1)
        size = units if are_classes else width
        most = MOST_CLASSES if are_classes else MOST_FEATURES
        return cls(size, are_classes) if size and size <= most else None

    @property
    def length(self) -> int:
        """Number of its numbers."""
        return self.size if self.are_classes else 2 * self.size + 1

    def measure(self, target: Any, weight: Any = None) -> Any:
        """Measure a batch of targets, each sample by its weight, if that is positive: (length,)."""
        values = ops.cast(target, "float32")
        width = 1 if self.are_classes else self.size
        rows = ops.reshape(values, (-1, width))
        counted = ops.ones_like(rows[:, :1])
        if weight is not None:
            counted = counted * ops.maximum(ops.cast(ops.reshape(weight, (-1, 1)), "float32"), 0.0)

        def average(numbers: Any) -> Any:
            return ops.sum(numbers * counted, axis=0) / ops.sum(counted)

        if self.are_classes:
            return average(ops.cast(rows == ops.arange(self.size, dtype="float32"), "float32"))
        is_one = ops.abs(ops.sum(rows, axis=1, keepdims=True) - 1) < _SUM_TOLERANCE
        are_shares = ops.logical_and(is_one, ops.min(rows, axis=1, keepdims=True) >= 0)
        mean = average(rows)
        numbers = [mean, average(ops.square(rows - mean)), average(ops.cast(are_shares, "float32"))]
        return ops.concatenate(numbers, axis=0)

    def read(self, numbers: np.ndarray) -> TargetBatch:
        """Return the numbers of a batch as `TargetStatistics` takes them."""
        if self.are_classes:
            return TargetBatch(np.zeros(1), np.zeros(1), 0.0, numbers.astype(np.float64))
        mean, variance, share = np.split(numbers.astype(np.float64), [self.size, 2 * self.size])
        return TargetBatch(mean, variance, float(share[0]), np.zeros(0))
