"""Statistics of layers against NumPy on the gradients themselves, as one long vector."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS, Chunk, LazyArrays, join
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout, Variable
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
    per_variable,
    recorded_statistics,
)

Array = NDArray[Any]


# What is recorded of a variable and what is read of a layer, where both are tested with tensors.
OF_TENSORS = ("norm", "mean_abs", "max_abs", "zeros", "nonfinite", "local_norm", "weight_norm")


class Tensors:
    """A variable's gradient, weights and update at one step, and what is recorded of them."""

    def __init__(self, size: int, rng: np.random.Generator, special: float | None) -> None:
        self.gradient, self.local, self.weights, self.update = rng.normal(size=(4, size))
        self.gradient[rng.random(size) < 0.3] = 0
        self.raw = self.gradient * rng.choice([1, 1, 2, 10])
        if special is not None:
            self.gradient[rng.integers(size)] = special

    def recorded(self) -> dict[str, float]:
        g = abs(self.gradient)
        norm = np.linalg.norm
        return {
            "norm": norm(g),
            "mean_abs": np.mean(g),
            "max_abs": np.max(g),
            "zeros": np.mean(g == 0),
            "nonfinite": np.sum(~np.isfinite(g)),
            "clip_ratio": norm(g) / norm(self.raw) if norm(self.raw) else 1.0,
            "local_norm": norm(self.local),
            "weight_norm": norm(self.weights),
            "update_norm": norm(self.update),
        }

    @classmethod
    def together(cls, several: list[Tensors]) -> dict[str, float]:
        """The statistics of concatenated tensors."""
        whole = cls.__new__(cls)
        for name in ("gradient", "raw", "local", "weights", "update"):
            setattr(whole, name, np.concatenate([getattr(one, name) for one in several]))
        recorded = whole.recorded()
        ratio = recorded["update_norm"] / recorded["weight_norm"]
        rms = np.sqrt(np.mean(np.square(whole.gradient)))
        read = {name: recorded[name] for name in OF_TENSORS} | {"rms": rms, "update_ratio": ratio}
        if np.isfinite(whole.gradient).all():
            raw_norm = float(np.linalg.norm(whole.raw))
            read |= {"raw_norm": raw_norm, "clip_ratio": recorded["clip_ratio"]}
        return read


def layout_of(*layers_and_sizes: tuple[str, int]) -> Layout:
    return Layout(
        tuple(
            Variable(f"{layer}/{i}", layer, (size,))
            for i, (layer, size) in enumerate(layers_and_sizes)
        )
    )


def chunk_of(layout: Layout, steps: Any, **values: Any) -> Chunk:
    """A chunk whose values are 1 where they are not given."""
    shape = (len(steps), len(layout.variables))
    table = {name: np.ones(shape, np.float32) for name in RECORDED}
    for name, value in values.items():
        table[name] = np.asarray(value, np.float32).reshape(shape)
    return Chunk(layout, np.asarray(steps, np.int64), table)


def random_chunk(layout: Layout, steps: Any, seed: int = 0) -> Chunk:
    values = np.random.default_rng(seed).random((len(RECORDED), len(steps), len(layout.variables)))
    return chunk_of(layout, steps, **dict(zip(RECORDED, values, strict=True)))


def assert_equal(some: Chunk, other: Chunk) -> None:
    assert some.layout == other.layout
    np.testing.assert_array_equal(some.steps, other.steps)
    assert list(some.values) == list(other.values) == list(RECORDED)
    for name in RECORDED:
        assert some.values[name].dtype == np.float32
        np.testing.assert_array_equal(some.values[name], other.values[name], err_msg=name)


A, B, A2, C = (("a", 4), ("b", 3), ("a", 2), ("c", 5))


# Statistics of a layer.

