"""Shared by all engines: reducing a shard to its state, and merging states."""

from __future__ import annotations

import copy
import functools
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, Self


class State(Protocol):
    """The statistics of a shard; small, and picklable."""

    def merge(self, other: Self) -> Self:
        """Merge another state into this one, and return both; the other is left as it is."""


Reduce = Callable[[Any], State]


class Engine(Protocol):
    """A function to reduce shards, on workers as a rule, and merge the states.

    Shards, states and `reduce` are picklable. The order of the merges matters only to rounding.
    """

    def __call__(self, shards: Sequence[Any], reduce: Reduce) -> Any:
        """Return the merged state of all shards."""


def list_shards(shards: Iterable[Any]) -> list[Any]:
    """List the shards.

    Raises:
        ValueError: If there is none.
    """
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


def merge_states(states: Iterable[State]) -> Any:
    """Merge states into a copy of the first: a worker may run a task again on the same ones."""
    first, *others = states
    return functools.reduce(lambda state, other: state.merge(other), others, copy.deepcopy(first))
