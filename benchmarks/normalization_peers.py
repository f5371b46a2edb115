"""How Keras, scikit-learn and River compute mean and variance of awkward data, and ours.

    pip install river scikit-learn
    python -m benchmarks.normalization_peers            # prints the table
    python -m benchmarks.normalization_peers --write    # replaces that of the docs

A figure is the largest error of a mean, in true standard deviations, and that of a standard
deviation, relative to the true one; both against float64 in two passes. "error" is an exception.
Times are medians of CPU time, relative to ours, of runs that alternate. Each library gets what its
documentation says to give it: Keras the array or the generator, scikit-learn `partial_fit` of
tables (images and sequences as such, one row for each pixel or step), River `learn_many` of
pandas' frames.

TensorFlow Transform has no column: its statistics become a layer of tf_keras, that of Keras 2,
which Keras 3 refuses.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import replace_lines
from keras_initkit.layers import Normalization

PAGE = Path(__file__).parents[1] / "docs" / "explanations" / "normalization.md"
MARK = "peers"
# What float32 weights, which Keras layers have, leave of an error.
EXACT = 1e-6

Array = NDArray[Any]
# Mean and standard deviation of each feature.
Statistics = tuple[Array, Array]


class Case(NamedTuple):
    """Data that are awkward in some way.

    Attributes:
        name: What is in the table.
        array: All values, the features last.
        batch_rows: Rows of a batch of a stream; None if the array is given whole.
        valid: Optional mask (rows, …) without the features' axis: where values count.
        nan: How NaN is to be treated: "error", or "ignore".
        dtype: Of the Keras layers.
        timed: Whether times are compared.
        output: Value of which the normalized one is shown, of data without a spread.
    """

    name: str
    array: Array
    batch_rows: int | None = None
    valid: Array | None = None
    nan: str = "error"
    dtype: str = "float32"
    timed: bool = False
    output: float | None = None


def cases(shrink: int) -> Iterator[Case]:
    """All of them, of a fraction of the rows."""
    rng = np.random.default_rng(0)
    images = rng.random((50_000 // shrink, 32, 32, 3), np.float32)
    yield Case(f"{len(images):,} x 32 x 32 x 3 float32 in 0..1", images, timed=True)
    del images
    rows = 1_000_000 // shrink
    table = rng.standard_normal((rows, 8), np.float32)
    yield Case(f"{rows:,} x 8 float32, mean 1e6, std 1", table + np.float32(1e6), timed=True)
    yield Case(
        f"generator of {rows:,} x 8 float32, batches of 256", table + np.float32(3), 256, timed=True
    )
    stream = rng.standard_normal((100_000, 2)) + 1e9
    yield Case("generator of float64, mean 1e9, std 1", stream, 256, dtype="float64")
    column = np.full((10_000, 1), 0.1, np.float32)
    yield Case("a column of 0.1, and what becomes of it", column, output=0.1)
    missing = table[:10_000].copy()
    missing[5, 3] = np.nan
    yield Case("one NaN, to be left out", missing, nan="ignore")
    yield Case("one NaN, unnoticed until then", missing)
    steps = rng.normal(5, 2, (2_000, 20, 4)).astype("float32")
    valid = np.arange(20) < rng.integers(1, 21, (2_000, 1))
    yield Case("padded sequences with a mask", np.where(valid[..., None], steps, 0), valid=valid)
    half = rng.normal(5_000, 1_000, (100_000, 4)).astype("float16")
    yield Case("100,000 x 4 float16, mean 5000, std 1000", half)


def by_keras(case: Case) -> Statistics:
    """Keras has no masks, and no policy for NaN."""
    layer = keras.layers.Normalization(dtype=case.dtype)
    layer.adapt(_batches(case) if case.batch_rows else case.array)
    return _of_layer(layer)


def by_us(case: Case) -> Statistics:
    """Ours."""
    layer = Normalization(dtype=case.dtype)
    layer.adapt(
        _batches(case) if case.batch_rows else case.array,
        mask=case.valid,
        nan=case.nan,
    )
    return _of_layer(layer)


def by_sklearn(case: Case) -> Statistics:
    """scikit-learn leaves NaN out, and gives weights to rows."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    weight = None if case.valid is None else case.valid.reshape(-1)
    for batch in _tables(case):
        scaler.partial_fit(batch, sample_weight=weight)
    return scaler.mean_, scaler.scale_ if case.output is not None else np.sqrt(scaler.var_)