variables = st.lists(
    st.tuples(st.sampled_from(["first", "second", "third"]), st.integers(1, 50)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=100, deadline=None)
@given(variables, st.integers(0, 4), st.integers(0, 2**32), st.data())
def test_the_variables_of_a_layer_count_as_one_long_vector(
    columns: list[tuple[str, int]], n: int, seed: int, data: st.DataObject
) -> None:
    layout, rng = layout_of(*columns), np.random.default_rng(seed)
    special = st.sampled_from([None, None, None, np.nan, np.inf, -np.inf])
    steps: list[list[Tensors | None]] = [
        [
            Tensors(size, rng, data.draw(special)) if data.draw(st.integers(0, 3)) else None
            for _, size in columns
        ]
        for _ in range(n)
    ]
    names = (*OF_TENSORS, "clip_ratio", "update_norm")
    values = {
        name: [[one.recorded()[name] if one else np.nan for one in row] for row in steps]
        for name in names
    }
    chunk = chunk_of(layout, range(n), **values)
    for statistic in (*OF_TENSORS, "rms", "raw_norm", "clip_ratio", "update_ratio"):
        got = per_layer(chunk, statistic)
        assert got.dtype == np.float64
        assert got.shape == (n, len(layout.layers))
        for i, row in enumerate(steps):
            for j, layer in enumerate(layout.layers):
                own = [t for t, (name, _) in zip(row, columns, strict=True) if t and name == layer]
                expected = Tensors.together(own).get(statistic) if own else np.nan
                if expected is not None:
                    np.testing.assert_allclose(got[i, j], expected, rtol=1e-5, err_msg=statistic)


def test_what_is_recorded_of_a_variable_without_gradient_does_not_count() -> None:
    layout = layout_of(A, B, A2)
    garbage = {name: [np.nan, 2, 7] for name in RECORDED if name != "nonfinite"}
    chunk = chunk_of(layout, [0], nonfinite=[np.nan, 0, 0], **garbage)
    for statistic in ("norm", "mean_abs", "max_abs", "zeros", "weight_norm"):
        np.testing.assert_array_equal(per_layer(chunk, statistic), [[7, 2]])
    np.testing.assert_array_equal(per_layer(chunk, "nonfinite"), [[0, 0]])
    np.testing.assert_array_equal(per_layer(chunk, "update_ratio"), [[1, 1]])


@pytest.mark.parametrize("statistic", ["norm", "rms", "raw_norm", "local_norm", "weight_norm"])
@pytest.mark.parametrize("scale", [1e-38, 3e38])
def test_norms_near_the_ends_of_float32_neither_overflow_nor_vanish(
    statistic: str, scale: float
) -> None:
    layout = layout_of(A, A2)
    norms = ("norm", "local_norm", "weight_norm", "update_norm")
    chunk = chunk_of(layout, [0], clip_ratio=[0.01, 1], **{name: [scale] * 2 for name in norms})
    layer = per_layer(chunk, statistic)
    assert np.isfinite(layer).all()
    assert (layer > 0.1 * scale).all()
    np.testing.assert_allclose(per_layer(chunk, "update_ratio"), 1)


def test_dead_units_are_counted_where_they_are_known() -> None:
    # A kernel whose layer has a bias tells nothing itself; another kernel of the layer does.
    variables = [("a/kernel", (9, 4)), ("a/bias", (4,)), ("a/other", (3, 12)), ("b/kernel", (3, 5))]
    layout = Layout(tuple(Variable(path, path[0], shape) for path, shape in variables))
    chunk = chunk_of(layout, [0], dead_units=[np.nan, 0.5, 0.25, np.nan])
    np.testing.assert_allclose(per_layer(chunk, "dead_units"), [[(2 + 3) / 16, np.nan]])


@pytest.mark.parametrize("statistic", ["cosine", "snr"])
def test_what_is_sampled_is_averaged_by_squared_norm(statistic: str) -> None:
    layout = layout_of(A, A2, A, B)
    chunk = chunk_of(layout, [0], norm=[1, 3, 9, 0], **{statistic: [1, -0.5, np.nan, np.nan]})
    np.testing.assert_allclose(per_layer(chunk, statistic), [[(1 - 9 * 0.5) / 10, np.nan]])


def test_what_is_not_recorded_is_nan_and_what_is_not_clipped_has_ratio_1() -> None:
    chunk = chunk_of(layout_of(A, B, A2), [0, 1], nonfinite=[[0, np.nan, 0], [0, 0, 0]])
    recorded = ("norm", "nonfinite")
    partly = Chunk(chunk.layout, chunk.steps, {name: chunk.values[name] for name in recorded})
    present = np.array([[1, np.nan], [1, 1]])
    for statistic in STATISTICS:
        expected = {
            "norm": per_layer(chunk, "norm"),
            "rms": per_layer(chunk, "rms"),
            "raw_norm": per_layer(chunk, "norm"),
            "nonfinite": 0 * present,
            "clip_ratio": present,
        }.get(statistic, np.nan * present)
        np.testing.assert_array_equal(per_layer(partly, statistic), expected, statistic)
    of_variables = [[1, np.nan, 1], [1, 1, 1]]
    np.testing.assert_array_equal(per_variable(partly, "clip_ratio"), of_variables)
    for total in TOTALS:
        np.testing.assert_array_equal(per_optimizer(partly, total), [[np.nan]] * 2)


def test_an_empty_variable_has_no_magnitude() -> None:
    chunk = chunk_of(layout_of(("a", 0), ("a", 4), ("b", 0)), [0], norm=[0, 3, 0])
    np.testing.assert_array_equal(per_layer(chunk, "rms"), [[1.5, np.nan]])
    np.testing.assert_array_equal(per_variable(chunk, "rms"), [[0, 1.5, 0]])


# Statistics of a variable.


def test_a_statistic_of_a_variable_is_what_was_recorded_of_it() -> None:
    chunk = random_chunk(layout_of(A, B, A2), range(5))
    for statistic in set(STATISTICS) & set(RECORDED):
        got = per_variable(chunk, statistic)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, chunk.values[statistic])
    ratio = chunk.values["update_norm"].astype(float) / chunk.values["weight_norm"]
    np.testing.assert_array_equal(per_variable(chunk, "update_ratio"), ratio)
    norm = chunk.values["norm"].astype(float)
    raw = norm / chunk.values["clip_ratio"]
    np.testing.assert_array_equal(per_variable(chunk, "raw_norm"), raw)
    np.testing.assert_allclose(per_variable(chunk, "rms"), norm / np.sqrt([4, 3, 2]), rtol=1e-12)


