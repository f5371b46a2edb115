"""Checks of a monitor's arguments: each says what must hold, what was received, and the fix."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

# What can be left out, and what is measured for it.
OPTIONAL_STATISTICS = {
    "mean_abs": ("mean_abs",),
    "max_abs": ("max_abs",),
    "zeros": ("zeros",),
    "dead_units": ("dead_units", "zeros"),
    "weight_norm": ("weight_norm",),
    "update_ratio": ("weight_norm", "update_norm"),
}
_ALWAYS = ("norm", "nonfinite", "clip_ratio", "local_norm")


def measured_statistics(statistics: Iterable[str] | None) -> frozenset[str]:
    """Names of `schema.MEASURED` that an argument `statistics` asks for.

    Raises:
        ValueError: If it is not a list of names of `OPTIONAL_STATISTICS`, or None for all.
    """
    names = OPTIONAL_STATISTICS if statistics is None else statistics
    is_names = isinstance(names, Iterable) and not isinstance(names, str)
    if not is_names or not all(name in OPTIONAL_STATISTICS for name in names):
        raise ValueError(
            "`statistics` must be a list of names out of "
            f"{', '.join(map(repr, OPTIONAL_STATISTICS))}, or None for all. Received: "
            f"statistics={statistics!r}. Norms and counts of non-finite elements are always "
            "recorded: write `statistics=[]` for these alone."
        )
    return frozenset(_ALWAYS).union(*(OPTIONAL_STATISTICS[name] for name in names))


def checked_per(per: Any) -> str:
    """Check an argument `per`.

    Raises:
        ValueError: If it is neither "layer" nor "variable".
    """
    if per not in ("layer", "variable"):
        raise ValueError(
            '`per` must be "layer", or "variable" to count every variable as a layer of its own. '
            f"Received: per={per!r}."
        )
    return per


def checked_count(name: str, value: Any, meaning: str) -> int:
    """Check an argument that is a number of something: an integer, 0 or more; a bool is 0 or 1.

    Args:
        name: The argument's.
        value: What was received.
        meaning: What it stands for, to say in the error.

    Raises:
        ValueError: If it is no such number.
    """
    if not isinstance(value, Integral) or value < 0:
        raise ValueError(
            f"`{name}` must be {meaning}, an integer of 0 or more. Received: {name}={value!r}. "
            f"Write `{name}=0` for none."
        )
    return int(value)
