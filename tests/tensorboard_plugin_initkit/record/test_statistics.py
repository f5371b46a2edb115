"""Statistics of layers against NumPy on the gradients themselves, as one long vector."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tensorboard_plugin_initkit.record.statistics import (
    STATISTICS,
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
    per_variable,
    recorded_statistics,
)
from tests.tensorboard_plugin_initkit.record.made import A2, A, B, C, ones, random_chunk, sized

pytestmark = pytest.mark.numpy_alone

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


# Statistics of a layer.

variables = st.lists(
    st.tuples(st.sampled_from(["first", "second", "third"]), st.integers(1, 50)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60, deadline=None)
@given(variables, st.integers(0, 4), st.integers(0, 2**32), st.data())
def test_the_variables_of_a_layer_count_as_one_long_vector(columns, n, seed, data):
    layout, rng = sized(*columns), np.random.default_rng(seed)
    special = st.sampled_from([None, None, None, np.nan, np.inf, -np.inf])
    steps = [
        [
            Tensors(size, rng, data.draw(special)) if data.draw(st.integers(0, 3)) else None
            for _, size in columns
        ]
        for _ in range(n)
    ]
    values = {
        name: [[one.recorded()[name] if one else np.nan for one in row] for row in steps]
        for name in (*OF_TENSORS, "clip_ratio", "update_norm")
    }
    chunk = ones(layout, range(n), **values if n else {})
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


def test_what_is_recorded_of_a_variable_without_gradient_does_not_count():
    garbage = {name: [np.nan, 2, 7] for name in RECORDED if name != "nonfinite"}
    chunk = ones(sized(A, B, A2), [0], nonfinite=[np.nan, 0, 0], **garbage)
    for statistic in ("norm", "mean_abs", "max_abs", "zeros", "weight_norm"):
        np.testing.assert_array_equal(per_layer(chunk, statistic), [[7, 2]])
    np.testing.assert_array_equal(per_layer(chunk, "nonfinite"), [[0, 0]])
    np.testing.assert_array_equal(per_layer(chunk, "update_ratio"), [[1, 1]])


@pytest.mark.parametrize("scale", [1e-38, 3e38])
def test_norms_near_the_ends_of_float32_neither_overflow_nor_vanish(scale):
    norms = dict.fromkeys(("norm", "local_norm", "weight_norm", "update_norm"), scale)
    chunk = ones(sized(A, A2), [0], clip_ratio=[0.01, 1], **norms)
    for statistic in ("norm", "rms", "raw_norm", "local_norm", "weight_norm"):
        layer = per_layer(chunk, statistic)
        assert np.isfinite(layer).all()
        assert (layer > 0.1 * scale).all()
    np.testing.assert_allclose(per_layer(chunk, "update_ratio"), 1)


def test_dead_units_are_counted_where_they_are_known():
    # A kernel whose layer has a bias tells nothing itself; another kernel of the layer does.
    variables = [("a/kernel", (9, 4)), ("a/bias", (4,)), ("a/other", (3, 12)), ("b/kernel", (3, 5))]
    layout = Layout(tuple(Variable(path, path[0], shape) for path, shape in variables))
    chunk = ones(layout, [0], dead_units=[np.nan, 0.5, 0.25, np.nan])
    np.testing.assert_allclose(per_layer(chunk, "dead_units"), [[(2 + 3) / 16, np.nan]])


@pytest.mark.parametrize("statistic", ["cosine", "snr"])
def test_what_is_sampled_is_averaged_by_squared_norm(statistic):
    sampled = {statistic: [1, -0.5, np.nan, np.nan]}
    chunk = ones(sized(A, A2, A, B), [0], norm=[1, 3, 9, 0], **sampled)
    np.testing.assert_allclose(per_layer(chunk, statistic), [[(1 - 9 * 0.5) / 10, np.nan]])


def test_what_is_not_recorded_is_nan_and_what_is_not_clipped_has_ratio_1():
    chunk = ones(sized(A, B, A2), [0, 1], nonfinite=[[0, np.nan, 0], [0, 0, 0]])
    recorded = {name: chunk.values[name] for name in ("norm", "nonfinite")}
    partly = dataclasses.replace(chunk, values=recorded, totals={})
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


def test_an_empty_variable_has_no_magnitude():
    chunk = ones(sized(("a", 0), ("a", 4), ("b", 0)), [0], norm=[0, 3, 0])
    np.testing.assert_array_equal(per_layer(chunk, "rms"), [[1.5, np.nan]])
    np.testing.assert_array_equal(per_variable(chunk, "rms"), [[0, 1.5, 0]])


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (["norm", "nonfinite"], ["norm", "rms", "signal", "nonfinite"]),
        (["norm", "clip_ratio"], ["norm", "rms", "signal", "raw_norm", "clip_ratio"]),
        (["update_norm"], []),
        (["update_norm", "weight_norm"], ["weight_norm", "update_ratio"]),
    ],
)
def test_recorded_is_what_can_be_computed(measured, expected):
    assert recorded_statistics(dict.fromkeys(measured, np.zeros((1, 1)))) == expected


# Statistics of a variable.


def test_a_statistic_of_a_variable_is_what_was_recorded_of_it():
    chunk = random_chunk(sized(A, B, A2), range(5))
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


def test_ratios_of_numbers_that_are_zero_or_not_finite():
    nan, inf = np.nan, np.inf
    update = [3, 0, 0, 2, inf, 2, 0, inf, nan, 2, 0, nan, 1e38]
    weight = [2, 2, 0, 0, 2, inf, inf, inf, 2, nan, nan, 0, 1e-38]
    ratio = [1.5, 0, 0, inf, inf, 0, 0, nan, nan, nan, nan, nan, 1e76]
    norm, clip, raw = [2, 1, 0, 0, nan], [1, 0.25, 1, 0, 1], [2, 4, 0, 0, nan]
    updates = ones(sized(B), range(13), update_norm=_column(update), weight_norm=_column(weight))
    clipped = ones(sized(B), range(5), norm=_column(norm), clip_ratio=_column(clip))
    for statistic_of in (per_layer, per_variable):
        got = statistic_of(updates, "update_ratio")
        np.testing.assert_allclose(got, _column(ratio), rtol=1e-6)
        np.testing.assert_array_equal(statistic_of(clipped, "raw_norm"), _column(raw))
    expected = _column([1, 0.25, 1, 1, nan])
    np.testing.assert_array_equal(per_layer(clipped, "clip_ratio"), expected)


def _column(values):
    return np.array(values, np.float64)[:, None]


# Statistics of an optimizer.


def test_global_norms_are_those_of_an_optimizers_variables_together():
    chunk = ones(
        sized(A, B, A2, C, optimizers=["first", "second", "idle"]),
        [0, 1],
        norm=[3, 7, 1, 4],
        clip_ratio=[0.5, 1, 1, 1],
        nonfinite=[[0, 0, np.nan, 0], [np.nan, 0, np.nan, np.nan]],
    )
    expected = [[5, 7, np.nan], [np.nan, 7, np.nan]]
    np.testing.assert_array_equal(per_optimizer(chunk, "global_norm"), expected)
    expected[0][0] = np.sqrt(6**2 + 4**2)
    np.testing.assert_allclose(per_optimizer(chunk, "global_raw_norm"), expected)


def test_totals_are_what_was_recorded():
    table = np.array([[1, 2], [3, np.nan], [5, 6]], np.float32)
    layout = sized(A, B, optimizers=["first", "second"])
    chunk = ones(layout, range(3), **dict.fromkeys(TOTALS, table))
    for name in TOTALS:
        got = per_optimizer(chunk, name)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, table)
    assert not set(STATISTICS) & set(TOTAL_STATISTICS)


def noisy_gradients(replicas, n, batch=32):
    """Make a chunk of data parallelism and its noise scale, with known |G|² and tr(Σ)."""
    rng = np.random.default_rng(0)
    true = [rng.normal(size=size) for size in (30, 50)]
    scales = [rng.uniform(0.5, 4, len(g)) for g in true]  # of one sample's noise
    trace = sum(np.sum(np.square(scale)) for scale in scales)
    # In units of the batch: at this batch size noise and gradient are as large.
    noise_scale = trace / batch / sum(np.sum(np.square(g)) for g in true)
    part = np.sqrt(replicas / batch)
    local = [
        g + part * scale * rng.normal(size=(n, replicas, len(g)))
        for g, scale in zip(true, scales, strict=True)
    ]
    norm = [np.linalg.norm(g.mean(axis=1), axis=-1) for g in local]
    local_norm = [np.sqrt(np.square(g).sum(axis=-1).mean(axis=1)) for g in local]
    layout = sized(*((f"layer_{i}", len(g)) for i, g in enumerate(true)), replicas=replicas)
    values = {"norm": np.stack(norm, axis=1), "local_norm": np.stack(local_norm, axis=1)}
    return ones(layout, range(n), **values), noise_scale


@pytest.mark.parametrize("replicas", [2, 8])
def test_the_noise_scale_is_that_of_gradients_of_known_noise(replicas):
    chunk, expected = noisy_gradients(replicas, 400)
    noise_scale = per_optimizer(chunk, "noise_scale")
    assert noise_scale.shape == (400, 1)
    # Averages of 50 records; half of 400 of them overlap.
    np.testing.assert_allclose(noise_scale[50:].mean(), expected, rtol=0.1)
    np.testing.assert_allclose(noise_scale[50:], expected, rtol=0.6)
    # It is of gradients before clipping.
    chunk.values["norm"][:] /= 8
    chunk.values["clip_ratio"][:] /= 8
    np.testing.assert_allclose(per_optimizer(chunk, "noise_scale"), noise_scale, rtol=1e-5)


def test_the_noise_scale_is_the_ratio_of_means_of_the_last_50_records():
    chunk, _ = noisy_gradients(2, 120)
    noise_scale = per_optimizer(chunk, "noise_scale")[:, 0]
    norms = (chunk.values[name].astype(float) for name in ("norm", "local_norm"))
    whole, part = (np.square(norm).sum(axis=1) for norm in norms)
    for i in (0, 1, 49, 50, 119):
        rows = slice(max(0, i - 49), i + 1)
        expected = np.mean(part[rows] - whole[rows]) / np.mean(2 * whole[rows] - part[rows])
        np.testing.assert_allclose(noise_scale[i], expected if expected > 0 else np.nan, rtol=1e-4)


def test_records_that_are_not_finite_leave_the_noise_scale_of_others_alone():
    chunk, _ = noisy_gradients(2, 60)
    rest = np.delete(np.arange(60), [30, 40])
    expected = per_optimizer(chunk.select(rest), "noise_scale")[-1, 0]
    chunk.values["norm"][30] = np.inf
    chunk.values["local_norm"][40] = np.nan
    noise_scale = per_optimizer(chunk, "noise_scale")[:, 0]
    assert np.isnan(noise_scale[[30, 40]]).all()
    np.testing.assert_allclose(noise_scale[-1], expected, rtol=0.2)
    assert np.isfinite(noise_scale[rest[20:]]).all()


def test_without_replicas_or_where_noise_hides_the_gradient_there_is_no_noise_scale():
    two = sized(A, B, replicas=2)
    for chunk in (ones(sized(A, B), range(3)), ones(two, range(3), local_norm=9)):
        np.testing.assert_array_equal(per_optimizer(chunk, "noise_scale"), [[np.nan]] * 3)
    assert per_optimizer(ones(two, []), "noise_scale").shape == (0, 1)
