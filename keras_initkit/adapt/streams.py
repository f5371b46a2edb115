"""Streams of batches, as `fit()` takes them."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import keras

from keras_initkit.adapt.arrays import batch_shape, is_instance, map_arrays
from keras_initkit.adapt.errors import refuse_endless
from keras_initkit.adapt.reader import OpenData, Reader, split_batch


def open_tf_dataset(data: Any, reader: Reader) -> OpenData:
    """Open a `tf.data.Dataset`; it must be batched, as for `fit()`."""
    _check_alone(reader)
    cardinality = int(data.cardinality())
    infinite = sys.modules["tensorflow"].data.INFINITE_CARDINALITY
    if cardinality == infinite and not reader.reading.is_limited:
        refuse_endless("an infinite `tf.data.Dataset`", "`dataset.take(number_of_batches)`")
    specs = [spec for spec in keras.tree.flatten(data.element_spec) if hasattr(spec, "shape")]
    if any(spec.shape.rank == 0 or getattr(spec, "ragged_rank", 1) == 0 for spec in specs):
        raise ValueError(
            "`data` must be batched if it is a `tf.data.Dataset`, as for `fit()`. Received: a "
            f"dataset of single rows, with scalars: {data.element_spec}. Pass "
            "`dataset.batch(1024)`."
        )
    x, *_ = split_batch(data.element_spec)
    x_specs = keras.tree.flatten(x)
    rows = shape = None
    if all(spec in specs and spec.shape.rank is not None for spec in x_specs):
        shape = map_arrays(batch_shape, x)
        size = x_specs[0].shape[0]
        rows = cardinality * size if cardinality > 0 and size is not None else None
    return reader.open(data, "a `tf.data.Dataset`", rows=rows, shape=shape)


def open_distributed_dataset(data: Any, reader: Reader) -> OpenData:
    """Open the dataset of a `tf.distribute.Strategy`: each replica's part is a batch."""
    _check_alone(reader)
    cardinality = data.cardinality
    cardinality = int(cardinality() if callable(cardinality) else cardinality)
    if cardinality == -1 and not reader.reading.is_limited:
        refuse_endless("an infinite `DistributedDataset`", "`.take()` before it is distributed")
    batches = itertools.chain.from_iterable(map(_split_replicas, data))
    return reader.open(batches, "a `DistributedDataset`")


def open_py_dataset(data: Any, reader: Reader) -> OpenData:
    """Open a `keras.utils.PyDataset`."""
    _check_alone(reader)
    try:
        length = data.num_batches
    except NotImplementedError:
        length = None
    if length is None and not reader.reading.is_limited:
        refuse_endless(
            "a `PyDataset` without a length", "define `__len__()`, the number of batches"
        )
    indices = itertools.count() if length is None else range(length)
    return reader.open((data[i] for i in indices), f"a {type(data).__name__}")


def open_data_loader(data: Any, reader: Reader) -> OpenData:
    """Open a PyTorch `DataLoader`; a list is a batch `[x, y, ...]`."""
    _check_alone(reader)
    batches = (tuple(batch) if isinstance(batch, list) else batch for batch in data)
    return reader.open(batches, "a `DataLoader`")


def open_iterable(data: Any, reader: Reader) -> OpenData:
    """Open a generator, a list of batches, or any other iterable."""
    _check_alone(reader)
    return reader.open(data, f"an object of type {type(data).__name__}")


def _split_replicas(batch: Any) -> list[Any]:
    """Take a batch of per-replica values apart."""

    def is_distributed(value: Any) -> bool:
        return is_instance(value, "tensorflow", "distribute.DistributedValues")

    def pick(replica: int) -> Any:
        return map_arrays(lambda x: x.values[replica] if is_distributed(x) else x, batch)

    counts = [len(x.values) for x in keras.tree.flatten(batch) if is_distributed(x)]
    return [pick(replica) for replica in range(max(counts, default=1))]


def _check_alone(reader: Reader) -> None:
    """Check that no mask or weights are given beside a stream."""
    fixes = {
        "mask": "Use `mask_value=`, or yield masked arrays (`np.ma.MaskedArray`).",
        "sample_weight": "Yield tuples `(x, y, sample_weight)`.",
    }
    for name, fix in fixes.items():
        if getattr(reader.reading, name) is not None:
            raise ValueError(
                f"`{name}` must come with arrays or tables given whole. Received: `{name}` "
                f"beside a stream of batches. {fix}"
            )
