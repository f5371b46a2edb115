"""JSON of a log, which may come from anywhere: objects with a version and known fields."""

import json
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

Checks = Mapping[str, Callable[[Any], bool]]


def refuse(rule: str, received: object) -> NoReturn:
    """Refuse what a log holds; say what must hold."""
    text = received if isinstance(received, str) else reprlib.repr(received)
    raise ValueError(
        f"{rule}. Received: {text}. Read it with the keras-initkit that wrote it, or copy the log "
        "again from where it was written."
    )


def load_object(text: str | bytes, version: int, checks: Checks, what: str) -> dict[str, Any]:
    """Read a JSON object of a version, with these fields; raise ValueError for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or "version" not in content:
        refuse(f"The {what} must be a JSON object with a version", reprlib.repr(text))
    if content["version"] != version:
        raise ValueError(
            f"The {what} must have version {version}. Received: version "
            f"{reprlib.repr(content['version'])}. Read it with the keras-initkit that wrote it."
        )
    return check_fields(content, checks, what)


def check_fields(item: Any, checks: Checks, what: str) -> dict[str, Any]:
    """Return an object if these are its fields, and each passes its check; or raise ValueError."""
    rule = f"The {what} must have the fields {', '.join(checks)}, as keras-initkit writes them"
    if not isinstance(item, dict) or item.keys() != checks.keys():
        refuse(rule, item)
    for name, is_right in checks.items():
        if not is_right(item[name]):
            refuse(rule, f"{name}={reprlib.repr(item[name])}")
    return item


def is_text(value: Any) -> bool:
    """Check for a string."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Check for an integer from 0 on that fits into 64 bits."""
    return type(value) is int and 0 <= value < 2**63


def is_list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Make a check for a list of items that pass another check."""
    return lambda value: isinstance(value, list) and all(map(check, value))
