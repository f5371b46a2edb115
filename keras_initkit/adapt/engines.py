"""Engines: readers of shards on several workers. docs/how_to/several_machines.md shows more."""

import copy
import functools
import importlib
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# A reduced shard is its state: small, picklable, with a method `merge(other)` to merge another
# state into it and return it.
Reduce = Callable[[Any], Any]
# A function (shards, reduce) to reduce shards, on workers as a rule, and to merge the states.
# The order of the merges matters only to rounding.
Engine = Callable[[Sequence[Any], Reduce], Any]

_PACKAGES = {"dask": "dask", "beam": "apache-beam"}


def find_engine(engine: str | Engine) -> Engine:
    """Find an engine: `"dask"`, `"beam"`, or a function, returned unchanged.

    Raises:
        ValueError: If the name is not known.
        TypeError: If it is neither a name nor a function.
        ImportError: If the package for it is not installed.
    """
    accepted = "`engine` must be 'dask', 'beam' or a function engine(shards, reduce)."
    if not isinstance(engine, str):
        if not callable(engine) or isinstance(engine, type):
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
        run: Engine = importlib.import_module(f"keras_initkit.adapt.{engine}").run
    except ImportError as error:
        raise ImportError(
            f"`engine={engine!r}` needs the package {_PACKAGES[engine]}. Received: {error}. "
            f"Install it with `pip install 'keras-initkit[{engine}]'`."
        ) from error
    return run


def list_shards(shards: Iterable[Any]) -> list[Any]:
    """List the shards; there must be one."""
    listed = list(shards)
    if not listed:
        raise ValueError(
            "`shards` must hold at least one shard. Received: none. Check the pattern of the "
            "paths, or what filtered them out."
        )
    return listed


def reduce_shard(reduce: Reduce, count: int, place: int, shard: Any) -> Any:
    """Reduce one of `count` shards; an error has a note of its place."""
    try:
        return reduce(shard)
    except Exception as error:
        error.add_note(f"This was in shards[{place}] of {count}: {reprlib.repr(shard)}")
        raise


def merge_states(states: Iterable[Any]) -> Any:
    """Merge states into a copy of the first: a worker may run a task again on the same ones."""
    first, *others = states
    return functools.reduce(lambda state, other: state.merge(other), others, copy.deepcopy(first))
