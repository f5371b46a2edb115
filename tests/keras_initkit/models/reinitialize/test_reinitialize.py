"""Weights of whole models drawn anew, on the backend in use."""

import re
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_initkit
from keras_initkit import initializers, reinitialize
from keras_initkit.anatomy.seeds import derive_seed
from keras_initkit.anatomy.weights import Weight, weights_of
from keras_initkit.models.reinitialize import reinitialize as reinitialization
from tests.callbacks.training import compiled, fit
from tests.keras_initkit.initializers.helpers import array, assert_same

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers = keras.layers
HE = initializers.HeNormal


def values(model):
    return {weight.path: array(weight.variable.value) for weight in weights_of(model)}


def in_order(model):
    return [array(weight) for weight in model.weights]


def fill(model):
    for weight in model.weights:
        if "float" in str(weight.dtype):
            weight.assign(np.full(weight.shape, 7.0))


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


@pytest.fixture(scope="module")
def shared():
    """One for all tests that do not care for its weights: they change them."""
    return small()


KERNELS = {"first/kernel", "memory/lstm_cell/kernel", "head/kernel"}
RECURRENT = {"memory/lstm_cell/recurrent_kernel"}


# Seeds.


class Branches(keras.Model):
    def __init__(self, order):
        super().__init__()
        self.left = layers.Dense(4)
        self.right = layers.Bidirectional(layers.SimpleRNN(2))
        for name in order:
            getattr(self, name).build((None, 1, 3))
        self.built = True


def test_the_same_seed_gives_the_same_weights_in_any_build_order_whatever_was_named_before():
    drawn = []
    for order, seed in ((["left", "right"], 0), (["right", "left"], 0), (["left", "right"], 1)):
        model = Branches(order)
        reinitialize(model, seed=seed)
        drawn.append([array(w) for w in model.left.weights + model.right.weights])
    assert_same(drawn[0], drawn[1])
    assert np.any(drawn[0][0] != drawn[2][0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), kinds=st.integers(9, 40))
def test_streams_differ_even_where_seeds_collide(seed, kinds):
    weights = [Weight(None, (), None, "", f"dense#{i}/kernel") for i in range(8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reinitialization, "derive_seed", lambda *path: derive_seed(*path) % kinds)
        seeds = reinitialization.derive_seeds(weights, seed)
    assert len(seeds) == len(set(seeds.values())) == 8


def test_without_a_seed_weights_are_new_each_time_unless_the_random_seed_is_set(shared):
    drawn = []
    for seed in (1, None, 1):
        if seed is not None:
            keras.utils.set_random_seed(seed)
        reinitialize(shared)
        drawn.append(values(shared)["head/kernel"])
    assert np.all(drawn[0] != drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])


# Which weights, and with which initializer.


def test_every_weight_is_as_at_the_start():
    model = small()
    before = values(model)
    fill(model)
    drawn = reinitialize(model, seed=0)
    assert drawn.keys() == before.keys()
    after = values(model)
    for path, value in after.items():
        if path in KERNELS | RECURRENT:
            assert value.std() == pytest.approx(before[path].std(), rel=0.5)
        else:
            np.testing.assert_array_equal(value, before[path])


@pytest.mark.parametrize(
    ("selector", "paths"),
    [
        # A layer's class, path or function selects its kernels; a name the weight.
        (layers.LSTM, {"memory/lstm_cell/kernel"} | RECURRENT),
        ((layers.LSTM, "recurrent_kernel"), RECURRENT),
        ("kernel", KERNELS),
        ("gamma", {"norm/gamma"}),
        (re.compile("^(first|head)$"), {"first/kernel", "head/kernel"}),
        (re.compile("(first|head)/bias"), {"first/bias", "head/bias"}),
        (lambda layer: layer.name == "head", {"head/kernel"}),
    ],
    ids=lambda case: "",
)
def test_rules_say_which_weights_an_initializer_is_for(shared, selector, paths):
    drawn = reinitialize(shared, {selector: keras.initializers.Constant(3)}, seed=0)
    assert {path for path, value in values(shared).items() if np.all(value == 3)} == paths
    assert {path for path, initializer in drawn.items() if hasattr(initializer, "value")} == paths


