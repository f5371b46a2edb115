"""Selections: which layers are recorded."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

_NUMBER = re.compile(r"#\d+$")

Selection = Callable[[str], bool]
Selector = str | re.Pattern[str] | Selection


def as_selection(layers: Selector | Sequence[Selector] | None) -> Selection:
    """Make one function of a layer's path of an argument `layers`.

    Args:
        layers: What selects layers: a name or path, a compiled regular expression that is
            searched for in the path, or a function of the path; or several of these, of which
            any may select a layer. `None` selects all.

    Raises:
        ValueError: If it is none of these.
    """
    if layers is None:
        return _selects_any
    is_one = isinstance(layers, str | re.Pattern) or not isinstance(layers, Sequence)
    selectors: Sequence[Any] = [layers] if is_one else layers  # type: ignore[assignment]
    if not selectors or not all(_is_selector(selector) for selector in selectors):
        raise ValueError(
            "`layers` must be a layer's name or path, a compiled regular expression, a function "
            "that says for a layer's path (str) whether to record it, a list of these, or None "
            f"for all layers. Received: layers={layers!r}. Write `layers=re.compile('conv')` to "
            "record every layer that has conv in its path."
        )
    return functools.partial(_any_selects, selectors)


def _is_selector(selector: Any) -> bool:
    is_name = isinstance(selector, str) and bool(selector)
    return is_name or isinstance(selector, re.Pattern) or callable(selector)


def _selects_any(path: str) -> bool:
    return True


def _any_selects(selectors: Sequence[Selector], path: str) -> bool:
    return any(_selects(selector, path) for selector in selectors)


def _selects(selector: Selector, path: str) -> bool:
    if isinstance(selector, str):
        # Layers of one name and place are told apart by a number: both are called so.
        return any(f"/{selector}/" in f"/{name}/" for name in (path, _NUMBER.sub("", path)))
    if isinstance(selector, re.Pattern):
        return bool(selector.search(path))
    return bool(selector(path))
