"""Replacing attributes of one instance for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced_methods(target: Any, **methods: Any) -> Iterator[None]:
    """Replace methods, or attributes, on one instance for the duration of the context."""
    attributes = vars(target)  # past the tracking that Keras's __setattr__ does
    former = {name: attributes[name] for name in methods if name in attributes}
    attributes.update(methods)
    try:
        yield
    finally:
        for name in methods:
            del attributes[name]
        attributes.update(former)
