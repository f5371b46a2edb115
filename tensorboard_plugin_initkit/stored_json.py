"""JSON of a log, which may come from anywhere: objects with a version and known fields."""

import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

Checks = Mapping[str, Callable[[Any], bool]]


def load_object(text: str | bytes, version: int, what: str) -> dict[str, Any]:
    """Read a JSON object of a version; raise ValueError if it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "version" not in content:
        raise ValueError(
            f"The {what} must be a JSON object with a version. Received: {reprlib.repr(text)}. "
            "Copy the log again from where it was written."
        )
    if content["version"] != version:
        raise ValueError(
            f"The {what} must have version {version}. Received: version "
            f"{reprlib.repr(content['version'])}. Read it with the keras-initkit that wrote it."
        )
    return content


def check_fields(item: Any, checks: Checks, what: str) -> dict[str, Any]:
    """Return an object with exactly these fields, each of which passes its check.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(item, dict) and item.keys() == checks.keys():
        wrong = [name for name, is_right in checks.items() if not is_right(item[name])]
        received = ", ".join(f"{name}={reprlib.repr(item[name])}" for name in wrong)
    else:
        received = reprlib.repr(item)
    if received:
        raise ValueError(
            f"The {what} must have the fields {', '.join(checks)}, as keras-initkit writes them. "
            f"Received: {received}. Copy the log again from where it was written."
        )
    return dict(item)


def is_text(value: Any) -> bool:
    """Check for a string."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Check for an integer from 0 on that fits into 64 bits."""
    return type(value) is int and 0 <= value < 2**63


def is_list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Make a check for a list of items that pass another check."""
    return lambda value: isinstance(value, list) and all(map(check, value))
