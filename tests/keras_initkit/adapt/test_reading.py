"""What `adapt()` can be told: missing values, masks, weights, limits, methods, parts."""

import signal
import threading
import time
import tracemalloc

import keras
import numpy as np
import pytest

from keras_initkit import Moments
from keras_initkit.adapt import reading
from keras_initkit.layers import Normalization
from tests.keras_initkit.layers.adapted import adapted, numpy, table

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def check(layer, mean, variance):
    np.testing.assert_allclose(numpy(layer.adapt_mean), mean, rtol=1e-6)
    np.testing.assert_allclose(numpy(layer.adapt_variance), variance, rtol=1e-6)


def check_rows(layer, rows):
    check(layer, rows.astype(np.float64).mean(axis=0), rows.astype(np.float64).var(axis=0))


@pytest.fixture
def holes():
    x = table().astype(np.float64)
    x[np.random.default_rng(1).random(x.shape) < 0.05] = np.nan
    return x


# Missing values.


@pytest.mark.parametrize("cuts", [1, 9])
def test_nan_can_be_left_out(holes, cuts):
    layer = adapted(np.array_split(holes, cuts), {"nan": "ignore"})
    check(layer, np.nanmean(holes, axis=0), np.nanvar(holes, axis=0))
    assert layer.moments.count.tolist() == (~np.isnan(holes)).sum(axis=0).tolist()


def test_nan_can_propagate(holes):
    holes[:, [0, 2]] = table()[:, [0, 2]]
    layer = adapted(holes, {"nan": "propagate"})
    whole = np.array([True, False, True, False, False])
    assert np.isnan(numpy(layer.adapt_mean)).tolist() == (~whole).tolist()
    variance = numpy(layer.adapt_variance)[whole]
    np.testing.assert_allclose(variance, holes.var(axis=0)[whole], rtol=1e-6)


@pytest.mark.parametrize("nan", ["error", "ignore", "propagate"])
@pytest.mark.parametrize("cuts", [1, 7])
def test_an_infinite_value_is_an_error_that_says_where(nan, cuts):
    x = table()
    x[432, 3] = -np.inf
    message = r"must be finite. Received: -inf at row 432, feature 3, the first of 0 NaN and 1 inf"
    with pytest.raises(ValueError, match=message):
        adapted(np.array_split(x, cuts), {"nan": nan})


def test_nan_is_an_error_that_says_what_to_write():
    x = table()
    x[[9, 20], 1] = np.nan
    message = (
        r"Received: nan at row 9, feature 1, the first of 2 NaN .* rows 0 to 699.*nan='ignore'"
    )
    with pytest.raises(ValueError, match=message):
        adapted(x)


def test_the_place_of_a_bad_value_in_an_image():
    x = np.zeros((40, 5, 4, 3), "float32")
    x[17, 2, 3, 1] = np.inf
    with pytest.raises(ValueError, match="inf at row 17, feature 1,"):
        adapted(x)
    with pytest.raises(ValueError, match=r"inf at row 17, feature \(2, 1\),"):
        adapted(x, axis=(1, 3))


# What counts, and how much.


def test_masked_steps_do_not_count():
    x = np.random.default_rng(2).normal(2, 3, (50, 12, 4)).astype("float32")
    mask = np.arange(12) < np.random.default_rng(3).integers(1, 13, (50, 1))
    padded = np.where(mask[..., None], x, 0)
    for layer in (
        adapted(padded, {"mask": mask}),
        adapted(padded, {"mask_value": 0.0}),
        adapted(np.array_split(padded, 4), {"mask_value": 0.0}),
        adapted(np.ma.masked_array(padded, np.broadcast_to(~mask[..., None], x.shape))),
    ):
        check_rows(layer, x[mask])
    masked = keras.layers.Masking()(padded)
    assert np.array_equal(numpy(layer(masked)._keras_mask), mask)


@pytest.mark.parametrize("axes", [(700,), (50, 6)], ids=["of rows", "of steps"])
def test_weights_count(axes):
    x = np.random.default_rng(4).normal(2, 3, (*axes, 4)).astype("float32")
    weights = np.random.default_rng(5).integers(0, 3, axes)
    batches = [(x[:30], None, weights[:30]), (x[30:], None, weights[30:])]
    for layer in (adapted(x, {"sample_weight": weights}), adapted(batches)):
        check_rows(layer, np.repeat(x.reshape(-1, 4), weights.ravel(), axis=0))


