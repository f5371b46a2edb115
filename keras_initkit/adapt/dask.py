"""An engine on Dask."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from dask import delayed, is_dask_collection
from dask.delayed import Delayed

from keras_initkit.adapt.engines import Reduce, list_shards, merge_states, reduce_shard

_MERGED_AT_ONCE = 8  # states, by one task, in memory together


def run(shards: Sequence[Any], reduce: Reduce) -> Any:
    """Reduce each shard in a Dask task of its own, and merge the states in a tree.

    It runs on the current `dask.distributed.Client` if there is one, else on Dask's default
    scheduler: threads, or by `dask.config.set(scheduler=…)`. Shards may be `Delayed`, or
    partitions of a Dask collection, reduced where they are computed.
    """
    parts = list_shards(_list_partitions(shards) if is_dask_collection(shards) else shards)
    # Impure tasks have random keys: shards need not be hashed.
    read, merge = delayed(reduce_shard, pure=False), delayed(merge_states, pure=False)
    states = [read(reduce, len(parts), place, part) for place, part in enumerate(parts)]
    while len(states) > 1:
        starts = range(0, len(states), _MERGED_AT_ONCE)
        states = [merge(states[start : start + _MERGED_AT_ONCE]) for start in starts]
    return states[0].compute()


def _list_partitions(collection: Any) -> Iterable[Any]:
    """List a collection's partitions; an array cut along other axes is joined into whole rows."""
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
