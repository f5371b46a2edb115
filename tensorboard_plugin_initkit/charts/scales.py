"""The title of each statistic, and the range of its axis or colours."""

from typing import NamedTuple


class Scale(NamedTuple):
    """Title and range of a statistic; the range is fixed: runs can be compared."""

    title: str
    low: float
    high: float
    log: bool = True


SCALES = {
    "signal": Scale("signal reaching the units (RMS)", 1e-9, 1e1),
    "rms": Scale("RMS of the gradient", 1e-9, 1e1),
    "norm": Scale("norm of the gradient", 1e-8, 1e2),
    "mean_abs": Scale("mean size of the gradient's elements", 1e-9, 1e1),
    "max_abs": Scale("largest element of the gradient", 1e-8, 1e2),
    "raw_norm": Scale("norm before clipping", 1e-8, 1e2),
    "local_norm": Scale("norm of one replica's gradient", 1e-8, 1e2),
    "weight_norm": Scale("norm of the weights", 1e-3, 1e3),
    "update_ratio": Scale("size of the update relative to the weights", 1e-8, 1e0),
    "snr": Scale("signal-to-noise ratio", 1e-3, 1e1),
    "nonfinite": Scale("NaN or Inf elements", 1e0, 1e8),
    "zeros": Scale("share of exact zeros", 0, 1, log=False),
    "dead_units": Scale("share of dead units", 0, 1, log=False),
    "clip_ratio": Scale("share of the norm left by clipping", 0, 1, log=False),
    "cosine": Scale("cosine with the previous gradient", -1, 1, log=False),
}


def scale_of(statistic: str, limits: tuple[float, float] | None = None) -> Scale:
    """Return the scale of a statistic, perhaps with other limits.

    Raises:
        ValueError: If the limits do not increase, or are not positive on a log axis.
    """
    scale = SCALES.get(statistic, Scale(statistic, 1e-9, 1e1))
    if limits is None:
        return scale
    low, high = limits
    if not low < high or (scale.log and low <= 0):
        raise ValueError(
            "`limits` must be increasing, and positive for a statistic on a logarithmic scale. "
            f"Received: limits={limits!r} of {statistic!r}. Write for example limits=(1e-6, 1)."
        )
    return scale._replace(low=low, high=high)