def test_the_first_rule_that_selects_a_weight_holds_and_none_leaves_it(shared):
    before = values(shared)
    rules = [("head", "ones"), (layers.Dense, None), (["memory", "nowhere"], "zeros")]
    drawn = reinitialize(shared, rules)
    after = values(shared)
    assert np.all(after["head/kernel"] == 1)
    assert not after["memory/lstm_cell/kernel"].any()
    np.testing.assert_array_equal(after["first/kernel"], before["first/kernel"])
    assert "first/kernel" not in drawn


def test_only_and_trainable_only_leave_the_rest_alone(shared):
    def drawn(**arguments):
        fill(shared)
        before = values(shared)
        paths = set(reinitialize(shared, seed=0, **arguments))
        after = values(shared)
        assert {path for path in after if np.any(after[path] != before[path])} == paths
        return paths

    reinitialize(shared, seed=0)
    whole = values(shared)
    assert drawn(only=["head", "moving_mean"]) == {"head/kernel", "head/bias", "norm/moving_mean"}
    # Weights do not depend on what else is drawn.
    np.testing.assert_array_equal(values(shared)["head/kernel"], whole["head/kernel"])
    shared.get_layer("first").trainable = False
    trained = drawn(trainable_only=True)
    shared.get_layer("first").trainable = True
    assert trained.isdisjoint({"first/kernel", "norm/moving_mean"})
    assert "norm/gamma" in trained


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
    assert array(normalization.mean).ravel() == pytest.approx([5, 6])


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


LORA = {"lora_kernel_a", "lora_kernel_b"}


@pytest.mark.parametrize("rules", [{layers.Dense: HE()}, {"dense": HE()}, {re.compile("de"): HE()}])
def test_lora_starts_without_effect(rules):
    layer = layers.Dense(64, name="dense")
    model = keras.Sequential([keras.Input((64,)), layer])
    layer.enable_lora(8)
    fill(model)
    drawn = reinitialize(model, rules, seed=0)
    assert {type(drawn[f"dense/{name}"]).__name__ for name in LORA} == {"HeUniform", "Zeros"}
    assert not array(layer.lora_kernel_b).any()
    assert array(layer.lora_kernel_a).std() > 0.1
    inputs = np.random.default_rng(0).normal(size=(2000, 64)).astype("float32")
    assert array(model(inputs)).var() == pytest.approx(2.0, rel=0.1)
    reinitialize(model, {"lora_kernel_b": "ones"}, seed=0)  # by its name
    assert (array(layer.lora_kernel_b) == 1).all()


@pytest.mark.backends("torch")
def test_quantised_kernels_stay_and_are_named():
    for mode, named in (("int8", "kernel"), ("int4", "kernel"), ("float8", None)):
        layer = layers.Dense(4, name="d")
        model = keras.Sequential([keras.Input((6,)), layer])
        layer.quantize(mode)
        before = [array(weight) for weight in model.weights if weight.name != "bias"]
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            drawn = reinitialize(model, {layers.Dense: HE()}, seed=0)
        messages = [str(w.message) for w in found if "Quantised" in str(w.message)]
        if named:
            assert messages == [
                "Quantised kernels stay as they are: d/kernel. Draw the weights anew before "
                "`quantize` is called."
            ]
            assert_same([array(w) for w in model.weights if w.name != "bias"], before)
        else:  # A float8 layer has a float32 kernel; its scales start at one, its history at zero.
            assert not messages
            assert "d/kernel" in drawn
            assert array(layer.kernel_scale) == array(layer.inputs_scale) == 1
            assert not array(layer.kernel_amax_history).any()


@pytest.mark.backends("torch")  # the quickest to calibrate
@pytest.mark.parametrize("name", ["GPTQConfig", "AWQConfig"])
def test_calibrated_kernels_stay_as_they_are(name):
    if not hasattr(keras.quantizers, name):
        pytest.skip("of a later Keras")
    embedding, block = layers.Embedding(9, 8, name="e"), [layers.Dense(8, "relu"), layers.Dense(8)]
    block = keras.Sequential(block, name="block")
    model = keras.Sequential([keras.Input((4,), dtype="int32"), embedding, block])
    config = getattr(keras.quantizers, name)(
        np.arange(32).reshape(2, 16) % 9,
        lambda text: text,
        num_samples=2,
        sequence_length=4,
        group_size=4,
        quantization_layer_structure={
            "pre_block_layers": [embedding],
            "sequential_blocks": [block],
        },
    )
    model.quantize(config.mode, config=config, filters=lambda own: isinstance(own, layers.Dense))
    audited = keras_initkit.audit(model)
    assert [row.path for row in audited if row.fix] == ["e/embeddings"]
    before = [array(weight) for weight in block.non_trainable_weights]
    assert len(before) >= 8
    with pytest.warns(
        UserWarning, match="Quantised kernels stay as they are: block/dense/kernel, "
    ):
        drawn = reinitialize(model, {layers.Embedding: HE()}, seed=0)
    assert list(drawn) == ["e/embeddings", "block/dense/bias", "block/dense_1/bias"]
    assert_same([array(weight) for weight in block.non_trainable_weights], before)


