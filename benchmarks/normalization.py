"""Speed, error and memory of `Normalization.adapt()`, side by side with Keras and with `np.sum`.

All runs of a case alternate; times are medians of CPU time (`time.process_time`), since wall
time says little on a shared machine. Errors are the largest relative error of a mean or a
variance against two passes in float64; ours is that of `layer.moments`, before they are rounded to
the layer's float32. Then come a `tf.data.Dataset`, relative to reading it alone; 32 named inputs,
beside `keras.utils.FeatureSpace`; and the memory of a pass over a file.

Usage: `python benchmarks/normalization.py [--quick] [--repeats N]`
"""

from __future__ import annotations

import argparse
import collections
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit import with_normalization
from keras_initkit.layers import Normalization


class Case(NamedTuple):
    """One comparison.

    Attributes:
        name: What is printed.
        array: All values.
        axis: The `axis` of the layers.
        data: Gives what `adapt()` gets, anew each time.
    """

    name: str
    array: NDArray[Any]
    axis: int | None
    data: Callable[[], Any]


class Result(NamedTuple):
    """Median seconds of CPU time, and largest relative errors."""

    np_sum: float
    ours: float
    keras: float
    our_error: float
    keras_error: float


def main() -> None:
    """Runs all cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    header = (
        f"{'case':34} {'np.sum':>8} {'ours':>8} {'Keras':>9} "
        f"{'Keras/ours':>10} {'ours/np.sum':>11} {'error':>8} {'of Keras':>8}"
    )
    print(f"keras {keras.__version__}, {keras.backend.backend()}, NumPy {np.__version__}")
    print(header)
    for make in (tables, images):
        for case in make(10 if arguments.quick else 1):
            print(row(case.name, measure(case, arguments.repeats)), flush=True)
    shrink = 10 if arguments.quick else 1
    if keras.backend.backend() == "tensorflow":
        print(tf_data(1_000_000 // shrink, arguments.repeats), flush=True)
        print(named_inputs(100_000 // shrink), flush=True)
    print(memory(2_000_000 // shrink))


def tf_data(rows: int, repeats: int) -> str:
    """A dataset of batches of 256: adapt, and reading it alone."""
    import tensorflow as tf

    table = np.random.default_rng(0).normal(3, 2, (rows, 32)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices(table).batch(256)
    layer = Normalization()
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(seconds(lambda: collections.deque(dataset, maxlen=0)))
        ours.append(seconds(lambda: layer.adapt(dataset)))
    alone, both = np.median(bare), np.median(ours)
    return (
        f"tf.data of 256, {rows} x 32: reading it {alone * 1e3:.0f} ms, adapt {both * 1e3:.0f} ms: "
        f"ratio {both / alone:.2f}"
    )


def named_inputs(rows: int) -> str:
    """32 named features in one pass, beside `FeatureSpace.adapt()`."""
    import tensorflow as tf

    generator = np.random.default_rng(0)
    columns = {f"f{i}": generator.normal(i, 2, (rows,)).astype("float32") for i in range(32)}
    inputs = {name: keras.Input((1,), name=name) for name in columns}
    total = keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, total)
    space = keras.utils.FeatureSpace(dict.fromkeys(columns, "float_normalized"))
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    theirs = seconds(lambda: space.adapt(dataset))
    ours = seconds(lambda: with_normalization(model, columns))
    batches = dataset.batch(1024)
    streamed = seconds(lambda: with_normalization(model, batches))
    return (
        f"32 named features x {rows}: FeatureSpace {theirs:.1f} s, with_normalization {ours:.2f} s "
        f"({theirs / ours:.0f} times faster), of a stream {streamed:.2f} s "
        f"({theirs / streamed:.0f} times)"
    )


def memory(rows: int) -> str:
    """Peak memory of a pass over a memory mapped file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        x = np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=(rows, 32))
        for start in range(0, rows, 100_000):
            x[start : start + 100_000] = start
        x.flush()
        mapped = np.load(path, mmap_mode="r")
        layer = Normalization()
        layer.adapt(mapped[:1000] + np.random.default_rng(0).random((1000, 32)))
        tracemalloc.start()
        layer.adapt(mapped)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return f"memory of a pass over {mapped.nbytes / 1e6:.0f} MB: {peak / 1e6:.1f} MB"


