"""Selectors of weights: by the layer's class, by path, by name, or by a function."""

import re
from collections.abc import Callable
from typing import Any

from keras_initkit.anatomy.weights import Weight

Selector = type | str | re.Pattern[str] | Callable[[Any, Any], bool] | tuple[Any, ...]

NOWHERE, IN_LAYER, BY_NAME = range(3)


def check_selector(argument: str, selector: Any) -> None:
    """Raise a ValueError unless an argument is a selector."""
    if isinstance(selector, tuple) and selector:
        for part in selector:
            check_selector(argument, part)
        return
    if not ((isinstance(selector, str) and selector) or callable(selector)) and not isinstance(
        selector, re.Pattern
    ):
        raise ValueError(
            f"`{argument}` must select weights: by a class of layers, a name or a part of a path, "
            "a compiled regular expression, a function of the layer and the weight that returns "
            "a bool, or a tuple of these, all of which must hold. "
            f"Received: {selector!r}"
        )


def selects(selector: Selector, weight: Weight) -> int:
    """Say how a selector selects a weight.

    Returns:
        `NOWHERE`; `IN_LAYER` if it says nothing but where the weight is; `BY_NAME` if it depends
        on which of the layer's weights it is.
    """
    if isinstance(selector, tuple):
        parts = [selects(part, weight) for part in selector]
        return NOWHERE if NOWHERE in parts else max(parts)
    if isinstance(selector, type):
        inside = any(isinstance(layer, selector) for layer in weight.layers)
        return IN_LAYER if inside else NOWHERE
    layer, _, _ = weight.path.rpartition("/")
    if isinstance(selector, str):
        if f"/{selector}/" in f"/{layer}/":
            return IN_LAYER
        return BY_NAME if f"/{weight.path}".endswith(f"/{selector}") else NOWHERE
    if isinstance(selector, re.Pattern):
        if selector.search(layer):
            return IN_LAYER
        return BY_NAME if selector.search(weight.path) else NOWHERE
    return BY_NAME if selector(weight.holder, weight.variable) else NOWHERE
