"""Engines by name. docs/how_to/several_machines.md shows how others are written."""

from __future__ import annotations

import importlib
import reprlib
from typing import cast

from keras_initkit.adapt.shards import Engine

_PACKAGES = {"dask": "dask", "beam": "apache-beam"}


def find_engine(engine: str | Engine) -> Engine:
    """Find an engine.

    Args:
        engine: `"dask"`, `"beam"`, or a function `engine(shards, reduce)`, returned
            unchanged.

    Raises:
        ValueError: If the name is not known.
        TypeError: If it is neither a name nor a function.
        ImportError: If the package for it is not installed.
    """
    accepted = "`engine` must be 'dask', 'beam' or a function engine(shards, reduce)."
    if not isinstance(engine, str):
        if not callable(engine):
            raise TypeError(
                f"{accepted} Received: engine={reprlib.repr(engine)} of type "
                f"{type(engine).__name__}. A Dask cluster is used by engine='dask' while its "
                "Client is the current one; a Beam runner by engine=beam_engine(options)."
            )
        return engine
    if engine not in _PACKAGES:
        raise ValueError(
            f"{accepted} Received: engine={engine!r}. Pass a function for any other: "
            "Ray and Spark take a few lines, shown in docs/how_to/several_machines.md."
        )
    try:
        module = importlib.import_module(f"keras_initkit.adapt.{engine}")
    except ImportError as error:
        raise ImportError(
            f"`engine={engine!r}` needs the package {_PACKAGES[engine]}. Received: {error}. "
            f"Install it with `pip install 'keras-initkit[{engine}]'`."
        ) from error
    return cast(Engine, module.run)