@pytest.mark.parametrize(
    ("update", "weight", "ratio"),
    [
        (3, 2, 1.5),
        (0, 2, 0),
        (0, 0, 0),
        (2, 0, np.inf),
        (np.inf, 2, np.inf),
        (2, np.inf, 0),
        (0, np.inf, 0),
        (np.inf, np.inf, np.nan),
        (np.nan, 2, np.nan),
        (2, np.nan, np.nan),
        (0, np.nan, np.nan),
        (np.nan, 0, np.nan),
        (1e38, 1e-38, 1e76),
    ],
)
@pytest.mark.parametrize("statistic_of", [per_layer, per_variable])
def test_update_ratio(statistic_of: Any, update: float, weight: float, ratio: float) -> None:
    chunk = chunk_of(layout_of(B), [0], update_norm=[update], weight_norm=[weight])
    got = statistic_of(chunk, "update_ratio")
    np.testing.assert_allclose(got, [[ratio]], rtol=1e-6)


@pytest.mark.parametrize(
    ("norm", "ratio", "raw"), [(2, 1, 2), (1, 0.25, 4), (0, 1, 0), (0, 0, 0), (np.nan, 1, np.nan)]
)
def test_the_norm_before_clipping(norm: float, ratio: float, raw: float) -> None:
    chunk = chunk_of(layout_of(B), [0], norm=[norm], clip_ratio=[ratio])
    for statistic_of in (per_layer, per_variable):
        np.testing.assert_array_equal(statistic_of(chunk, "raw_norm"), [[raw]])
    expected = norm / raw if raw else 1
    np.testing.assert_array_equal(per_layer(chunk, "clip_ratio"), [[expected]])


