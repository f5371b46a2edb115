"""Engines that reduce the shards of a data set, each on a worker of its own, and merge the results.

An engine is a function of the shards, of `reduce` and of `merge`; what they compute is no concern
of it. docs/how_to/several_machines.md shows how others are written.
"""

from __future__ import annotations

import copy
import functools
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

State = TypeVar("State")

# As many states are merged by one task: each needs memory of them all.
_MERGED_AT_ONCE = 8


class Engine(Protocol):
    """A function that computes `merge(…merge(reduce(a), reduce(b))…)` over shards.

    `merge` is associative but for rounding. It may change its first argument and return it, and
    leaves the second one as it is. An engine calls both on workers as a rule, so that shards,
    states and the two functions must be picklable.
    """

    def __call__(
        self,
        shards: Sequence[Any],
        reduce: Callable[[Any], State],
        merge: Callable[[State, State], State],
    ) -> State:
        """Returns the merged state of all shards."""


def engine_of(engine: str | Engine) -> Engine:
    """Finds the engine of a name.

    Args:
        engine: `"dask"`, `"beam"` or a function `engine(shards, reduce, merge)`, which is
            returned as it is.

    Returns:
        A function.

    Raises:
        ValueError: If the name is not known.
        TypeError: If it is neither a name nor a function.
    """
    accepted = "`engine` must be 'dask', 'beam' or a function engine(shards, reduce, merge)."
    if isinstance(engine, str):
        if engine not in _ENGINES:
            raise ValueError(
                f"{accepted} Received: engine={engine!r}. Pass a function for any other: "
                "Ray and Spark take a few lines, shown in docs/how_to/several_machines.md."
            )
        return _ENGINES[engine]
    if not callable(engine):
        raise TypeError(
            f"{accepted} Received: engine={reprlib.repr(engine)} of type "
            f"{type(engine).__name__}. A Dask cluster is used by engine='dask' while its Client "
            "is the current one; a Beam runner by engine=beam_engine(options)."
        )
    return engine


def dask(
    shards: Sequence[Any],
    reduce: Callable[[Any], State],
    merge: Callable[[State, State], State],
) -> State:
    """Reduces each shard in a Dask task of its own, and merges the states in a tree.

    It runs on the current `dask.distributed.Client` if there is one, else on Dask's default
    scheduler: threads, or what `dask.config.set(scheduler=…)` says.

    Args:
        shards: Shards, `Delayed` ones too, or a Dask collection: of an array, data frame or bag
            each partition is a shard, which the task that computes it reduces. Blocks of an
            array that are cut along other axes than the first are joined into whole rows.
        reduce: Function of a shard that returns a state.
        merge: Function that merges the second state into the first.

    Returns:
        The merged state.

    Raises:
        ImportError: If Dask is not installed.
        TypeError: If a Dask collection has no partitions.
        ValueError: If there is no shard.
    """
    try:
        from dask import delayed, is_dask_collection
    except ImportError as error:
        raise ImportError(
            f"`engine='dask'` needs the package dask. Received: {error}. "
            "Install it with `pip install 'keras-initkit[dask]'`."
        ) from error
    parts = at_least_one(_partitions(shards) if is_dask_collection(shards) else shards)
    # Impure tasks have random keys: shards need not be hashed.
    read = delayed(functools.partial(_reduce_one, reduce, len(parts)), pure=False)
    join = delayed(functools.partial(_merge_all, merge), pure=False)
    states = [read(place, part) for place, part in enumerate(parts)]
    while len(states) > 1:
        states = [
            join(states[start : start + _MERGED_AT_ONCE])
            for start in range(0, len(states), _MERGED_AT_ONCE)
        ]
    return states[0].compute()


def beam(
    shards: Sequence[Any],
    reduce: Callable[[Any], State],
    merge: Callable[[State, State], State],
) -> State:
    """Reduces shards in a Beam pipeline on this machine.

    `keras_initkit.adapt.beam.beam_engine()` is the same on any other runner.

    Args:
        shards: Shards; a `PCollection` is combined by
            `keras_initkit.adapt.beam.MomentsFn` in a pipeline of one's own.
        reduce: Function of a shard that returns a state.
        merge: Function that merges the second state into the first.

    Returns:
        The merged state.

    Raises:
        ImportError: If Beam is not installed.
        RuntimeError: If a shard can't be reduced; the message holds the error and the shard.
        ValueError: If there is no shard.
    """
    try:
        from keras_initkit.adapt.beam import beam_engine
    except ImportError as error:
        raise ImportError(
            f"`engine='beam'` needs the package apache-beam. Received: {error}. "
            "Install it with `pip install 'keras-initkit[beam]'`."
        ) from error
    return beam_engine()(shards, reduce, merge)


_ENGINES: dict[str, Engine] = {"beam": beam, "dask": dask}


def at_least_one(shards: Iterable[Any]) -> list[Any]:
    """The shards as a list, which must not be empty: of what would its state be?"""
    parts = list(shards)
    if not parts:
        raise ValueError(
            "`shards` must hold at least one shard. Received: none. Check the pattern of the "
            "paths, or what filtered them out."
        )
    return parts


def place_of(place: int, count: int, shard: Any) -> str:
    """What a message about a shard says of it."""
    return f"This was in shards[{place}] of {count}: {reprlib.repr(shard)}"


def _reduce_one(reduce: Callable[[Any], State], count: int, place: int, shard: Any) -> State:
    try:
        return reduce(shard)
    except Exception as error:
        error.add_note(place_of(place, count, shard))
        raise


def _merge_all(merge: Callable[[State, State], State], states: Sequence[State]) -> State:
    # A copy, for Dask may run a task again on the same inputs.
    return functools.reduce(merge, states[1:], copy.deepcopy(states[0]))


def _partitions(collection: Any) -> Iterable[Any]:
    """A Dask collection's own partitions, each of them whole rows."""
    from dask.delayed import Delayed

    if isinstance(collection, Delayed):  # has any attribute
        return [collection]
    if not hasattr(collection, "to_delayed"):
        raise TypeError(
            "`shards` must be a sequence, or a Dask array, data frame, bag or Delayed. "
            f"Received: {type(collection).__name__}. Pass what it is made of, e.g. the `.data` "
            "of an xarray.DataArray."
        )
    if any(len(sizes) > 1 for sizes in getattr(collection, "chunks", ())[1:]):
        collection = collection.rechunk(dict.fromkeys(range(1, collection.ndim), -1))
    parts = collection.to_delayed()
    return parts.flat if isinstance(parts, np.ndarray) else parts
