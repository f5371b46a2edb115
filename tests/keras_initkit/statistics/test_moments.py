"""One pass equals two passes, however the rows are cut, ordered and offset."""

import pickle
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_initkit.statistics.moments import Moments
from tests.keras_initkit.statistics.two_passes import TOLERANCE, check, two_pass

pytestmark = pytest.mark.numpy_alone


def sample(seed, rows, features, offset):
    generator = np.random.default_rng(seed)
    return generator.normal(offset, 1.0, (rows, features))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 1200),
    features=st.integers(1, 5),
    offset=st.sampled_from([0.0, -3.0, 1e3, -1e6, 1e6]),
    order=st.sampled_from(["as is", "sorted", "reversed", "shuffled"]),
    data=st.data(),
)
def test_any_cut_any_order_any_offset(seed, rows, features, offset, order, data):
    x = sample(seed, rows, features, offset)
    if order != "as is":
        x = np.sort(x, axis=0)
    if order == "reversed":
        x = x[::-1]
    if order == "shuffled":
        x = np.random.default_rng(seed).permutation(x)
    few = st.lists(st.integers(0, rows), max_size=6).map(sorted)
    cuts = data.draw(few | st.just(range(1, min(rows, 99))))
    updated, merged = Moments((features,)), Moments((features,))
    for part in np.split(x, cuts):
        updated.update(part)
        merged = Moments((features,)).update(part).merge(merged)
    check(updated, x)
    check(merged, x)


def with_outlier(place):
    x = sample(2, 5000, 2, 0.0)
    x[place] = 1e6
    return x