def test_large_batches_are_cut_where_their_weights_are():
    x = np.random.default_rng(8).normal(2, 3, (100_000, 2, 3)).astype("float32")
    weights = np.random.default_rng(9).integers(0, 3, len(x))
    layer = adapted([(x, None, weights)], axis=1)
    check_rows(layer, np.repeat(x, weights, axis=0).transpose(0, 2, 1).reshape(-1, 2))
    assert layer.moments.rows == 300_000


def test_features_without_a_value(holes):
    holes[:, 2] = np.nan
    message = r"a value that counts for each feature. Received: none in 700 rows for 1 of 5.*: 2."
    with pytest.raises(ValueError, match=message):
        adapted(holes, {"nan": "ignore"})
    with pytest.raises(ValueError, match=r"for 5 of 5 features: 0, 1, 2, 3, 4. Check the mask"):
        adapted(table(), {"sample_weight": np.zeros(700)})


# Limits, progress, Ctrl-C.


def endless(x, size):
    while True:
        yield from (x[start : start + size] for start in range(0, len(x), size))


def test_steps_and_rows_limit_the_pass():
    x = table()
    check_rows(adapted(endless(x, 70), {"steps": 3}), x[:210])
    for data in (endless(x, 70), x):
        layer = adapted(data, {"max_rows": 333})
        check_rows(layer, x[:333])
        assert layer.moments.rows == 333


def test_progress_is_shown_on_request_and_when_it_takes_long(capsys, monkeypatch):
    batches = np.array_split(table(), 7)
    adapted(batches)
    adapted(batches, {"verbose": 0})
    assert capsys.readouterr().out == ""
    adapted(batches, {"verbose": 1})
    assert "700/" in capsys.readouterr().out
    monkeypatch.setattr(reading, "_SECONDS_WITHOUT_PROGRESS", 0.0)
    adapted(table())
    assert "700/700" in capsys.readouterr().out


@pytest.fixture
def _as_in_a_terminal():
    """Ctrl-C as Python has it; jobs in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_ctrl_c_keeps_what_was_read():
    x = table()

    def interrupted():
        yield x[:100]
        signal.raise_signal(signal.SIGINT)
        yield x[100:300]
        yield x[300:]

    with pytest.warns(UserWarning, match="Interrupted: the statistics are those of the 300 rows"):
        layer = adapted(interrupted())
    check_rows(layer, x[:300])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_a_second_ctrl_c_interrupts():
    def stuck():
        yield table()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)

    layer = Normalization()
    with pytest.raises(KeyboardInterrupt):
        layer.adapt(stuck())
    assert not layer.built
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread():
    layers = []
    thread = threading.Thread(target=lambda: layers.append(adapted(table())))
    thread.start()
    thread.join()
    check_rows(layers[0], table())


# Passes that are added, and parts.


def test_a_pass_can_go_on():
    x = table()
    first = adapted(x[:300])
    state = first.moments.get_state()
    second = Normalization()
    second.adapt(x[300:], initial=Moments.from_state(state))
    check_rows(second, x)
    np.testing.assert_array_equal(first.moments.get_state()["m2"], state["m2"])


def test_a_pass_by_extremes_goes_on_from_such_only():
    first = adapted(table())
    layer = Normalization(method="min_max")
    with pytest.raises(ValueError, match=r"^`initial` must hold minima and maxima for method='min"):
        layer.adapt(table(), initial=first.moments)
    layer.adapt(table()[300:], initial=Moments((5,)).update(table()[:300]))
    whole = adapted(table(), method="min_max")
    np.testing.assert_array_equal(numpy(layer(table())), numpy(whole(table())))


def test_an_engine_gives_the_same():
    x = table()

    def engine(shards, reduce):
        states = [reduce(shard) for shard in shards]
        while len(states) > 1:
            states.append(states.pop(0).merge(states.pop(0)))
        return states[0]

    parts = [x[:5], lambda: x[5:400], [x[400:500], x[500:]]]
    layer = adapted(parts, {"engine": engine})
    check_rows(layer, x)
    with pytest.raises(ValueError, match="All parts of `data` must have the same features"):
        adapted([x, x[:, 0, None, None]], {"engine": engine})


def test_a_pass_takes_little_memory():
    images = np.zeros((3000, 32, 32, 3), "uint8")
    images[::2] = 255
    adapted(images[:10])
    tracemalloc.start()
    layer = adapted(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check(layer, 127.5, 127.5**2)
    assert peak < 5e6 < images.nbytes  # 9.2 MB, 74 as float64
