"""What a monitor records besides norms, and how it is told what to record, on every backend."""

import functools
import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_initkit.callbacks import ActivationProbe, GradientMonitor
from tensorboard_plugin_initkit.record.statistics import STATISTICS
from tests.callbacks.capture.test_backends import small
from tests.callbacks.measures.test_directions import by_definition
from tests.callbacks.training import (
    BACKEND,
    LOSS,
    QUICK,
    STEPS,
    Beside,
    compiled,
    data,
    fit,
    label,
    layers,
    mlp,
    norms,
)

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")
ON_TORCH = pytest.mark.backends("torch")


def record_with(*monitors, make=small):
    """Train once under several monitors."""
    keras.backend.clear_session(free_memory=False)  # layers have the same names each time
    fit(compiled(make, **QUICK), *monitors)
    return [monitor.history for monitor in monitors]


@functools.cache
def everything():
    return record_with(GradientMonitor(every_n_steps=1))[0]


def clipped_by_norm(gradients):
    return [g * min(1, 0.05 / np.linalg.norm(g)) for g in gradients]


def clipped_by_value(gradients):
    return [np.clip(g, -0.01, 0.01) for g in gradients]


def clipped_by_global_norm(gradients):
    total = np.sqrt(sum(np.sum(g**2) for g in gradients))
    return [g * min(1, 0.1 / total) for g in gradients]


@pytest.mark.parametrize(
    ("argument", "clip"),
    [
        ({"clipnorm": 0.05}, clipped_by_norm),
        ({"clipvalue": 0.01}, clipped_by_value),
        ({"global_clipnorm": 0.1}, clipped_by_global_norm),
    ],
    ids=label,
)
def test_norms_before_and_after_clipping_and_a_learning_rate_that_falls(argument, clip):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    monitor, beside = GradientMonitor(every_n_steps=1), Beside()
    fit(compiled(small, keras.optimizers.SGD(schedule, **argument), **QUICK), beside, monitor)
    history, given = monitor.history, [gradients for gradients, _ in beside.seen]
    applied = [clip(gradients) for gradients in given]
    raw, norm = (np.array([norms(step) for step in steps]) for steps in (given, applied))
    np.testing.assert_allclose(history.per_variable("norm"), norm, rtol=1e-5)
    np.testing.assert_allclose(history.per_variable("raw_norm"), raw, rtol=1e-5)
    np.testing.assert_allclose(history.per_variable("clip_ratio"), norm / raw, rtol=1e-5)
    assert (norm / raw).min() < 0.9
    for name, of_variables in (("global_norm", norm), ("global_raw_norm", raw)):
        np.testing.assert_allclose(
            history[name][:, 0], np.linalg.norm(of_variables, axis=1), rtol=1e-5
        )
    layer = np.linalg.norm(norm[:, :2], axis=1) / np.linalg.norm(raw[:, :2], axis=1)
    np.testing.assert_allclose(history["clip_ratio"][:, 0], layer, rtol=1e-5)
    np.testing.assert_allclose(
        history["learning_rate"][:, 0], 0.1 * 0.5 ** (np.arange(STEPS) / 2), rtol=1e-5
    )


def test_without_clipping_nothing_is_clipped_and_rms_is_the_norm_by_the_size():
    history = everything()
    np.testing.assert_array_equal(history["clip_ratio"], 1)
    np.testing.assert_array_equal(history["raw_norm"], history["norm"])
    sizes = [8 * 6 + 6, 6 * 4 + 4]
    np.testing.assert_allclose(history["rms"], history["norm"] / np.sqrt(sizes), rtol=1e-12)


def partly_dead(use_bias):
    """Of the first layer's 16 ReLUs five never open; of the second one's four."""

    def make():
        model = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(16, "relu"),
                layers.Dense(8, "relu", use_bias=use_bias),
                layers.Dense(4),
            ]
        )
        kernel, bias, *rest = model.get_weights()
        bias[:5] = -100
        rest[0] = np.abs(rest[0])
        rest[0][:, :4] *= -1
        model.set_weights([kernel, bias, *rest])
        return model

    return make


@pytest.mark.newest
@pytest.mark.parametrize("use_bias", [pytest.param(True, marks=ON_TORCH), False])
def test_dead_units_are_counted_with_and_without_a_bias(use_bias):
    monitor, beside = GradientMonitor(every_n_steps=1), Beside()
    fit(compiled(partly_dead(use_bias), keras.optimizers.SGD(0.05), **QUICK), beside, monitor)
    history, want = monitor.history, []
    for gradients, _ in beside.seen:
        kernels = [g for g in gradients if g.ndim == 2]
        want.append([np.mean(~kernel.any(axis=0)) for kernel in kernels])
    np.testing.assert_allclose(history["dead_units"], want, atol=1e-7)
    np.testing.assert_allclose(history["dead_units"][0, :2], [5 / 16, 4 / 8])