# Statistics of an optimizer.


def with_optimizers(layout: Layout, *optimizers: str, **fields: Any) -> Layout:
    """A layout whose variables belong to these optimizers in turn."""
    return Layout(
        tuple(
            variable._replace(optimizer=optimizers[i % len(optimizers)])
            for i, variable in enumerate(layout.variables)
        ),
        optimizers,
        **fields,
    )


def test_global_norms_are_those_of_an_optimizers_variables_together() -> None:
    layout = with_optimizers(layout_of(A, B, A2, C), "first", "second", "idle")
    chunk = chunk_of(
        layout,
        [0, 1],
        norm=[[3, 7, 1, 4]] * 2,
        clip_ratio=[[0.5, 1, 1, 1]] * 2,
        nonfinite=[[0, 0, np.nan, 0], [np.nan, 0, np.nan, np.nan]],
    )
    expected = [[5, 7, np.nan], [np.nan, 7, np.nan]]
    np.testing.assert_array_equal(per_optimizer(chunk, "global_norm"), expected)
    expected[0][0] = np.sqrt(6**2 + 4**2)
    np.testing.assert_allclose(per_optimizer(chunk, "global_raw_norm"), expected)


def test_totals_are_what_was_recorded() -> None:
    layout = with_optimizers(layout_of(A, B), "first", "second")
    table = np.array([[1, 2], [3, np.nan], [5, 6]], np.float32)
    chunk = chunk_of(layout, range(3))
    chunk = Chunk(layout, chunk.steps, chunk.values, dict.fromkeys(TOTALS, table))
    for name in TOTALS:
        got = per_optimizer(chunk, name)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, table)


class NoisyGradients:
    """Steps of data parallelism with gradients of known |G|² and tr(Σ)."""

    def __init__(self, replicas: int, n: int, batch: int = 32, sizes: Any = (30, 50)) -> None:
        rng = np.random.default_rng(0)
        self.sizes = sizes
        self.true = [rng.normal(size=size) for size in sizes]
        scales = [rng.uniform(0.5, 4, size) for size in sizes]  # of one sample's noise
        trace = sum(np.sum(np.square(scale)) for scale in scales)
        # In units of the batch: at this batch size noise and gradient are as large.
        self.noise_scale = trace / batch / sum(np.sum(np.square(g)) for g in self.true)
        part = np.sqrt(replicas / batch)
        self.local = [
            g + part * scale * rng.normal(size=(n, replicas, len(g)))
            for g, scale in zip(self.true, scales, strict=True)
        ]
        norms = [np.linalg.norm(local.mean(axis=1), axis=-1) for local in self.local]
        locals_ = [np.sqrt(np.square(g).sum(axis=-1).mean(axis=1)) for g in self.local]
        self.layout = with_optimizers(
            layout_of(*((f"layer_{i}", size) for i, size in enumerate(sizes))),
            "",
            replicas=replicas,
        )
        self.norm, self.local_norm = np.stack(norms, axis=1), np.stack(locals_, axis=1)

    def chunk(self, **values: Any) -> Chunk:
        values = {"norm": self.norm, "local_norm": self.local_norm} | values
        return chunk_of(self.layout, range(len(self.norm)), **values)


@pytest.mark.parametrize("replicas", [2, 4, 8])
def test_the_noise_scale_is_that_of_gradients_of_known_noise(replicas: int) -> None:
    gradients = NoisyGradients(replicas, 400)
    noise_scale = per_optimizer(gradients.chunk(), "noise_scale")
    assert noise_scale.shape == (400, 1)
    # Averages of 50 records; half of 400 of them overlap.
    np.testing.assert_allclose(noise_scale[50:].mean(), gradients.noise_scale, rtol=0.1)
    np.testing.assert_allclose(noise_scale[50:], gradients.noise_scale, rtol=0.6)


