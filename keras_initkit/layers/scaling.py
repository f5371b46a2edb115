"""Location and scale of features: from their statistics, and as a type of numbers holds them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

METHODS = ("standard", "min_max")

# Distances of neighbouring numbers of the type at a feature's mean, in its standard deviations,
# that are worth a warning: rounding then adds 3 % to the deviations.
_COARSE = 0.1
# An error of the mean, in standard deviations, that is worth an operation.
_REST_THAT_SHOWS = 1e-4


class Scaling(NamedTuple):
    """Location and scale of features, arrays of shape `(features,)`.

    Attributes:
        location: Becomes 0.
        scale: Becomes 1; it is 0 for features that are shifted only.
        is_constant: Features of one value.
        is_flat: Features that vary, by less than the type of numbers can hold.
    """

    location: FloatArray
    scale: FloatArray
    is_constant: BoolArray
    is_flat: BoolArray


def compute_scaling(
    moments: Any, dtype: str, method: str = "standard", feature_range: Sequence[float] = (0, 1)
) -> Scaling:
    """Compute location and scale of features from `Moments`, for "min_max" with extremes.

    Raises:
        ValueError: If `dtype` can't hold the location and the square of the scale.
    """
    limits = ml_dtypes.finfo(dtype)
    if method == "standard":
        location, scale = moments.mean, np.sqrt(moments.variance)
    else:
        low, high = feature_range
        scale = (moments.max - moments.min) / (high - low)
        location = moments.min - low * scale
    with np.errstate(over="ignore"):
        variance = np.square(scale)
    is_flat = (variance < float(limits.tiny)) & ~moments.constant
    largest = np.fmax(np.abs(location), variance)
    # A variance that overflows even float64 is NaN, as is one of a feature with NaN.
    overflows = np.isnan(largest) & (moments.nan_count == 0)
    if overflows.any() or np.nanmax(largest, initial=0.0) > float(limits.max):
        mean, deviation = (np.nanmax(np.abs(x), initial=0.0) for x in (location, scale))
        raise ValueError(
            f"`data` must have a mean and a variance that {dtype} can hold. Received: "
            f"means up to {mean:.6g} and standard deviations up to {deviation:.6g}. "
            "Divide the data by a constant, or use a layer of a wider type, such as "
            "`Normalization(dtype='float64')`."
        )
    scale = np.where(moments.constant | is_flat, 0.0, scale)
    return Scaling(location, scale, moments.constant, is_flat)


def describe_problems(
    scaling: Scaling, dtype: str, method: str, names: Callable[[BoolArray], str]
) -> Iterator[str]:
    """Yield a warning for each group of features with a problem: constant, flat, or too coarse.

    `names` lists the features for which an array is true.
    """
    constant, flat = scaling.is_constant, scaling.is_flat
    if constant.any():
        yield (
            f"{constant.sum()} of {constant.size} features are constant and come out as 0: "
            f"{names(constant)}. Leave them out."
        )
    if flat.any():
        yield (
            f"{flat.sum()} of {flat.size} features vary, but method={method!r} finds no scale for "
            f"them in {dtype}: {names(flat)}. They are only shifted. Use another method, or "
            "multiply them by a constant."
        )
    steps = np.zeros(flat.shape)
    varies = scaling.scale > 0
    steps[varies] = np.spacing(np.abs(scaling.location[varies]).astype(dtype))
    steps[varies] /= scaling.scale[varies]
    coarse = steps > _COARSE
    if coarse.any() and dtype != "float64":
        yield (
            f"{dtype} can't resolve {coarse.sum()} of {coarse.size} features, whose means are far "
            f"larger than their deviations: {names(coarse)}. Neighbouring {dtype} numbers are up "
            f"to {steps.max():.2g} standard deviations apart. Subtract a constant before the cast "
            f"to {dtype}, or use float64 throughout: `Normalization(dtype='float64')`."
        )


def find_rest(scaling: Scaling, rounded: FloatArray) -> FloatArray | None:
    """Return what rounding left of the locations; `None` if it does not show in any feature."""
    # A constant must come out as exactly 0.
    rest = np.where(scaling.scale > 0, scaling.location - rounded, 0.0)
    return rest if (np.abs(rest) > _REST_THAT_SHOWS * scaling.scale).any() else None
