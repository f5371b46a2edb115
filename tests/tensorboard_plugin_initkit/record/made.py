"""Chunks that are made up."""

from typing import Any

import numpy as np

from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Port, Variable
from tensorboard_plugin_initkit.record.statistics import per_optimizer

# Layers with the sizes of a variable.
A, B, A2, C = (("a", 4), ("b", 3), ("a", 2), ("c", 5))


PORTS = (
    Port("x", "", (8,), "float32"),
    Port("y", "", (), "int64"),
    Port("y_pred", "", (3,), "float32"),
)


def sized(*layers_and_sizes: tuple[str, int], optimizers: Any = ("",), **fields: Any) -> Layout:
    """Make a layout of vectors, which belong to the optimizers in turn."""
    variables = (
        Variable(f"{layer}/{i}", layer, (size,), optimizers[i % len(optimizers)])
        for i, (layer, size) in enumerate(layers_and_sizes)
    )
    return Layout(tuple(variables), tuple(optimizers), **fields)


def dense(
    *layers: str,
    types: tuple[str, ...] = ("Dense",),
    optimizers: tuple[str, ...] = ("",),
    replicas: int = 1,
    ports: tuple[Port, ...] = (),
) -> Layout:
    """Make a layout of two variables a layer, all the kernels first; types take turns."""
    variables = (
        Variable(
            f"{layer}/{name}", layer, shape, optimizers[i % len(optimizers)], types[i % len(types)]
        )
        for name, shape in (("kernel", (3, 2)), ("bias", (2,)))
        for i, layer in enumerate(layers)
    )
    return Layout(tuple(variables), optimizers, layers[:1], replicas, ports)


def ones(layout: Layout, steps: Any, **values: Any) -> Chunk:
    """Make a chunk of ones; a value replaces those of its name, `None` leaves them out.

    The name of a statistic of ports has "port_" before it.
    """

    def tables(names: tuple[str, ...], width: int, prefix: str = "") -> dict[str, Any]:
        found = {name: values.get(prefix + name, 1) for name in names}
        return {
            name: np.full((len(steps), width), value, np.float32)
            for name, value in found.items()
            if value is not None
        }

    return Chunk(
        layout,
        np.asarray(steps, np.int64),
        tables(RECORDED, len(layout.variables)),
        tables(TOTALS, len(layout.optimizers)),
        tables(PORT_STATISTICS, len(layout.ports), "port_") if layout.ports else {},
    )


def history_of(
    norms: Any, layers: Any = None, nonfinite: Any = None, steps: Any = None, **totals: Any
) -> GradientHistory:
    """Make a history of layers with a bias of four elements each; no norm is no gradient."""
    norms = np.asarray(norms, np.float32)
    layers = layers or [f"layer_{i}" for i in range(norms.shape[1])]
    layout = Layout(tuple(Variable(f"{layer}/bias", layer, (4,)) for layer in layers))
    count = np.where(np.isnan(norms), np.nan, 0) if nonfinite is None else nonfinite
    values = dict.fromkeys((*RECORDED, *TOTALS)) | {"norm": norms, "nonfinite": count} | totals
    values["zeros"] = np.where(norms == 0, 1, count * 0)
    history = GradientHistory(None)
    history.append(ones(layout, range(len(norms)) if steps is None else steps, **values))
    return history


def random_chunk(
    layout: Layout, steps: Any, seed: int = 0, special: float = 0.0, **values: Any
) -> Chunk:
    """Make a chunk of random values, a share of each special kind; `values` as for `ones`."""
    rng = np.random.default_rng(seed)

    def table(name: str, width: int) -> Any:
        shape = (len(steps), width)
        is_fraction = name in ("zeros", "dead_units", "clip_ratio")
        table = rng.random(shape) if is_fraction else rng.lognormal(0, 12 if special else 1, shape)
        for value in (0, np.nan, np.inf, 1e-45, 3.4e38):
            table[rng.random(shape) < special] = value
        return table

    columns: dict[str, Any] = dict.fromkeys(RECORDED, layout.variables)
    columns |= dict.fromkeys(TOTALS, layout.optimizers)
    columns |= {f"port_{name}": layout.ports for name in PORT_STATISTICS}
    tables = {name: table(name, len(width)) for name, width in columns.items()}
    return ones(layout, steps, **tables | values)


def assert_equal(some: Chunk, other: Chunk) -> None:
    assert some.layout == other.layout
    assert some.steps.dtype == other.steps.dtype == np.int64
    np.testing.assert_array_equal(some.steps, other.steps)
    assert set(some.values) == set(other.values)
    for name in some.values:
        assert some.values[name].dtype == np.float32
        np.testing.assert_array_equal(some.values[name], other.values[name], err_msg=name)
    assert set(some.ports) == set(other.ports)
    for name in some.ports:
        np.testing.assert_array_equal(some.ports[name], other.ports[name], err_msg=name)
    for name in TOTALS:  # what is not known may be NaN
        expected = per_optimizer(other, name)
        np.testing.assert_array_equal(per_optimizer(some, name), expected, err_msg=name)