def tables(shrink: int) -> Iterator[Case]:
    """A table of 32 features: an array, and a generator of small batches."""
    rows = 1_000_000 // shrink
    table = np.random.default_rng(0).normal(3, 2, (rows, 32)).astype("float32")
    yield Case(f"{rows} x 32 float32, array", table, -1, lambda: table)
    yield Case(
        f"{rows} x 32, generator of 256",
        table,
        -1,
        lambda: (table[start : start + 256] for start in range(0, rows, 256)),
    )


def images(shrink: int) -> Iterator[Case]:
    """Images of the shape of CIFAR-10."""
    count = 50_000 // shrink
    generator = np.random.default_rng(0)
    pixels = generator.random((count, 32, 32, 3), dtype="float32")
    yield Case(f"{count} x 32 x 32 x 3 float32", pixels, -1, lambda: pixels)
    raw = generator.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
    yield Case(f"{count} x 32 x 32 x 3 uint8", raw, -1, lambda: raw)


def measure(case: Case, repeats: int) -> Result:
    """Times `np.sum` and both layers in turns."""
    ours, theirs = Normalization(axis=case.axis), keras.layers.Normalization(axis=case.axis)
    theirs_data = _for_keras(case)
    times: dict[str, list[float]] = {"np.sum": [], "ours": [], "keras": []}
    for _ in range(repeats):
        times["np.sum"].append(seconds(lambda: np.sum(case.array)))
        times["ours"].append(seconds(lambda: ours.adapt(case.data())))
        times["keras"].append(seconds(lambda: theirs.adapt(theirs_data())))
    mean, variance = reference(case.array)
    np_sum, own, other = (float(np.median(values)) for values in times.values())
    return Result(np_sum, own, other, error(ours, mean, variance), error(theirs, mean, variance))


def seconds(function: Callable[[], Any]) -> float:
    """CPU time of one call, of all threads."""
    start = time.process_time()
    function()
    return time.process_time() - start


def reference(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and variance along the last axis, by two passes in float64, a feature at a time."""
    columns = (array[..., index].astype(np.float64) for index in range(array.shape[-1]))
    statistics = np.array([(column.mean(), column.var()) for column in columns])
    return statistics[:, 0], statistics[:, 1]


def error(layer: Any, mean: NDArray[Any], variance: NDArray[Any]) -> float:
    """Largest relative error of a layer's statistics."""
    if isinstance(layer, Normalization):
        found = [layer.moments.mean, layer.moments.variance]
    else:
        found = [weight.numpy() for weight in layer.weights[:2]]
    pairs = zip(found, (mean, variance), strict=True)
    return max(float(np.max(np.abs(got / true - 1))) for got, true in pairs)


def row(name: str, result: Result) -> str:
    """One line of the table."""
    return (
        f"{name:34} {result.np_sum * 1e3:6.1f}ms {result.ours * 1e3:6.1f}ms "
        f"{result.keras * 1e3:7.1f}ms {result.keras / result.ours:10.1f} "
        f"{result.ours / result.np_sum:11.1f} {result.our_error:8.0e} "
        f"{result.keras_error:8.0e}"
    )


def _for_keras(case: Case) -> Callable[[], Any]:
    """The same batches for Keras; before 3.15 it takes generators as a `PyDataset` only."""
    if isinstance(case.data(), np.ndarray):
        return case.data

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return -(-len(case.array) // 256)

        def __getitem__(self, index: int) -> NDArray[Any]:
            return case.array[256 * index : 256 * index + 256]

    return Batches


if __name__ == "__main__":
    main()
