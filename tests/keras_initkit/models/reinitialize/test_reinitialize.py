"""Weights of whole models drawn anew, on the backend in use."""

import re
import threading
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_initkit
from keras_initkit import defaults, fans, initializers, layer_aware, reinitialize
from keras_initkit.anatomy import initializers as own_initializers
from keras_initkit.anatomy.seeds import derived_seed, with_seed
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity import layer_fans
from keras_initkit.connectivity.layer_fans import owners
from keras_initkit.models.reinitialize import reinitialize as reinitialization
from tests.callbacks.training import compiled, data
from tests.keras_initkit import keras_layers

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers
BACKEND = keras.backend.backend()
HE, XAVIER = initializers.HeNormal, initializers.XavierUniform


def own_initializer(layer, variable) -> Any:
    return own_initializers.own_initializer(layer, variable)


def view_of_weight(owner, variable) -> Any:
    return layer_fans.view_of_weight(owner, variable)


def numpy(value):
    return np.asarray(keras.ops.convert_to_numpy(value))


def values(model):
    return {weight.path: numpy(weight.variable.value) for weight in weights_of(model)}


def in_order(model):
    return [numpy(weight) for weight in model.weights]


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def changed(before, after):
    return {path for path, value in after.items() if not np.array_equal(value, before[path])}