def test_the_noise_scale_is_of_gradients_before_clipping() -> None:
    gradients = NoisyGradients(4, 60)
    clipped = gradients.chunk(
        norm=gradients.norm / 8, clip_ratio=np.full_like(gradients.norm, 1 / 8)
    )
    np.testing.assert_allclose(
        per_optimizer(clipped, "noise_scale"),
        per_optimizer(gradients.chunk(), "noise_scale"),
        rtol=1e-5,
    )


def test_the_noise_scale_is_the_ratio_of_means_of_the_last_50_records() -> None:
    gradients = NoisyGradients(2, 120)
    noise_scale = per_optimizer(gradients.chunk(), "noise_scale")[:, 0]
    whole = np.square(gradients.norm).sum(axis=1)
    part = np.square(gradients.local_norm).sum(axis=1)
    for i in (0, 1, 49, 50, 119):
        rows = slice(max(0, i - 49), i + 1)
        expected = np.mean(part[rows] - whole[rows]) / np.mean(2 * whole[rows] - part[rows])
        if expected > 0:
            np.testing.assert_allclose(noise_scale[i], expected, rtol=1e-4)
        else:
            assert np.isnan(noise_scale[i])


def test_records_that_are_not_finite_leave_the_noise_scale_of_others_alone() -> None:
    gradients = NoisyGradients(2, 60)
    broken = gradients.chunk()
    broken.values["norm"][30] = np.inf
    broken.values["local_norm"][40] = np.nan
    noise_scale = per_optimizer(broken, "noise_scale")[:, 0]
    assert np.isnan(noise_scale[[30, 40]]).all()
    rest = np.delete(np.arange(60), [30, 40])
    expected = per_optimizer(gradients.chunk().select(rest), "noise_scale")[:, 0]
    np.testing.assert_allclose(noise_scale[rest[49:]][-1], expected[-1], rtol=0.2)
    assert np.isfinite(noise_scale[rest[20:]]).all()


def test_without_replicas_or_where_noise_hides_the_gradient_there_is_no_noise_scale() -> None:
    layout = with_optimizers(layout_of(A, B), "")
    nan = [[np.nan]] * 3
    alone = chunk_of(layout, range(3))
    np.testing.assert_array_equal(per_optimizer(alone, "noise_scale"), nan)
    two = with_optimizers(layout_of(A, B), "", replicas=2)
    hidden = chunk_of(two, range(3), local_norm=np.full((3, 2), 9))
    np.testing.assert_array_equal(per_optimizer(hidden, "noise_scale"), nan)
    assert per_optimizer(chunk_of(two, []), "noise_scale").shape == (0, 1)


# Layouts.


def test_layers_are_listed_once_in_order_of_first_appearance() -> None:
    assert layout_of(B, A, A2, C, B).layers == ["b", "a", "c"]
    assert Layout(()).layers == []


@pytest.mark.parametrize(("shape", "size"), [((), 1), ((7,), 7), ((2, 3, 4), 24), ((0, 3), 0)])
def test_the_size_of_a_variable_is_its_number_of_elements(
    shape: tuple[int, ...], size: int
) -> None:
    assert Variable("path", "layer", shape).size == size


@pytest.mark.parametrize(("shape", "units"), [((), 1), ((7,), 7), ((2, 3, 4), 4)])
def test_the_units_of_a_variable_are_along_its_last_axis(
    shape: tuple[int, ...], units: int
) -> None:
    assert Variable("path", "layer", shape).units == units


def test_the_size_of_the_largest_variable_is_exact() -> None:
    assert Variable("path", "layer", (2**31, 2**20)).size == 2**51


names = st.text(st.characters(codec="utf-8"), max_size=30)
shapes = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
layouts = st.builds(
    Layout,
    st.lists(st.builds(Variable, names, names, shapes, names, names, names)).map(tuple),
    st.lists(names, min_size=1, unique=True).map(tuple),
    st.lists(names, unique=True).map(tuple),
    st.integers(1, 4096),
)


@settings(max_examples=100, deadline=None)
@given(layouts)
def test_a_layout_is_the_same_after_json(layout: Layout) -> None:
    text = layout.to_json()
    assert json.loads(text)["version"] == SCHEMA_VERSION == 3
    assert Layout.from_json(text) == layout
    assert Layout.from_json(text.encode()) == layout


