"""Chunks that are made up."""

from typing import Any

import numpy as np

from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.statistics import per_optimizer

# Layers with the sizes of a variable.
A, B, A2, C = (("a", 4), ("b", 3), ("a", 2), ("c", 5))


def sized(*layers_and_sizes: tuple[str, int], optimizers: Any = ("",), **fields: Any) -> Layout:
    """Make a layout of vectors, which belong to the optimizers in turn."""
    variables = (
        Variable(f"{layer}/{i}", layer, (size,), optimizers[i % len(optimizers)])
        for i, (layer, size) in enumerate(layers_and_sizes)
    )
    return Layout(tuple(variables), tuple(optimizers), **fields)


def dense(*layers: str, optimizers: tuple[str, ...] = ("",), replicas: int = 1) -> Layout:
    """Make a layout of two variables a layer, all the kernels first."""
    variables = (
        Variable(f"{layer}/{name}", layer, shape, optimizers[-1])
        for name, shape in (("kernel", (3, 2)), ("bias", (2,)))
        for layer in layers
    )
    return Layout(tuple(variables), optimizers, layers[:1], replicas)


def ones(layout: Layout, steps: Any, **values: Any) -> Chunk:
    """Make a chunk of ones; a value replaces those of its name, `None` leaves them out."""

    def tables(names: tuple[str, ...], width: int) -> dict[str, Any]:
        return {
            name: np.full((len(steps), width), values.get(name, 1), np.float32)
            for name in names
            if values.get(name, 1) is not None
        }

    return Chunk(
        layout,
        np.asarray(steps, np.int64),
        tables(RECORDED, len(layout.variables)),
        tables(TOTALS, len(layout.optimizers)),
    )


def random_chunk(layout: Layout, steps: Any, seed: int = 0, special: float = 0.0) -> Chunk:
    """Make a chunk of random values, a share of each special kind."""
    rng = np.random.default_rng(seed)

    def table(width: int) -> Any:
        values = rng.lognormal(sigma=12 if special else 1, size=(len(steps), width))
        for value in (0, np.nan, np.inf, 1e-45, 3.4e38):
            values[rng.random(values.shape) < special] = value
        return values

    columns = dict.fromkeys(RECORDED, layout.variables) | dict.fromkeys(TOTALS, layout.optimizers)
    return ones(layout, steps, **{name: table(len(width)) for name, width in columns.items()})


def assert_equal(some: Chunk, other: Chunk) -> None:
    assert some.layout == other.layout
    assert some.steps.dtype == other.steps.dtype == np.int64
    np.testing.assert_array_equal(some.steps, other.steps)
    assert set(some.values) == set(other.values)
    for name in some.values:
        assert some.values[name].dtype == np.float32
        np.testing.assert_array_equal(some.values[name], other.values[name], err_msg=name)
    for name in TOTALS:  # what is not known may be NaN
        expected = per_optimizer(other, name)
        np.testing.assert_array_equal(per_optimizer(some, name), expected, err_msg=name)