def small():
    """A model with a kernel, biases, a recurrent layer and a normalization."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, "relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Reshape((4, 3)),
            layers.LSTM(5, name="memory"),
            layers.Dense(4, name="head"),
        ]
    )


KERNELS = {"first/kernel", "memory/lstm_cell/kernel", "head/kernel"}
RECURRENT = {"memory/lstm_cell/recurrent_kernel"}


# What a layer initializes its weights with.


@pytest.mark.parametrize("kind", keras_layers.KINDS, ids=lambda kind: kind.__name__)
def test_own_initializers_are_what_the_layer_was_built_with(kind):
    layer = keras_layers.built(kind)
    for weight in weights_of(layer):
        if "float" not in str(weight.variable.dtype):
            continue
        drawn = own_initializer(weight.holder, weight.variable)(
            weight.variable.shape, dtype=weight.variable.dtype
        )
        if kind is layers.AdditiveAttention:  # makes its initializer anew each time
            assert np.abs(numpy(drawn)).max() <= np.sqrt(6 / (2 * 8))
        else:
            np.testing.assert_array_equal(numpy(drawn), numpy(weight.variable.value))


def test_axes_reach_keras_initializers_where_the_layer_gives_them():
    layer = layers.EinsumDense(
        "ab,bcd->acd", (3, 4), kernel_initializer=keras.initializers.HeNormal(seed=1)
    )
    layer.build((None, 5))
    drawn = own_initializer(layer, layer.kernel)(layer.kernel.shape, dtype="float32")
    np.testing.assert_array_equal(numpy(drawn), numpy(layer.kernel.value))


# Views.


@pytest.mark.parametrize("kind", keras_layers.KINDS, ids=lambda kind: kind.__name__)
def test_a_view_takes_a_weight_apart_and_puts_it_together(kind, rng):
    layer = keras_layers.built(kind)
    for variable, owner in owners(layer):
        view = view_of_weight(owner, variable)
        if view is None:
            continue
        weight = rng.normal(size=variable.shape).astype("float32")
        maps = view.to_maps(weight)
        assert tuple(maps.shape) == view.maps_shape
        np.testing.assert_array_equal(numpy(view.to_weight(maps)), weight)
        _, inputs, _ = view.matrix_shape
        # What a unit has weights of is what feeds it; an embedding's inputs are one-hot.
        if "embedding" not in kind.__name__.lower():
            assert view.fans.fan_in == inputs


def test_views_separate_what_does_not_touch():
    def maps(layer, name="kernel"):
        return next(
            view_of_weight(owner, variable).maps_shape
            for variable, owner in owners(layer)
            if variable.path.endswith(name)
        )

    def built(layer, *shape):
        layer.build(shape)
        return layer

    assert maps(built(layers.LSTM(5), None, 3, 2), "recurrent_kernel") == (4, 5, 5)
    assert maps(built(layers.Conv2D(6, 3, groups=2), None, 8, 8, 4)) == (2, 3, 3, 2, 3)
    assert maps(built(layers.DepthwiseConv2D(3), None, 8, 8, 4)) == (4, 3, 3, 1, 1)
    # The phases of a transposed convolution, if all have as many taps.
    assert maps(built(layers.Conv2DTranspose(3, 4, strides=2), None, 8, 8, 5)) == (4, 2, 2, 5, 3)
    assert maps(built(layers.Conv2DTranspose(3, 3, strides=2), None, 8, 8, 5)) == (1, 3, 3, 5, 3)
    attention = layers.MultiHeadAttention(2, 4)
    attention.build((None, 3, 8), (None, 3, 8))
    assert maps(attention, "query/kernel") == (2, 8, 4)
    assert maps(attention, "attention_output/kernel") == (1, 8, 8)


def test_phases_of_a_transposed_convolution_do_not_touch():
    layer = layers.Conv1DTranspose(1, 4, strides=2, padding="same", use_bias=False)
    layer.build((None, 8, 1))
    ((variable, owner),) = owners(layer)
    view = view_of_weight(owner, variable)
    maps = np.zeros(view.maps_shape, "float32")
    maps[0] = 1
    layer.kernel.assign(view.to_weight(maps))
    reached = numpy(layer(np.ones((1, 8, 1), "float32")))[0, 2:-2, 0] != 0
    assert reached[::2].all() != reached[1::2].all()
    assert reached[::2].any() != reached[1::2].any()


# Seeds.


def test_a_seed_is_pinned():
    assert derived_seed(0, "dense/kernel") == 4054818103


def test_the_same_seed_gives_the_same_weights_whatever_was_named_before():
    first = small()
    keras.Sequential([layers.Dense(1), layers.Dense(1)])
    second = small()
    unnamed = [
        keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(4)]) for _ in range(2)
    ]
    assert unnamed[0].layers[0].name != unnamed[1].layers[0].name
    for a, b in [(first, second), unnamed]:
        reinitialize(a, seed=3)
        reinitialize(b, seed=3)
        assert_same(in_order(a), in_order(b))
        reinitialize(b, seed=4)
        assert changed(values(a), dict(zip(values(a), values(b).values(), strict=True)))


class Branches(keras.Model):
    def __init__(self, order):
        super().__init__()
        self.order = order
        self.left = layers.Dense(4)
        self.right = layers.Bidirectional(layers.LSTM(2))

    def call(self, x):
        ways = {"left": self.left, "right": lambda x: self.right(x[:, :, None])}
        results = {name: ways[name](x) for name in self.order}
        return results["left"] + results["right"]


def test_the_same_seed_gives_the_same_weights_in_any_build_order():
    models = [Branches(order) for order in (["left", "right"], ["right", "left"])]
    for model in models:
        model(np.zeros((1, 3), "float32"))
        reinitialize(model, seed=0)
    assert_same(*([numpy(w) for w in m.left.weights + m.right.weights] for m in models))


def test_no_two_weights_share_a_stream_though_they_share_an_initializer():
    shared = HE(seed=1)
    hidden = [layers.Dense(16, kernel_initializer=shared) for _ in range(6)]
    attention = layers.MultiHeadAttention(2, 8, kernel_initializer=keras.initializers.HeNormal(2))
    inputs = keras.Input((4, 16))
    x = inputs
    for layer in hidden:
        x = layer(x)
    model = keras.Model(inputs, attention(x, x))
    kernels = [w for w in model.weights if w.name == "kernel"]

    def alike():
        flat = np.array([numpy(kernel).ravel() for kernel in kernels])
        return np.abs(np.corrcoef(flat) - np.eye(len(flat))).max()

    assert alike() == pytest.approx(1)  # which is what Keras makes of it
    reinitialize(model, seed=0)
    assert alike() < 0.3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), kinds=st.integers(9, 40))
def test_streams_differ_even_where_seeds_collide(seed, kinds):
    model = keras.Sequential([keras.Input((2,)), *[layers.Dense(2) for _ in range(4)]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reinitialization, "derived_seed", lambda *path: derived_seed(*path) % kinds)
        seeds = reinitialization._seeds(model, seed)
    assert len(seeds) == len(set(seeds.values())) == 8


def test_an_initializer_with_another_seed_is_another_one():
    generator = keras.random.SeedGenerator(1)
    for initializer in (HE(seed=1), initializers.ChronoBias(2, 9, seed=1), HE(seed=generator)):
        other = with_seed(initializer, 2)
        assert other.seed == 2
        assert initializer.seed != 2
        assert np.any(numpy(other((8,))) != numpy(with_seed(initializer, 3)((8,))))
    zeros = keras.initializers.Zeros()
    assert with_seed(zeros, 2) is zeros


# reinitialize.


def test_every_weight_is_as_at_the_start():
    model = small()
    before = values(model)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            weight.assign(np.full(weight.shape, 7.0))
    drawn = reinitialize(model, seed=0)
    assert drawn.keys() == before.keys()
    after = values(model)
    for path, value in after.items():
        if path in KERNELS | RECURRENT:
            assert value.std() == pytest.approx(before[path].std(), rel=0.5)
        else:
            np.testing.assert_array_equal(value, before[path])


def test_rules_say_which_weights_an_initializer_is_for():
    def drawn(selector):
        model = small()
        paths = reinitialize(model, {selector: keras.initializers.Constant(3)}, seed=0)
        marked = {path for path, value in values(model).items() if np.all(value == 3)}
        assert marked == {path for path, i in paths.items() if hasattr(i, "value")}
        return marked

    assert drawn(layers.Dense) == {"first/kernel", "head/kernel"}
    assert drawn(layers.LSTM) == {"memory/lstm_cell/kernel"} | RECURRENT
    assert drawn((layers.LSTM, "recurrent_kernel")) == RECURRENT
    assert drawn("head") == {"head/kernel"}
    assert drawn("memory/lstm_cell") == {"memory/lstm_cell/kernel"} | RECURRENT
    assert drawn("kernel") == KERNELS
    assert drawn("head/bias") == {"head/bias"}
    assert drawn("gamma") == {"norm/gamma"}
    assert drawn(re.compile("^(first|head)$")) == {"first/kernel", "head/kernel"}
    assert drawn(re.compile("(first|head)/bias")) == {"first/bias", "head/bias"}
    assert drawn((re.compile("head"), "bias")) == {"head/bias"}
    assert drawn(lambda layer: layer.name == "head") == {"head/kernel"}
    assert drawn((lambda layer: layer.name == "norm", re.compile("gamma|/beta"))) == {
        "norm/gamma",
        "norm/beta",
    }


def test_the_first_rule_that_selects_a_weight_holds_and_none_leaves_it():
    model = small()
    before = values(model)
    rules = [("head", "ones"), (layers.Dense, None), (layers.LSTM, "zeros")]
    drawn = reinitialize(model, rules)
    after = values(model)
    assert np.all(after["head/kernel"] == 1)
    assert not after["memory/lstm_cell/kernel"].any()
    np.testing.assert_array_equal(after["first/kernel"], before["first/kernel"])
    assert "first/kernel" not in drawn


def test_our_initializers_know_the_layer():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 64)),
            layers.DepthwiseConv2D(3),
            layers.Conv2DTranspose(32, 4, strides=2),
            layers.Conv2D(32, 3, groups=4),
        ]
    )
    reinitialize(model, {keras.Layer: HE(gain=1.0)}, seed=0)
    for layer in model.layers:
        expected = 1 / fans(layer).fan_in
        assert numpy(layer.kernel).var() == pytest.approx(expected, rel=0.15)
        # Keras tells an initializer the shape alone, which is wrong by 64, 1/2 and 1 here.
    shape = tuple(model.layers[0].kernel.shape)
    assert HE(gain=1.0).stddev(shape) ** 2 == pytest.approx(1 / (64 * fans(model.layers[0]).fan_in))


def test_only_and_trainable_only_leave_the_rest_alone():
    def drawn(**arguments):
        model = small()
        for weight in model.weights:
            if "float" in str(weight.dtype):
                weight.assign(np.full(weight.shape, 7.0))
        model.get_layer("first").trainable = False
        before = values(model)
        paths = reinitialize(model, seed=0, **arguments)
        assert changed(before, values(model)) == set(paths)
        return set(paths)

    assert drawn(only="head") == {"head/kernel", "head/bias"}
    assert drawn(only=[layers.LSTM, "moving_mean"]) == {
        f"memory/lstm_cell/{name}" for name in ("kernel", "recurrent_kernel", "bias")
    } | {"norm/moving_mean"}
    trained = drawn(trainable_only=True)
    assert "first/kernel" not in trained
    assert "norm/moving_mean" not in trained
    assert "norm/gamma" in trained
    # Weights do not depend on what else is drawn.
    one, all_of_it = small(), small()
    reinitialize(one, seed=0, only="head")
    reinitialize(all_of_it, seed=0)
    np.testing.assert_array_equal(values(one)["head/kernel"], values(all_of_it)["head/kernel"])


def test_what_was_learned_otherwise_stays():
    normalization = layers.Normalization()
    normalization.adapt(np.arange(12.0, dtype="float32").reshape(6, 2))
    ours = keras_initkit.layers.Normalization()
    ours.adapt(np.arange(12.0, dtype="float32").reshape(6, 2))
    dropout = layers.Dropout(0.5, seed=1)
    dense = layers.Dense(3)
    model = keras.Sequential([keras.Input((2,)), normalization, ours, dropout, dense])
    drawn = reinitialize(model)
    assert set(drawn) == {f"{dense.name}/kernel", f"{dense.name}/bias"}
    assert numpy(normalization.mean).ravel() == pytest.approx([5, 6])


def test_an_unknown_weight_stays_and_is_named():
    class Own(keras.Layer):
        def build(self, shape):
            self.slope = self.add_weight(name="slope", shape=(2,), initializer="ones")

        def call(self, x):
            return x * self.slope

    model = keras.Sequential([keras.Input((2,)), Own(name="own"), layers.Dense(2, name="head")])
    with pytest.warns(UserWarning, match=r"stay as they are: own/slope. Give them a rule: `rules="):
        drawn = reinitialize(model)
    assert "own/slope" not in drawn
    assert "own/slope" in reinitialize(model, {"own/slope": "zeros"})


def test_a_compiled_model_trains_on_without_a_new_trace():
    traces = []

    class Counting(keras.Layer):
        def call(self, x):
            traces.append(1)
            return x

    def make():
        inputs = keras.Input((8,))
        return keras.Model(inputs, layers.Dense(4)(Counting()(layers.Dense(8, "relu")(inputs))))

    def train(model):
        x, y = data()
        model.fit(x, y, 16, shuffle=False, verbose=0)

    model = compiled(make)
    reinitialize(model, seed=5)
    train(model)
    expected, count = in_order(model), len(traces)
    identity, optimizer = id(model), model.optimizer
    reinitialize(model, seed=5, reset_optimizer=True)
    assert int(numpy(model.optimizer.iterations.value)) == 0
    train(model)
    assert model.optimizer is optimizer
    assert id(model) == identity
    if BACKEND != "torch":  # which calls layers in each step
        assert len(traces) == count
    # Averages and steps of the optimizer, too, are as at the start.
    assert_same(in_order(model), expected)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
        lambda: keras.optimizers.Adam(0.1, use_ema=True),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)),
    ],
)
def test_an_optimizer_is_reset_to_what_it_starts_from(make_optimizer):
    model = compiled(small, make_optimizer())
    x, y = data()
    reinitialize(model, seed=0)
    model.optimizer.build(model.trainable_variables)
    start = [numpy(v.value) for v in model.optimizer.variables]
    model.fit(x, y, 16, verbose=0)
    reinitialize(model, seed=0, reset_optimizer=True)
    assert_same([numpy(v.value) for v in model.optimizer.variables], start)


def test_an_optimizer_of_other_weights_is_not_reset():
    model = compiled(small)
    model.optimizer.build(model.trainable_variables)
    model.get_layer("first").trainable = False
    before = in_order(model)
    with pytest.raises(ValueError, match="if other weights are trained than those that the"):
        reinitialize(model, reset_optimizer=True)
    assert_same(in_order(model), before)


def test_a_loaded_model_is_drawn_as_the_one_that_was_saved(tmp_path):
    model = compiled(small)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    reinitialize(model, {layers.Dense: HE()}, seed=2)
    reinitialize(loaded, {layers.Dense: HE()}, seed=2)
    assert_same(in_order(loaded), in_order(model))


def test_without_a_seed_weights_are_new_each_time_unless_the_random_seed_is_set():
    model = small()
    drawn = []
    for seed in (1, None, 1):
        if seed is not None:
            keras.utils.set_random_seed(seed)
        reinitialize(model)
        drawn.append(values(model)["head/kernel"])
    assert np.all(drawn[0] != drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])


def test_bfloat16_weights():
    keras.config.set_dtype_policy("bfloat16")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.BatchNormalization()])
    reinitialize(model, {layers.Dense: HE()}, seed=0)
    assert all(str(w.dtype) == "bfloat16" for w in model.trainable_weights)


def test_shared_layers_and_weights_are_drawn_once():
    shared = layers.Dense(8, name="shared")
    inputs = keras.Input((8,))
    inner = keras.Model(inputs, shared(inputs), name="inner")
    outer = keras.Model(inputs, shared(inner(inputs)))
    assert len(reinitialize(outer, seed=0)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": {layers.Conv2D: "zeros"}}, "a rule that selects none: <class"),
        ({"rules": {"nothing": "zeros"}}, "a rule that selects none: 'nothing'"),
        ({"rules": {("head", "gamma"): "zeros"}}, "a rule that selects none: ('head', 'gamma')"),
        ({"rules": {"": "zeros"}}, "`rules` must select layers: by a class of layers"),
        ({"rules": {3: "zeros"}}, "`rules` must select layers: by a class of layers"),
        ({"rules": ["zeros"]}, "`rules` must be a mapping of selectors to initializers"),
        ({"rules": {"head": "nope"}}, "`rules` must have initializers"),
        ({"only": "nothing"}, "`only` must select a weight. Received: only='nothing'"),
        ({"only": 3}, "`only` must select layers: by a class of layers"),
        ({"seed": 1.5}, "`seed` must be an integer or None. Received: seed=1.5"),
        ({"seed": True}, "`seed` must be an integer or None. Received: seed=True"),
        ({"reset_optimizer": True}, "`reset_optimizer` must be False for a model without"),
        ({"rules": {"head/bias": initializers.PriorBias([0.1] * 3)}}, "`prior` must have"),
    ],
)
def test_errors_change_nothing(arguments, message):
    model = small()
    before = in_order(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        reinitialize(model, **arguments)
    assert_same(in_order(model), before)


def test_a_model_must_be_built():
    with pytest.raises(ValueError, match="`model` must be built, so that it has weights"):
        reinitialize(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(
        ValueError, match=r"`model` must be a keras.Model or a layer. Received: mod"
    ):
        reinitialize("model.keras")
    with pytest.raises(ValueError, match=r"`model` must have weights. Received: 're_lu'"):
        reinitialize(layers.ReLU(name="re_lu"))


def orthonormal(matrices):
    """Whether the columns of matrices are orthonormal, or their rows."""
    matrices = np.asarray(matrices, np.float64)
    if matrices.shape[-2] < matrices.shape[-1]:
        matrices = np.swapaxes(matrices, -1, -2)
    gram = np.swapaxes(matrices, -1, -2) @ matrices
    return np.allclose(gram, np.eye(gram.shape[-1]), atol=1e-5)


def test_each_gate_and_head_has_numbers_of_its_own():
    steps, maps = keras.Input((5, 8)), keras.Input((4, 9, 9, 2))
    signals = [
        layers.LSTM(6, name="lstm")(steps),
        layers.Bidirectional(layers.GRU(6), name="both")(steps),
        layers.Flatten()(layers.MultiHeadAttention(3, 4, name="attention")(steps, steps)),
        layers.Flatten()(layers.ConvLSTM2D(6, 3, name="maps")(maps)),
    ]
    outputs = layers.Dense(12)(layers.Concatenate()(signals))
    model = keras.Model([steps, maps], outputs)
    orthogonal = initializers.Orthogonal(seed=1)
    reinitialize(model, dict.fromkeys((layers.RNN, layers.MultiHeadAttention), orthogonal), seed=0)
    gates = {"lstm": 4, "both": 3, "maps": 4}
    parts = []
    for path, value in values(model).items():
        layer, *_, name = path.split("/")
        if layer in gates and name.endswith("kernel"):
            parts += np.split(value.reshape(-1, value.shape[-1]), gates[layer], axis=1)
        elif layer == "attention" and name == "kernel":
            is_output = "attention_output" in path
            parts += [value.reshape(-1, 8)] if is_output else list(np.moveaxis(value, 1, 0))
    assert len(parts) == 2 * 4 + 4 * 3 + 3 * 3 + 1 + 2 * 4
    assert all(orthonormal(part) for part in parts)
    # No two share their numbers.
    assert len({float(part.ravel()[0]) for part in parts}) == len(parts)
    assert orthogonal.seed == 1


# layer_aware.


def depthwise():
    return layers.DepthwiseConv2D(3, depthwise_initializer=HE(gain=1.0), name="depthwise")


@pytest.mark.parametrize("when", ["built", "called", "in a model", "in a model with its own call"])
def test_a_layer_aware_layer_is_right_when_it_is_built(when):
    layer = depthwise()
    build = layer.build
    shape = (1, 8, 8, 64)
    if when == "built":
        layer.build(shape)
        assert layer_aware(layer, seed=1) is layer
    else:
        assert layer_aware(layer, seed=1) is layer
        if when == "called":
            layer(np.zeros(shape, "float32"))
        elif when == "in a model":
            keras.Sequential([keras.Input(shape[1:]), layer])
        else:

            class Own(keras.Model):
                def __init__(self):
                    super().__init__()
                    self.inner = layer

                def call(self, x):
                    return keras.ops.mean(self.inner(x), axis=(1, 2))

            model = Own()
            model.compile("sgd", "mse")
            model.fit(np.zeros(shape, "float32"), np.zeros((1, 64), "float32"), verbose=0)
    assert layer.build == build
    assert numpy(layer.kernel).var() == pytest.approx(1 / 9, rel=0.2)
    other = depthwise()
    other.build(shape)
    reinitialize(other, seed=1)
    np.testing.assert_array_equal(numpy(layer.kernel), numpy(other.kernel))


def test_layers_inside_are_layer_aware_too():
    layer = layer_aware(layers.Bidirectional(layers.LSTM(32, kernel_initializer=XAVIER())), seed=0)
    layer(np.zeros((1, 2, 32), "float32"))
    kernels = [numpy(w) for w in layer.weights if w.name == "kernel"]
    assert np.abs(np.corrcoef(*(kernel.ravel() for kernel in kernels))[0, 1]) < 0.1
    for kernel in kernels:
        # A gate has 32 inputs and 32 outputs, not 128.
        assert kernel.var() == pytest.approx(1 / 32, rel=0.1)


class Inside(keras.Layer):
    """A layer whose own `build` builds none of the layers inside it."""

    def __init__(self, traced=True):
        super().__init__()
        self.first, self.second, self.nothing = layers.Dense(64), layers.Dense(64), layers.ReLU()
        self.traced = traced

    def call(self, x, other=False):
        if not self.traced:
            x = keras.ops.convert_to_tensor(keras.ops.convert_to_numpy(x))
        return self.nothing((self.second if other else self.first)(x))


class BuiltBefore(Inside):
    def build(self, shape):
        self.built = True


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer:UserWarning")
@pytest.mark.parametrize("traced", [True, False], ids=["traced", "eager alone"])
@pytest.mark.parametrize("kind", [Inside, BuiltBefore])
@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_layers_inside_that_are_built_at_their_first_call_are_layer_aware(kind, traced, order):
    layer = kind(traced)
    for inner in (layer.first, layer.second):
        inner.kernel_initializer = HE(seed=1)
    builds = [inner.build for inner in (layer.first, layer.second)]
    layer_aware(layer, seed=3)
    x = np.ones((2, 32), "float32")
    outputs = [numpy(layer(x, other=other)) for other in order]
    # They are drawn before they are used.
    again = [numpy(layer(x, other=other)) for other in order]
    assert_same(outputs, again)
    assert [inner.build for inner in (layer.first, layer.second)] == builds
    first, second = numpy(layer.first.kernel), numpy(layer.second.kernel)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    # In any order they are what a layer that is built has.
    expected = kind(traced)
    for inner in (expected.first, expected.second):
        inner.kernel_initializer = HE(seed=1)
        inner.build((None, 32))
    expected.built = True
    reinitialize(expected, seed=3)
    assert_same([first, second], [numpy(expected.first.kernel), numpy(expected.second.kernel)])


def test_weights_that_are_there_before_a_layer_is_built_are_layer_aware():
    class Own(keras.Layer):
        def __init__(self):
            super().__init__()
            self.kernel_initializer = HE(seed=1)
            self.kernel = self.add_weight((8, 8), self.kernel_initializer, name="kernel")

        def call(self, x):
            return x @ self.kernel

    layer = layer_aware(Own(), seed=3)
    before = numpy(layer.kernel)
    assert np.any(before != numpy(HE(seed=1)((8, 8))))
    layer(np.ones((2, 8), "float32"))
    np.testing.assert_array_equal(numpy(layer.kernel), before)


def test_a_build_that_fails_may_be_tried_again():
    layer = layer_aware(layers.Conv2D(8, 3, groups=2, kernel_initializer=HE(seed=1)), seed=3)
    with pytest.raises(ValueError, match="evenly divisible by the number of groups"):
        layer.build((None, 9, 9, 3))
    layer.build((None, 9, 9, 4))
    assert np.any(numpy(layer.kernel) != numpy(HE(seed=1)((3, 3, 2, 8))))


def test_a_layer_aware_model_saves_and_clones_as_ever(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 4)), layer_aware(depthwise())])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(in_order(loaded), in_order(model))
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config()


def test_layer_aware_takes_layers():
    with pytest.raises(ValueError, match=r"`layer` must be a keras.layers.Layer. Received: layer="):
        layer_aware(HE())
    with pytest.raises(ValueError, match="`seed` must be an integer or None"):
        layer_aware(depthwise(), seed="1")  # type: ignore[arg-type]


# defaults.


def test_defaults_hold_in_the_context_for_what_is_not_given():
    with defaults(Dense=HE(), Conv2D="he_normal", LSTM={"recurrent_initializer": XAVIER()}, seed=0):
        plain, given = layers.Dense(8), layers.Dense(8, kernel_initializer="zeros")
        by_place = layers.Dense(8, None, True, "ones")
        convolution, memory = layers.Conv2D(8, 3), layers.LSTM(8)
    outside = layers.Dense(8)
    assert isinstance(plain.kernel_initializer, HE)
    assert isinstance(given.kernel_initializer, keras.initializers.Zeros)
    assert isinstance(by_place.kernel_initializer, keras.initializers.Ones)
    assert isinstance(convolution.kernel_initializer, keras.initializers.HeNormal)
    assert isinstance(memory.cell.recurrent_initializer, XAVIER)
    assert isinstance(memory.cell.kernel_initializer, keras.initializers.GlorotUniform)
    assert isinstance(outside.kernel_initializer, keras.initializers.GlorotUniform)


def test_defaults_draw_each_layer_for_itself_and_know_it():
    def model():
        with defaults(Dense=HE(seed=1), DepthwiseConv2D=HE(gain=1.0), seed=4):
            return keras.Sequential(
                [
                    keras.Input((8, 8, 64)),
                    layers.DepthwiseConv2D(3),
                    layers.GlobalAveragePooling2D(),
                    layers.Dense(64),
                    layers.Dense(64),
                ]
            )

    first, second = model(), model()
    assert_same(in_order(first), in_order(second))
    kernel, one, other = (numpy(w) for w in first.weights if w.name == "kernel")
    assert kernel.var() == pytest.approx(1 / 9, rel=0.2)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


def test_defaults_leave_given_initializers_their_seeds():
    with defaults(Dense={"bias_initializer": keras.initializers.RandomNormal()}, seed=0):
        layer = layers.Dense(8, kernel_initializer=keras.initializers.HeNormal(seed=7))
    layer.build((None, 8))
    plain = layers.Dense(8, kernel_initializer=keras.initializers.HeNormal(seed=7))
    plain.build((None, 8))
    np.testing.assert_array_equal(numpy(layer.kernel), numpy(plain.kernel))
    assert numpy(layer.bias).any()


def test_defaults_of_other_classes():
    class Wide(layers.Dense):  # type: ignore[name-defined]
        pass

    class Nothing(keras.Layer):
        pass

    with defaults({Wide: HE()}):
        wide, narrow = Wide(3), layers.Dense(3)
    assert isinstance(wide.kernel_initializer, HE)
    assert "__init__" not in vars(Wide)
    assert isinstance(narrow.kernel_initializer, keras.initializers.GlorotUniform)
    with defaults(Dense=HE()):
        assert isinstance(Wide(3).kernel_initializer, HE)
    own: Any
    for own, message in [
        ({Nothing: HE()}, "Defaults of Nothing must be initializers for its arguments"),
        (None, "`defaults` must be given an initializer"),
    ]:
        with pytest.raises(ValueError, match=message), defaults(own):
            pass


def test_defaults_are_gone_after_an_error_and_unknown_to_other_threads():
    original = layers.Dense.__init__
    made = []
    thread = threading.Thread(target=lambda: made.append(layers.Dense(3)))

    def fail():
        with defaults(Dense=HE()):
            thread.start()
            thread.join()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert layers.Dense.__init__ is original
    assert not isinstance(made[0].kernel_initializer, HE)


def test_inner_defaults_go_before_outer_ones():
    with defaults(Dense=HE()):
        with defaults(Dense=XAVIER()):
            inner = layers.Dense(3)
        outer = layers.Dense(3)
    assert isinstance(inner.kernel_initializer, XAVIER)
    assert isinstance(outer.kernel_initializer, HE)


def test_layers_made_with_defaults_save(tmp_path):
    with defaults(Dense=HE(), MultiHeadAttention=XAVIER(), seed=0):
        inputs = keras.Input((4, 8))
        attended = layers.MultiHeadAttention(2, 4)(inputs, inputs)
        model = keras.Model(inputs, layers.Dense(3)(attended))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[-1].kernel_initializer, HE)
    assert_same(in_order(loaded), in_order(model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"Dens": HE()}, "Keywords must be names of classes in keras.layers. Received: Dens="),
        ({"Dropout": HE()}, "Defaults of Dropout must be initializers for its arguments"),
        ({"Dense": {"kernel": HE()}}, "Its arguments are kernel_initializer, bias_initializer"),
        ({"Dense": "nope"}, "`defaults` must have initializers"),
    ],
)
def test_defaults_are_checked(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)), defaults(**arguments):
        pass