def test_bfloat16_weights():
    keras.config.set_dtype_policy("bfloat16")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.BatchNormalization()])
    reinitialize(model, {layers.Dense: HE()}, seed=0)
    assert all(str(w.dtype) == "bfloat16" for w in model.trainable_weights)


def test_each_gate_has_numbers_of_its_own():
    model = keras.Sequential([keras.Input((5, 6)), layers.Bidirectional(layers.GRU(6))])
    reinitialize(model, {layers.RNN: initializers.Orthogonal(seed=1)})
    kernels = [value for path, value in values(model).items() if path.endswith("kernel")]
    gates = np.concatenate([np.split(kernel, 3, axis=1) for kernel in kernels])
    identities = np.broadcast_to(np.eye(6), (12, 6, 6))
    np.testing.assert_allclose(gates @ gates.swapaxes(1, 2), identities, atol=1e-5)
    assert np.unique(gates[:, 0, 0]).size == 12


# A model in use.


def test_a_compiled_model_trains_on_without_a_new_trace():
    traces = []

    class Counting(keras.Layer):
        def call(self, x):
            traces.append(1)
            return x

    def make():
        return keras.Sequential([keras.Input((8,)), Counting(), layers.Dense(4)])

    model = compiled(make)
    optimizer = model.optimizer
    reinitialize(model, seed=5)
    fit(model)
    expected, count = in_order(model), len(traces)
    reinitialize(model, seed=5, reset_optimizer=True)
    assert int(array(optimizer.iterations.value)) == 0
    fit(model)
    assert model.optimizer is optimizer
    if keras.backend.backend() != "torch":  # which calls layers in each step
        assert len(traces) == count
    # Averages and steps of the optimizer, too, are as at the start.
    assert_same(in_order(model), expected)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3, use_ema=True),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)),
    ],
)
def test_an_optimizer_is_reset_to_what_it_starts_from(optimizer):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile(optimizer(), "mse")
    optimizer = model.optimizer
    reinitialize(model, seed=0)
    optimizer.build(model.trainable_variables)
    start = [array(v.value) for v in optimizer.variables]
    for variable in optimizer.variables:
        if variable.name != "learning_rate":
            variable.assign(keras.ops.cast(variable + 3, variable.dtype))
    reinitialize(model, seed=0, reset_optimizer=True)
    assert_same([array(v.value) for v in optimizer.variables], start)


def test_an_optimizer_of_other_weights_is_not_reset():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="first"), layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.get_layer("first").trainable = False
    before = in_order(model)
    with pytest.raises(ValueError, match="if other weights are trained than those that the"):
        reinitialize(model, reset_optimizer=True)
    assert_same(in_order(model), before)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": {("head", "gamma"): "zeros"}}, "a rule that selects none: ('head', 'gamma')"),
        ({"rules": {"": "zeros"}}, "`rules` must select layers: by a class of layers"),
        ({"rules": ["zeros"]}, "`rules` must be a mapping of selectors to initializers"),
        ({"rules": {"head": "nope"}}, "`rules` must have initializers"),
        ({"only": "nothing"}, "`only` must select a weight. Received: only='nothing'"),
        ({"only": 3}, "`only` must select layers: by a class of layers"),
        ({"seed": 1.5}, "`seed` must be an integer or None. Received: seed=1.5"),
        ({"reset_optimizer": True}, "`reset_optimizer` must be False for a model without"),
        ({"rules": {"head/bias": initializers.PriorBias([0.1] * 3)}}, "`prior` must have"),
    ],
)
def test_errors_change_nothing(shared, arguments, message):
    before = in_order(shared)
    with pytest.raises(ValueError, match=re.escape(message)):
        reinitialize(shared, **arguments)
    assert_same(in_order(shared), before)


def test_a_model_must_be_built():
    with pytest.raises(ValueError, match="`model` must be built, so that it has weights"):
        reinitialize(keras.Sequential([layers.Dense(3)]))