WIDE = sample(5, 9000, 40, 2.0)
COUNTS = np.random.default_rng(4).integers(0, 120, (1500, 3))
ROWS = {
    # Short rows are joined into wide ones, with some left over; long ones are a chunk each.
    **{
        f"{n} features": sample(1, rows, n, 2.5).astype("float32")
        for n, rows in [(1, 2111), (3, 2111), (700, 2111), (5000, 30), (70_000, 17)]
    },
    "no feature axis": sample(6, 400, 1, 0.0)[:, 0],
    "two feature axes": sample(6, 400, 12, 0.0).reshape(400, 3, 4),
    "three feature axes": sample(6, 400, 12, 0.0).reshape(400, 2, 3, 2),
    **{f"an outlier at {place}": with_outlier(place) for place in (0, 1, 300, -1)},
    **{
        f"times {factor}": sample(3, 1000, 2, 3.0) * factor
        for factor in (1e-150, 1e-30, 1e30, 1e150)
    },
    # As exact as float64 allows: the values themselves are rounded to 1e-7 deviations.
    "an offset of a billion deviations": sample(15, 20_000, 1, 1e9),
    "Fortran's order": np.asfortranarray(WIDE),
    "every third row": WIDE[::3],
    "every second feature": WIDE[:, ::2],
    "from the end": WIDE[::-1],
    "one row again and again": np.broadcast_to(WIDE[:1], WIDE.shape),
    # Codes of NumPy: booleans, integers, halves, floats, doubles.
    **{f"dtype {code}": COUNTS.astype(code) for code in [*"?bBhiIqQefd", ">f4"]},
    "bfloat16": COUNTS.astype(ml_dtypes.bfloat16),
    "float8": COUNTS.astype(ml_dtypes.float8_e4m3fn),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_rows_of_every_kind(rows):
    check(Moments(rows.shape[1:]).update(rows), rows)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 600),
    constant=st.sampled_from([0.0, 0.1, -1e-30, 3.3e8, 1 / 3]),
    way=st.sampled_from(["whole", "parts", "masked", "weighted", "merged"]),
)
def test_constants_are_told_from_all_others(seed, rows, constant, way):
    generator = np.random.default_rng(seed)
    x = np.stack([np.full(rows, constant), generator.normal(1e6, 1, rows)], axis=1)
    if rows > 1:  # nearly constant
        x = np.column_stack([x, np.where(np.arange(rows) == rows // 2, 1 + 2**-52, 1.0)])
    mask, weight = generator.random(rows) < 0.7, generator.random(rows) + 0.1
    plain, extreme = (Moments((x.shape[1],), extremes) for extremes in (False, True))
    for moments in (plain, extreme):
        if way == "whole":
            moments.update(x)
        elif way == "merged":
            first = Moments(moments.shape, moments.extremes).update(x[: rows // 3])
            moments.merge(first).update(x[rows // 3 :])
        else:
            for part in np.array_split(np.arange(rows), 3):
                if way == "masked":
                    moments.update(x[part], mask=mask[part])
                else:
                    used = weight[part] if way == "weighted" else None
                    moments.update(x[part], sample_weight=used)
    expected = extreme.min == extreme.max
    np.testing.assert_array_equal(plain.constant, expected)
    np.testing.assert_array_equal(extreme.constant, expected)
    np.testing.assert_array_equal(plain.m2, extreme.m2)
    np.testing.assert_array_equal(plain.mean, extreme.mean)
    assert plain.mean[0] == constant or plain.count[0] == 0


def test_extremes_may_be_left_out():
    x = sample(0, 50, 3, 0.0)
    plain, whole = Moments((3,), extremes=False).update(x), Moments((3,)).update(x)
    assert np.isnan([plain.min, plain.max]).all()
    again = Moments.from_state(plain.get_state())
    assert not again.extremes
    # Of both together they are not known.
    assert np.isnan(again.update(x).merge(whole).min).all()
    both = Moments((3,)).update(x).merge(plain)
    assert not both.extremes
    assert np.isnan(both.max).all()
    assert whole.extremes


@pytest.mark.parametrize("dtype", ["complex64", "O", "U3", "M8[s]"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=r"must hold booleans, integers.* Received: batch.dtype"):
        Moments((1,)).update(np.zeros((2, 1), dtype))


def test_non_finite_values_are_counted_and_stay_in_their_feature():
    x = sample(7, 5000, 4, 1.0)
    x[[3, 400, 4999], 1] = np.nan
    x[2000, 2], x[2001, 2] = np.inf, -np.inf
    moments = Moments((4,))
    for part in np.array_split(x, 3):
        moments.update(part)
    assert moments.nan_count.tolist() == [0, 3, 0, 0]
    assert moments.inf_count.tolist() == [0, 0, 2, 0]
    assert np.isnan(moments.mean[1])
    mean, squares = two_pass(x[:, [0, 3]])
    np.testing.assert_allclose(moments.mean[[0, 3]], mean, rtol=TOLERANCE)
    np.testing.assert_allclose(moments.m2[[0, 3]], squares, rtol=TOLERANCE)


def test_no_rows():
    empty = Moments((2,)).update(np.zeros((0, 2)))
    assert empty.rows == 0
    assert empty.count.tolist() == [0, 0]
    assert np.isnan(empty.mean).all()
    assert np.isnan(empty.variance).all()
    x = sample(8, 10, 2, 1.0)
    check(Moments((2,)).update(x).merge(empty), x)
    check(empty.merge(Moments((2,)).update(x)), x)


def test_merge_leaves_the_other_alone():
    x = sample(9, 20, 2, 1.0)
    other = Moments((2,)).update(x[:10])
    total = Moments((2,)).merge(other).update(x[10:])
    check(total, x)
    check(other, x[:10])


def test_state_goes_on_where_it_was():
    x = np.sort(sample(10, 600, 2, 1e6), axis=0)
    state = Moments((2,)).update(x[:300]).get_state()
    assert {type(value) for value in state.values()} == {np.ndarray}
    check(Moments.from_state(state).update(x[300:]), x)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 900),
    features=st.integers(1, 4),
    offset=st.sampled_from([0.0, -3.0, 1e3, 1e6]),
    kinds=st.sampled_from(["mask", "row mask", "weights", "row weights", "both"]),
    cuts=st.integers(1, 6),
)
def test_masks_and_weights(seed, rows, features, offset, kinds, cuts):
    generator = np.random.default_rng(seed)
    x = generator.normal(offset, 1.0, (rows, features))
    by_row = kinds.startswith("row")
    mask = generator.random((rows,) if by_row else x.shape) < 0.6
    mask[0] = True
    weights = np.where(mask, generator.exponential(size=mask.shape), 0.0)
    is_masked, is_weighted = "weights" not in kinds, "mask" not in kinds
    used = (weights if is_weighted else mask.astype(float)).reshape(rows, -1)
    used = np.broadcast_to(used, x.shape)
    spoilt = x if is_weighted else np.where(used > 0, x, np.nan)
    moments = Moments((features,))
    for part in np.array_split(np.arange(rows), cuts):
        one = Moments((features,)).update(
            spoilt[part],
            mask=mask[part] if is_masked else None,
            sample_weight=weights[part] if is_weighted else None,
        )
        moments.merge(one)
    mean, squares = two_pass(x, used)
    assert moments.rows == rows
    np.testing.assert_array_equal(moments.count, (used > 0).sum(axis=0))
    np.testing.assert_allclose(moments.weight, used.sum(axis=0), rtol=TOLERANCE)
    np.testing.assert_allclose(moments.mean, mean, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(moments.m2, squares, rtol=TOLERANCE, atol=1e-10 * (offset == 0))
    np.testing.assert_array_equal(moments.min, np.where(used > 0, x, np.inf).min(axis=0))
    np.testing.assert_array_equal(moments.max, np.where(used > 0, x, -np.inf).max(axis=0))


def test_a_feature_that_counts_only_later_is_exact():
    x = sample(13, 3000, 2, 1e6)
    mask = np.ones(x.shape, bool)
    mask[:1500, 1] = False
    moments = Moments((2,)).update(x[:1500], mask=mask[:1500]).update(x[1500:])
    mean, squares = two_pass(x, mask.astype(float))
    np.testing.assert_allclose(moments.mean, mean, rtol=TOLERANCE)
    np.testing.assert_allclose(moments.m2, squares, rtol=TOLERANCE)
    assert np.isnan(Moments((2,)).update(x[:9], mask=mask[:9]).mean).tolist() == [False, True]


def test_billions_of_rows():
    x = sample(14, 1000, 2, 1e5)
    moments = Moments((2,)).update(x)
    mean, variance = moments.mean, moments.variance
    for _ in range(20):
        moments.merge(Moments.from_state(moments.get_state()))
    assert moments.count.tolist() == [1000 * 2**20] * 2
    np.testing.assert_allclose(moments.mean, mean, rtol=TOLERANCE)
    np.testing.assert_allclose(moments.variance, variance, rtol=TOLERANCE)


def test_pickled_without_its_buffer():
    x = sample(16, 5000, 2, 1.0)
    moments = Moments((2,)).update(x)
    data = pickle.dumps(moments)
    assert len(data) < 3000
    check(pickle.loads(data), x)


def test_masks_and_weights_are_checked():
    moments, x = Moments((3,)), np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(4,\) or \(4, 3\)"):
        moments.update(x, mask=np.ones(3, bool))
    with pytest.raises(ValueError, match=r"`mask` must be booleans.* Received: dtype=float64"):
        moments.update(x, mask=np.ones(4))  # type: ignore[arg-type]
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="`sample_weight` must be finite and not negative"):
            moments.update(x, sample_weight=np.array([1, 1, bad, 1]))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"must have the shape \(rows, 3\). Received: .*\(4, 2\)"):
        Moments((3,)).update(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"must have the shape \(3,\). Received: .*\(2,\)"):
        Moments((3,)).merge(Moments((2,)))


def test_a_memory_map_is_never_copied_whole(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(11).normal(3, 2, (200_000, 16)).astype("float32"))
    mapped = np.load(path, mmap_mode="r")
    tracemalloc.start()
    moments = Moments((16,)).update(mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert moments.rows == 200_000
    # 12.8 MB of data; one chunk is 512 KiB as float64.
    assert peak < 1_500_000