def by_river(case: Case) -> Statistics:
    """River has no masks: what is masked is left out before."""
    import pandas as pd
    from river.preprocessing import StandardScaler

    scaler = StandardScaler()
    for batch in _tables(case):
        rows = batch if case.valid is None else batch[case.valid.reshape(-1)]
        scaler.learn_many(pd.DataFrame(rows))
    columns = range(case.array.shape[-1])
    means = np.array([scaler.means[column] for column in columns], np.float64)
    return means, np.sqrt([scaler.vars[column] for column in columns])


LIBRARIES: dict[str, Callable[[Case], Statistics]] = {
    "keras_initkit": by_us,
    "Keras": by_keras,
    "scikit-learn": by_sklearn,
    "River": by_river,
}


def _of_layer(layer: Any) -> Statistics:
    mean, variance = (
        keras.ops.convert_to_numpy(weight).astype("float64")
        for weight in (layer.adapt_mean, layer.adapt_variance)
    )
    return mean, np.sqrt(variance)


def _batches(case: Case) -> Iterator[Array]:
    rows = case.batch_rows or len(case.array)
    return (case.array[start : start + rows] for start in range(0, len(case.array), rows))


def _tables(case: Case) -> Iterator[Array]:
    return (batch.reshape(-1, batch.shape[-1]) for batch in _batches(case))


def truth(case: Case) -> Statistics:
    """In float64, two passes, a feature at a time."""
    features = []
    for index in range(case.array.shape[-1]):
        values = case.array[..., index].astype(np.float64)
        values = values if case.valid is None else values[case.valid]
        values = values[~np.isnan(values)]
        mean = values.mean()
        features.append((mean, np.sqrt(np.mean(np.square(values - mean)))))
    means, deviations = np.array(features).T
    return means, deviations


def outcome(case: Case, fit: Callable[[Case], Statistics]) -> str:
    """What is in the table for a library."""
    try:
        mean, deviation = fit(case)
    except Exception as error:
        return f"{type(error).__name__}"
    if case.output is not None:
        return _of_constant(case, fit, mean, deviation)
    true_mean, true_deviation = truth(case)
    if np.isnan(mean).any() or np.isnan(deviation).any():
        return "**NaN**"
    if np.isinf(deviation).any():
        return "**infinite sd**"
    shift = float(np.max(np.abs(mean - true_mean) / true_deviation))
    spread = float(np.max(np.abs(deviation / true_deviation - 1)))
    # The weights are float32, whose steps of a large mean are no error of the statistics.
    rounding = np.max(np.spacing(np.abs(true_mean).astype("float32")) / true_deviation)
    if case.dtype == "float32" and shift <= rounding:
        shift = 0.0
    if max(shift, spread) <= EXACT:
        return "exact"
    return (
        f"mean off by {shift:.1g} sd, sd by {100 * spread:.1g} %"
        if shift > EXACT
        else (f"sd off by {100 * spread:.1g} %")
    )


def _of_constant(case: Case, fit: Any, mean: Array, deviation: Array) -> str:
    """What a library makes of a value that does not vary."""
    value = np.full((1, 1), case.output, "float32")
    if fit in (by_us, by_keras):
        layer = (Normalization if fit is by_us else keras.layers.Normalization)()
        layer.adapt(case.array)
        result = float(keras.ops.convert_to_numpy(layer(value))[0, 0])
    else:
        # River divides by no deviation of 0.
        scale = float(deviation[0]) or 1.0
        result = float((value[0, 0] - mean[0]) / scale) if deviation[0] else 0.0
    return "0" if result == 0 else f"**{result:.2g}**"


def times(case: Case, repeats: int) -> dict[str, float]:
    """Median seconds of CPU time of each library."""
    found: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    for _ in range(repeats):
        for name, fit in LIBRARIES.items():
            start = time.process_time()
            fit(case)
            found[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in found.items()}


def table(shrink: int, repeats: int) -> Iterable[str]:
    """The lines of the table."""
    names = [
        name if name == "keras_initkit" else f"{name} {importlib.metadata.version(name.lower())}"
        for name in LIBRARIES
    ]
    yield f"| data | {' | '.join(names)} |"
    yield "|---|" + "---|" * len(names)
    for case in cases(shrink):
        cells = [outcome(case, fit) for fit in LIBRARIES.values()]
        if case.timed:
            took = times(case, repeats)
            ours = took["keras_initkit"]
            labels = [
                f"{ours:.2f} s" if name == "keras_initkit" else f"{seconds / ours:.2g}x the time"
                for name, seconds in took.items()
            ]
            cells = [f"{cell}; {label}" for cell, label in zip(cells, labels, strict=True)]
        yield f"| {case.name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into docs/{PAGE.name}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = []
    for line in table(10 if arguments.quick else 1, arguments.repeats):
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        PAGE.write_text(replace_lines(PAGE.read_text(), MARK, lines))


if __name__ == "__main__":
    main()