@pytest.mark.parametrize("version", [0, 1, 2, 4])
def test_another_schema_version_is_refused_in_words(version: int) -> None:
    text = json.dumps({"version": version, "columns": "of another form"})
    message = (
        rf"^The log must have schema version 3\. Received: version {version}\. Read it with "
        r"the keras-initkit that wrote it\.$"
    )
    with pytest.raises(ValueError, match=message):
        Layout.from_json(text)


@settings(max_examples=100, deadline=None)
@given(layouts, layouts)
def test_a_union_holds_the_columns_of_both_each_once(some: Layout, other: Layout) -> None:
    union = some.union(other)
    keys, first, second = (
        [variable.key for variable in layout.variables] for layout in (union, some, other)
    )
    assert set(keys) == set(first) | set(second)
    assert len(set(keys)) == len(keys)
    # In the order of the first, or of the second where that has all and more: a layer that is
    # unfrozen later stands where the model has it.
    larger = list(dict.fromkeys(second if set(first) < set(second) else first))
    assert keys[: len(larger)] == larger
    assert union.union(other) == union
    assert [variable.key for variable in union.union(some).variables] == keys
    assert set(union.optimizers) == set(some.optimizers) | set(other.optimizers)
    # What is said of the model is what was said last.
    assert (union.frozen, union.replicas) == (other.frozen, other.replicas)
    columns = union.columns_of(other)
    assert [keys[column] for column in columns] == second


def test_a_variable_that_is_drawn_otherwise_later_stays_one_column() -> None:
    first = Variable("a/kernel", "a", (2, 3), layer_type="Dense", initializer="Zeros")
    later = first._replace(initializer="HeNormal")
    assert Layout((first,)).union(Layout((later,))).variables == (later,)


# Rows of chunks, and what is read of them.


