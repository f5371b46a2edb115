"""The data of a check: a batch for one step, and more rows to measure."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.adapt.arrays import is_instance, is_ragged, map_arrays, shape_of, to_numpy

# Of arrays as many rows are measured as have so many numbers, but at least some rows.
_MOST_NUMBERS, _LEAST_ROWS = 1 << 18, 8
# Of a stream so many batches are read; for a training, so many at most.
_BATCHES, _MOST_STEPS = 8, 64

Batch = tuple[Any, Any, Any]


class Sample(NamedTuple):
    """Inputs, targets and sample weights.

    Attributes:
        batch: Those of one step: `(x, y, sample_weight)`.
        rows: The same of more rows.
    """

    batch: Batch
    rows: Batch


def draw_training(
    x: Any, y: Any, sample_weight: Any, batch_size: int, steps: int, seed: int
) -> tuple[Batch, int]:
    """Draw the data of a short training: shuffled rows in whole batches, and the size of these.

    There are fewer of them than steps where data are short, or very many. Errors are those of
    `draw_sample`.
    """
    count = min(steps, _MOST_STEPS)
    sample = draw_sample(x, y, sample_weight, count * batch_size, count)
    rows = sample.rows if is_stream(x) else sample.batch
    first, whole = (int(shape_of(_leaves(data)[0])[0]) for data in (sample.batch, rows))
    size = first if is_stream(x) else min(batch_size, whole)
    order = np.random.default_rng(seed).permutation(whole)[: whole - whole % size]
    return map_arrays(lambda array: None if array is None else array[order], rows), size


def draw_sample(
    x: Any, y: Any, sample_weight: Any, batch_size: int, batches: int = _BATCHES
) -> Sample:
    """Take a sample of data as `fit` takes them.

    Of arrays, rows are taken evenly over all of them: they may be sorted. Where rows with NaN or
    infinite numbers are among those measured, the batch has one. Of a stream the first batches are
    taken, and a generator has lost them.

    Raises:
        ValueError: If there are no data, or both a stream and targets.
    """
    if is_stream(x):
        if y is not None or sample_weight is not None:
            name = "y" if y is not None else "sample_weight"
            raise ValueError(
                f"`{name}` must come in the batches of `x` if that is a stream. Received: `{name}` "
                f"beside a {type(x).__name__}. Yield tuples `(x, y, sample_weight)`."
            )
        return _sample_stream(x, batches)
    whole = map_arrays(_prepare, (x, y, sample_weight))
    sizes = {int(shape_of(array)[0]) for array in _leaves(whole)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "`x`, `y` and `sample_weight` must have the same number of rows, at least one. "
            f"Received: arrays of {', '.join(map(str, sorted(sizes))) or 'no'} rows. Look at what "
            "made them."
        )
    count = sizes.pop()
    rows = map_arrays(lambda array: _take_rows(array, _place_rows(array, count)), whole)
    places = _spread(count, batch_size)
    if (spoilt := _find_spoilt(rows, count)) is not None:
        places = np.unique([spoilt, *places[1:]])
    return Sample(map_arrays(lambda array: _take_rows(array, places), whole), rows)


def is_stream(x: Any) -> bool:
    """Check for a stream of batches, as opposed to arrays."""
    if isinstance(x, keras.utils.PyDataset) or is_instance(x, "tensorflow", "data.Dataset"):
        return True
    return not isinstance(x, dict | list | tuple) and not hasattr(x, "shape")


def _sample_stream(stream: Any, count: int) -> Sample:
    found: list[Batch] = []
    for batch in itertools.islice(_batches(stream, count), count):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        found.append(map_arrays(_as_array, (x, y, weight)))
    if not found:
        raise ValueError(
            f"`x` must yield at least one batch. Received: an empty {type(stream).__name__}. A "
            "generator that was read before is empty: make a new one."
        )
    return Sample(found[0], keras.tree.map_structure(_join, *found))


def _batches(stream: Any, count: int) -> Iterator[Any]:
    if isinstance(stream, keras.utils.PyDataset):
        length = stream.num_batches
        return (stream[i] for i in range(count if length is None else length))
    return iter(stream)


def _join(*arrays: Any) -> Any:
    """Join the arrays of several batches; only the first is kept of what cannot be joined."""
    if not all(isinstance(a, np.ndarray) and a.shape[1:] == arrays[0].shape[1:] for a in arrays):
        return arrays[0]
    return np.concatenate(arrays)


def _prepare(array: Any) -> Any:
    """Return an array to take rows of; those of h5py stay on the disk."""
    return array if array is None or is_instance(array, "h5py", "Dataset") else to_numpy(array)


def _leaves(structure: Any) -> list[Any]:
    leaves: list[Any] = []
    map_arrays(lambda array: leaves.append(array) if array is not None else None, structure)
    return leaves


def _place_rows(array: Any, count: int) -> np.ndarray:
    """Return the places of the rows to measure, of an array with so many."""
    size = 1 if array is None or is_ragged(array) else math.prod(shape_of(array)[1:])
    return _spread(count, max(_LEAST_ROWS, _MOST_NUMBERS // max(1, size)))


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return places of rows, evenly over all of them."""
    return np.linspace(0, count - 1, min(count, wanted)).astype(np.int64)


def _find_spoilt(rows: Batch, count: int) -> int | None:
    """Return the place of the first of the rows taken out of so many with numbers not finite."""
    for array in _leaves(rows):
        if not is_ragged(array) and np.issubdtype(array.dtype, np.inexact):
            bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if bad.any():
                return int(_spread(count, len(array))[bad][0])
    return None


def _take_rows(array: Any, places: np.ndarray) -> Any:
    """Take rows of an array."""
    if array is None:
        return None
    whole = len(places) == int(shape_of(array)[0])
    return _as_array(array[slice(None) if whole else places])


def _as_array(array: Any) -> Any:
    """Return a NumPy array, of floats as `fit` casts them; a ragged tensor as it is."""
    if array is None or is_ragged(array):
        return array
    found = to_numpy(array)
    is_double = getattr(found, "dtype", None) == np.float64
    return found.astype(keras.config.floatx()) if is_double else found
