"""Wording of messages."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any


def list_few(values: Iterable[Any], most: int = 5, write: Callable[[Any], str] = repr) -> str:
    """List the first values, with an ellipsis if there are more.

    Example:
    >>> list_few("abc", most=2)
    "'a', 'b', …"
    """
    shown = [write(value) for value in itertools.islice(values, most + 1)]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")