class Unread(LazyArrays):
    """Arrays that say which of them were read."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays, self.read = arrays, list[str]()

    def __getitem__(self, name: str) -> Any:
        self.read.append(name)
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([True, False, True, True]), [3, 0]])
def test_only_what_is_asked_for_is_read(rows: Any) -> None:
    chunk = random_chunk(layout_of(A, B), [1, 2, 5, 9])
    values = Unread(chunk.values)
    part = Chunk(chunk.layout, chunk.steps, values).select(rows)
    assert "norm" in part.values
    assert "unknown" not in part.values
    assert list(part.values) == list(chunk.values)
    assert len(part.values) == len(chunk.values)
    assert recorded_statistics(part.values) == list(STATISTICS)
    assert values.read == []
    expected = chunk.select(rows)
    np.testing.assert_array_equal(part.steps, expected.steps)
    np.testing.assert_array_equal(per_layer(part, "max_abs"), per_layer(expected, "max_abs"))
    assert set(values.read) == {"max_abs", "nonfinite"}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (["norm", "nonfinite"], ["norm", "rms", "signal", "nonfinite"]),
        (
            ["norm", "nonfinite", "clip_ratio"],
            ["norm", "rms", "signal", "nonfinite", "raw_norm", "clip_ratio"],
        ),
        (["update_norm"], []),
        (["update_norm", "weight_norm"], ["weight_norm", "update_ratio"]),
    ],
)
def test_recorded_is_what_can_be_computed(measured: list[str], expected: list[str]) -> None:
    assert recorded_statistics(dict.fromkeys(measured, np.zeros((1, 1)))) == expected


# Chunks on other layouts.


def test_spreading_on_the_own_layout_changes_nothing() -> None:
    chunk = random_chunk(layout_of(A, B), [1, 2])
    assert chunk.spread(chunk.layout) is chunk


def test_spreading_puts_columns_where_the_larger_layout_has_them() -> None:
    chunk = random_chunk(Layout(layout_of(A, B).variables), [1, 2])
    a, b = chunk.layout.variables
    new = Variable("new", "new", (3,))
    spread = chunk.spread(Layout((b, new, a)))
    for name in RECORDED:
        np.testing.assert_array_equal(spread.values[name][:, 0], chunk.values[name][:, 1])
        np.testing.assert_array_equal(spread.values[name][:, 1], [np.nan, np.nan])
        np.testing.assert_array_equal(spread.values[name][:, 2], chunk.values[name][:, 0])
    np.testing.assert_array_equal(spread.steps, chunk.steps)


def test_totals_are_spread_by_optimizer() -> None:
    layout = with_optimizers(layout_of(A), "second")
    chunk = random_chunk(layout, [1, 2])
    loss = np.array([[5], [6]], np.float32)
    chunk = Chunk(layout, chunk.steps, chunk.values, {"loss": loss})
    spread = chunk.spread(Layout(layout.variables, ("first", "second")))
    np.testing.assert_array_equal(spread.totals["loss"], [[np.nan, 5], [np.nan, 6]])
    assert list(spread.totals) == ["loss"]


def test_joined_statistics_are_nan_where_they_were_not_recorded() -> None:
    layout = layout_of(A, B)
    whole = random_chunk(layout, range(4))
    ones = np.ones((2, 1), np.float32)
    first = Chunk(
        layout,
        whole.steps[:2],
        {name: array[:2] for name, array in whole.values.items() if name != "cosine"},
        {"loss": ones},
    )
    second = Chunk(
        layout,
        whole.steps[2:],
        {name: array[2:] for name, array in whole.values.items() if name != "clip_ratio"},
        {"skipped": ones},
    )
    both = join([first, second])
    assert list(both.values) == list(RECORDED)
    np.testing.assert_array_equal(both.values["cosine"][:2], np.nan)
    np.testing.assert_array_equal(both.values["cosine"][2:], whole.values["cosine"][2:])
    np.testing.assert_array_equal(both.values["clip_ratio"][2:], 1)
    np.testing.assert_array_equal(per_optimizer(both, "loss")[:, 0], [1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(per_optimizer(both, "skipped")[:, 0], [np.nan, np.nan, 1, 1])
    without = join([Chunk(layout, chunk.steps, {}) for chunk in (first, second)])
    assert without.values == without.totals == {}


def test_joining_chunks_of_one_layout_is_concatenation() -> None:
    whole = random_chunk(layout_of(A, B), range(9))
    parts = [whole.select(np.arange(9) // 3 == i) for i in range(3)]
    assert_equal(join(parts), whole)
    assert_equal(join([whole]), whole)


def test_joined_layers_are_nan_where_they_did_not_exist() -> None:
    a, b = layout_of(A, B).variables
    first, second = random_chunk(Layout((a,)), [0, 1]), random_chunk(Layout((b,)), [2])
    both = join([first, second])
    assert both.layout.layers == ["a", "b"]
    for statistic in STATISTICS:
        of_a, of_b = per_layer(both, statistic).T
        np.testing.assert_array_equal(of_a[:2], per_layer(first, statistic)[:, 0])
        np.testing.assert_array_equal(of_b[2:], per_layer(second, statistic)[:, 0])
        assert np.isnan([of_a[2], of_b[0], of_b[1]]).all()


def test_a_layer_whose_kernel_changes_its_shape_stays_one_layer() -> None:
    narrow, wide = Variable("a/kernel", "a", (2,)), Variable("a/kernel", "a", (6,))
    chunks = [
        random_chunk(Layout((variable,)), [step]) for step, variable in enumerate([narrow, wide])
    ]
    both = join(chunks)
    assert both.layout.layers == ["a"]
    expected = [per_layer(chunk, "mean_abs")[0, 0] for chunk in chunks]
    np.testing.assert_allclose(per_layer(both, "mean_abs")[:, 0], expected, rtol=1e-12)


def test_statistics_of_layers_and_of_optimizers_have_names_of_their_own() -> None:
    assert not set(STATISTICS) & set(TOTAL_STATISTICS)
    assert set(TOTALS) < set(TOTAL_STATISTICS)
