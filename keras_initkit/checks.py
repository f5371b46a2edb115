"""Checks of arguments, with one form of error: the rule, the value received, and the fix."""

import itertools
import math
import numbers
from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn


def is_integer(value: object) -> bool:
    """Check for an integer, of Python or NumPy, that is no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Check for a real number that is no bool; NaN and infinity are numbers."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Check for a finite real number that is no bool."""
    return is_number(value) and math.isfinite(value)


def check_count(
    argument: str, value: Any, meaning: str = "", *, least: int = 1, fix: str = ""
) -> int:
    """Return an argument as an int.

    Args:
        argument: Name of the argument.
        value: Its value.
        meaning: Text for the error, after "a positive integer, ": the meaning of the number.
        least: Smallest value allowed.
        fix: Sentence at the end of the error.

    Raises:
        ValueError: If it is no integer, or below `least`.
    """
    if not is_integer(value) or value < least:
        kind = "a positive integer" if least == 1 else f"an integer of {least} or more"
        _raise(argument, value, kind, meaning, fix)
    return int(value)


def check_number(
    argument: str,
    value: Any,
    meaning: str = "",
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    fix: str = "",
) -> float:
    """Return an argument as a float.

    Args:
        argument: Name of the argument.
        value: Its value.
        meaning: Text for the error, after the range: the meaning of the number.
        above: Number below all allowed values, itself not allowed.
        least: Smallest value allowed.
        below: Number above all allowed values, itself not allowed.
        fix: Sentence at the end of the error.

    Raises:
        ValueError: If it is no finite number, or out of range.
    """
    is_allowed = (
        is_finite_number(value)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
    )
    if not is_allowed:
        limits = [
            text
            for text, limit in (
                (f"above {above}", above),
                (f"of {least} or more", least),
                (f"below {below}", below),
            )
            if limit is not None
        ]
        kind = " ".join(["a finite number", " and ".join(limits)]).rstrip()
        _raise(argument, value, kind, meaning, fix)
    return float(value)


def check_choice(argument: str, value: object, choices: Collection[str], fix: str = "") -> str:
    """Return an argument: one of some strings.

    Raises:
        ValueError: If it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices)
        _raise(argument, value, f"one of {names}", "", fix)
    return value


def list_few(values: Iterable[Any], most: int = 5, write: Callable[[Any], str] = repr) -> str:
    """List the first values, with an ellipsis if there are more.

    Example:
    >>> list_few("abc", most=2)
    "'a', 'b', …"
    """
    shown = [write(value) for value in itertools.islice(values, most + 1)]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def _raise(argument: str, value: object, kind: str, meaning: str, fix: str) -> NoReturn:
    rule = f"{kind}, {meaning}" if meaning else kind
    received = f"{argument}={value!r}. {fix}" if fix else f"{argument}={value!r}"
    raise ValueError(f"`{argument}` must be {rule}. Received: {received}")