@pytest.mark.newest
def test_directions_of_successive_gradients():
    beside = Beside()
    whole, part = (GradientMonitor(every_n_steps=1, sample_size=size) for size in (10**6, 64))
    fit(compiled(mlp, **QUICK), beside, whole, part, epochs=3)
    cosine, snr = (whole.history.per_variable(name) for name in ("cosine", "snr"))
    of_variables = zip(*(gradients for gradients, _ in beside.seen), strict=True)
    for column, gradients in enumerate(of_variables):
        want = by_definition(np.reshape(gradients, (3 * STEPS, -1)))
        np.testing.assert_allclose(cosine[:, column], want[0], atol=1e-5)
        np.testing.assert_allclose(snr[:, column], want[1], rtol=1e-4)
    # Kernels of 128 and 256 elements, of which 64 stand for all.
    error = (part.history.per_variable("cosine") - cosine)[1:, [0, 2, 4]]
    assert 0 < np.sqrt(np.mean(error**2)) < 0.15  # 1 / sqrt(64) is .125


@pytest.mark.backends("torch")
def test_every_monitor_records_what_it_would_alone_of_what_is_selected(tmp_path):
    want = everything()
    names = [path.rpartition("/")[2] for path in want.layers]
    selections = [
        (names[1], [1]),
        (want.layers[0], [0]),
        ([names[0], re.compile(f"{names[1]}$")], [0, 1]),
        (lambda layer: layer.name == names[1], [1]),
    ]
    monitors = [GradientMonitor(every_n_steps=1, layers=layers) for layers, _ in selections]
    monitors.append(GradientMonitor(every_n_steps=1, per="variable"))
    monitors.append(GradientMonitor(every_n_steps=1, statistics=["zeros"]))
    monitors += [GradientMonitor(tmp_path / str(n), every_n_steps=n) for n in (1, 2)]
    *selected, by_variable, zeros, every, second = record_with(*monitors)
    for history, (_, columns) in zip(selected, selections, strict=True):
        assert history.layers == [want.layers[i] for i in columns]
        np.testing.assert_array_equal(history["norm"], want["norm"][:, columns])
    assert by_variable.layers == want.variables == by_variable.variables
    np.testing.assert_array_equal(by_variable["norm"], want.per_variable("norm"))
    for name in ("norm", "rms", "zeros", "nonfinite", "clip_ratio"):
        np.testing.assert_array_equal(zeros[name], want[name])
    for name in ("mean_abs", "max_abs", "dead_units", "weight_norm", "update_ratio", "cosine"):
        assert np.isnan(zeros[name]).all()
    np.testing.assert_array_equal(second.steps, want.steps[::2])
    for name in STATISTICS:
        np.testing.assert_array_equal(every[name], want[name])
        np.testing.assert_array_equal(second[name], want[name][::2])


