"""Selectors: the language to choose layers, for the monitor, the probe and whole models.

A selector is one of:

- a class of layers: selects its layers, those of its subclasses, and all layers inside them;
- a string: a layer's name, or a part of its path; selects the layers inside it, too. Layers of
  one name in one place are numbered, "conv" and "conv#2": "conv" selects both;
- a compiled regular expression, searched for in the layer's path;
- a function of the layer itself, neither of those around it nor inside it, to a bool;
- a list of selectors: any of them selects;
- a tuple of selectors: all of them must select.

Where single weights are selected, strings and regular expressions may name a weight as well:
"conv1/kernel", or ("conv1", "kernel").
"""

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_initkit.anatomy.weights import Place

Selector = (
    type | str | re.Pattern[str] | Callable[[Any], bool] | list["Selector"] | tuple["Selector", ...]
)

_NUMBER = re.compile(r"#\d+$")


class Match(enum.IntEnum):
    """How a selector selects a weight: not, by its layer, or by its own name."""

    NONE = 0
    LAYER = 1
    WEIGHT = 2


class SelectionError(ValueError):
    """A selector selects nothing: an error that goes through all guards, before a training."""


class Selection:
    """The layers selected by an argument of the user: a selector, or `None` for all."""

    def __init__(self, argument: str, selector: Any) -> None:
        if selector is not None:
            check_selector(argument, selector)
        self.selector = selector

    def __call__(self, places: Sequence[Place], weight: str = "") -> bool:
        """Check if a layer, or a weight in it, is selected; arguments as for `match`."""
        return self.selector is None or match(self.selector, places, weight) != Match.NONE

    def find_idle(self, layers: Iterable[Sequence[Place]]) -> list[Selector]:
        """List the selectors, each of a list by itself, that select none of some layers."""
        places, parts = list(layers), self.selector
        parts = [] if parts is None else parts if isinstance(parts, list) else [parts]
        return [part for part in parts if not any(match(part, own) for own in places)]


def check_selector(argument: str, selector: Any) -> None:
    """Raise a ValueError unless an argument is a selector."""
    if not _is_selector(selector):
        raise ValueError(
            f"`{argument}` must select layers: by a class of layers, a name or a part of a path, "
            "a compiled regular expression to be searched for in the path, a function of the "
            "layer that returns a bool, a list of these of which any may hold, or a tuple of "
            f"which all must hold. Received: {argument}={selector!r}. Write for example "
            "`re.compile('conv')` for every layer with conv in its path."
        )


def match(selector: Selector, places: Sequence[Place], weight: str = "") -> Match:
    """Say how a selector selects a layer by any of its places, or a weight in it by its name."""
    return max(_match_at(place, selector, weight) for place in places)


def _match_at(place: Place, selector: Selector, weight: str) -> Match:
    layers, path, _ = place
    if isinstance(selector, list):
        return max(_match_at(place, part, weight) for part in selector)
    if isinstance(selector, tuple):
        matches = [_match_at(place, part, weight) for part in selector]
        return Match.NONE if Match.NONE in matches else max(matches)
    if isinstance(selector, type):
        return Match(any(isinstance(layer, selector) for layer in layers))
    if isinstance(selector, str):
        return _match_name(selector, path, weight)
    if isinstance(selector, re.Pattern):
        if selector.search(path):
            return Match.LAYER
        is_named = weight and selector.search(f"{path}/{weight}".lstrip("/"))
        return Match.WEIGHT if is_named else Match.NONE
    return Match(bool(selector(layers[-1])))


def _is_selector(selector: Any) -> bool:
    if isinstance(selector, list | tuple):
        return bool(selector) and all(map(_is_selector, selector))
    if isinstance(selector, str):
        return bool(selector)
    return isinstance(selector, re.Pattern) or callable(selector)


def _match_name(name: str, path: str, weight: str) -> Match:
    parts, inside = name.split("/"), path.split("/")
    if any(_are_called(parts, inside[start : start + len(parts)]) for start in range(len(inside))):
        return Match.LAYER
    is_named = weight and _are_called(parts, [*inside, weight][-len(parts) :])
    return Match.WEIGHT if is_named else Match.NONE


def _are_called(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Compare names with parts of a path; a name may leave out the number of a part."""
    return len(names) == len(parts) and all(
        name in (part, _NUMBER.sub("", part)) for name, part in zip(names, parts, strict=True)
    )