class Twins(keras.Model):
    """Two layers that have one name and one place, and a block of layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (layers.Dense(8, "tanh", name="twin") for _ in range(2))
        inside = [layers.Dense(8, "tanh", name="one"), layers.Dense(4, name="two")]
        self.block = keras.Sequential(inside, name="block")

    def call(self, x):
        return self.block(self.second(self.first(x)))


@pytest.mark.newest
@pytest.mark.backends("torch")
def test_layers_are_selected_by_name_inside_a_block_together_or_by_number():
    selections = [
        (None, [0, 1, 2, 3]),
        ("twin", [0, 1]),
        ("twin#2", [1]),
        (re.compile("twin$"), [0]),
        ((layers.Dense, "twin#2"), [1]),
        ("block", [2, 3]),
        ("block/two", [3]),
    ]
    monitors = [GradientMonitor(every_n_steps=1, layers=layers) for layers, _ in selections]
    whole, *histories = record_with(*monitors, make=Twins)
    assert whole.layers == ["twin", "twin#2", "block/one", "block/two"]
    for history, (_, columns) in zip(histories, selections[1:], strict=True):
        assert history.layers == [whole.layers[i] for i in columns]
        np.testing.assert_allclose(history["norm"], whole["norm"][:, columns], rtol=1e-6)


def towers():
    """A functional model of two models whose layers have the same names."""
    inputs = keras.Input((8,))
    outputs = []
    for name in ("left", "right"):
        inside = keras.Input((8,))
        outputs.append(keras.Model(inside, layers.Dense(4, name="fc")(inside), name=name)(inputs))
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Concatenate()(outputs)))


@pytest.mark.newest
@pytest.mark.backends("torch")
def test_layers_of_one_name_in_two_models_have_their_paths():
    selections = [None, "left", "right/fc", re.compile("^right")]
    recorded = record_with(*(GradientMonitor(layers=chosen) for chosen in selections), make=towers)
    assert [history.layers for history in recorded] == [
        ["left/fc", "right/fc", "head"],
        ["left/fc"],
        *2 * [["right/fc"]],
    ]


@pytest.mark.parametrize("chosen", ["conv", ["left", "conv"], layers.LSTM])
def test_a_selector_of_nothing_is_an_error_before_training(chosen):
    model = compiled(towers)
    named = re.escape(repr(chosen[1] if isinstance(chosen, list) else chosen))
    message = f"`layers` must select.*layers={named}. .* layers are left/fc, right/fc, head"
    with pytest.raises(ValueError, match=message):
        fit(model, GradientMonitor(layers=chosen))
    assert int(model.optimizer.iterations) == 0
    with pytest.raises(ValueError, match="`layers` must select a layer whose output"):
        fit(model, ActivationProbe(data()[0], layers=chosen if chosen != ["left", "conv"] else "x"))


def test_a_selection_of_frozen_layers_alone_is_told():
    model = compiled(towers)
    model.get_layer("left").trainable = False
    model.compile("sgd", LOSS)
    with pytest.warns(UserWarning, match="`layers` must select a layer that is trained"):
        fit(model, GradientMonitor(layers="left"))


class Late(keras.Model):
    """Its layers are made when it is called."""

    def build(self, shape):
        self.inside = [layers.Dense(4, name=name) for name in ("one", "two")]

    def call(self, x):
        return self.inside[1](self.inside[0](x))


@pytest.mark.filterwarnings("ignore:No layer is selected by layers='conv'")
@pytest.mark.parametrize(
    ("chosen", "recorded"),
    [pytest.param("two", ["two"], marks=ON_TORCH), ("conv", ["one", "two"])],
)
def test_a_selection_for_layers_that_come_later_never_costs_the_record(chosen, recorded):
    monitor = GradientMonitor(every_n_steps=1, layers=chosen)
    if chosen == "conv" and BACKEND != "tensorflow":  # there Keras builds the model before
        with pytest.raises(ValueError, match="are one, two"):
            fit(compiled(Late), monitor)
        return
    fit(compiled(Late), monitor)
    assert monitor.history.layers == recorded
    assert len(monitor.history) == STEPS


@pytest.mark.backends("torch")
def test_frozen_layers_are_listed_as_frozen():
    def frozen():
        model = mlp()
        model.layers[1].trainable = False
        return model

    model = compiled(frozen, **QUICK)
    monitor = GradientMonitor(every_n_steps=1)
    fit(model, monitor)
    paths = [layer.name for layer in model.layers]
    assert monitor.history.layers == [paths[0], *paths[2:]]
    assert monitor.history.frozen == [paths[1]]
    model.layers[0].trainable = False
    model.layers[1].trainable = True
    model.compile("sgd", model.loss, **QUICK)
    fit(model, monitor)
    assert monitor.history.frozen == [paths[0]]
    assert set(monitor.history.layers) == set(paths)
    assert np.isnan(monitor.history["norm"][STEPS:, monitor.history.layers.index(paths[0])]).all()


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_step_in_which_no_watched_layer_gets_a_gradient_is_recorded():
    class Detached(keras.layers.Layer):
        def call(self, x):
            return ops.stop_gradient(x)

    inputs = keras.Input((8,))
    hidden = Detached()(layers.Dense(8, name="cut_off")(inputs))
    network = keras.Model(inputs, layers.Dense(4)(hidden))
    network.compile("sgd", LOSS)
    monitor = GradientMonitor(every_n_steps=1, layers="cut_off")
    x = np.random.default_rng(0).normal(size=(24, 8)).astype("float32")
    network.fit(x, np.arange(24) % 4, batch_size=8, verbose=0, callbacks=[monitor])
    assert monitor.history.steps.tolist() == [0, 1, 2]
    norm = monitor.history["norm"]
    assert np.all(np.isnan(norm) | (norm == 0))  # JAX has a gradient for it: zero
    assert np.isfinite(monitor.history["learning_rate"]).all()
