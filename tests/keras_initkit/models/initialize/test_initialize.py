"""Models started at once: what is measured afterwards, and what stays as it was."""

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit import initialize
from keras_initkit.anatomy.following import Following
from keras_initkit.models.initialize.point import find_point
from keras_initkit.models.initialize.schemes import SCHEMES

# Where models are called soonest; a few show that it works elsewhere.
pytestmark = pytest.mark.backends("torch")

layers, ops = keras.layers, keras.ops


def array(tensor):
    return ops.convert_to_numpy(ops.stop_gradient(ops.convert_to_tensor(tensor)))


def values(model):
    return [array(weight) for weight in model.weights]


def same(one, other):
    return [bool(np.array_equal(a, b)) for a, b in zip(one, other, strict=True)]


def inputs(rows=32, scale=1.0, shape=(8, 8, 3)):
    return (scale * np.random.default_rng(1).standard_normal((rows, *shape))).astype("float32")


def many_layers():
    """Kernels of many kinds, each with its activation behind it in a layer of its own."""
    x = first = keras.Input((8, 8, 3))
    x = layers.Activation("relu")(layers.Conv2D(12, 3, padding="same", name="conv")(x))
    x = layers.Activation("silu")(layers.SeparableConv2D(16, 3, name="separable")(x))
    x = layers.Activation("gelu")(layers.DepthwiseConv2D(3, name="depthwise")(x))
    x = layers.Activation("tanh")(layers.Conv2DTranspose(8, 4, strides=2, name="transposed")(x))
    x = layers.Reshape((100, 8))(x)
    x = layers.Activation("elu")(
        layers.EinsumDense("btf,fg->btg", (100, 24), bias_axes="g", name="einsum")(x)
    )
    x = layers.GlobalAveragePooling1D()(layers.Dropout(0.2, seed=1)(x))
    x = layers.Activation("softplus")(layers.Dense(20, name="dense")(x))
    return keras.Model(first, layers.Dense(5, name="head")(x))


ACTIVATIONS = ["relu", "silu", "gelu", "tanh", "elu"]
MEASURED = ["conv", "separable", "depthwise", "transposed", "einsum", "dense", "head"]


def outputs(model, x):
    """Return the outputs of layers with measured kernels, as in training."""
    found = [model.get_layer(name).output for name in MEASURED]
    return [array(z) for z in keras.Model(model.input, found)(x, training=True)]


@pytest.fixture(scope="module")
def model():
    return many_layers()


@pytest.mark.backends("tensorflow", "torch")
def test_lsuv_leaves_each_layer_with_variance_1(model):
    initialize(model, inputs(), "lsuv", seed=0)
    for z in outputs(model, inputs())[:5]:  # dropout draws other numbers behind
        assert z.std() == pytest.approx(1.0, abs=0.01)


def test_auto_leaves_each_layer_at_the_variance_of_its_point(model):
    initialize(model, inputs(), seed=0)
    found = [float((z**2).mean()) for z in outputs(model, inputs())]
    aims = [find_point(Following(name, keras.activations.get(name)), 6) for name in ACTIVATIONS]
    assert found[:5] == pytest.approx([aim.variance for aim in aims], rel=0.02)


def test_a_seed_gives_the_same_weights_in_whatever_order_layers_are_made(model):
    initialize(model, inputs(), seed=3)
    first = values(model)
    layers.Dense(3), layers.Conv2D(3, 3)
    again = many_layers()
    initialize(again, inputs(), seed=3)
    assert all(same(first, values(again)))
    initialize(again, inputs(), seed=4)
    assert not any(same(first[:1], values(again)[:1]))


@pytest.mark.backends("tensorflow", "torch")
def test_the_scale_of_the_data_is_taken_by_the_first_kernel_alone(model):
    initialize(model, inputs(), seed=0)
    first = values(model)
    initialize(model, inputs(scale=64.0), seed=0)
    assert values(model)[0] == pytest.approx(first[0] / 64.0, rel=1e-5)
    for one, other in zip(first[1:], values(model)[1:], strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)


@pytest.mark.backends("tensorflow", "torch")
def test_frozen_excluded_and_deliberate_weights_stay_bit_for_bit():
    x = first = keras.Input((8,))
    x = layers.Dense(8, "relu", name="frozen", trainable=False)(x)
    x = layers.Dense(8, "relu", name="excluded")(x)
    x = layers.Dense(8, name="lora")(x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.BatchNormalization(name="batch")(x)
    gate = layers.Dense(8, kernel_initializer="zeros", bias_initializer="ones", name="gate")(x)
    model = keras.Model(first, layers.Dense(3, name="head")(layers.Multiply()([x, gate])))
    model.get_layer("lora").enable_lora(2)
    before = values(model)
    keras.utils.set_random_seed(0)
    numbers = array(keras.random.uniform((2,)))
    keras.utils.set_random_seed(0)
    initialize(model, inputs(shape=(8,)), seed=0, exclude="excluded")
    assert array(keras.random.uniform((2,))) == pytest.approx(numbers)
    changed = [
        weight.path
        for weight, is_same in zip(model.weights, same(before, values(model)), strict=True)
        if not is_same
    ]
    assert changed == ["head/kernel"]


def deep(activation, depth=40, width=64):
    hidden = [layers.Dense(width, activation) for _ in range(depth)]
    return keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(4)])


@pytest.mark.parametrize(
    ("activation", "width"), [("gelu", 64), ("tanh", 64), ("sigmoid", 64), ("leaky_relu", 192)]
)
def test_signal_and_gradient_pass_forty_layers(activation, width):
    model = deep(activation, width=width)
    audit = initialize(model, inputs(shape=(16,)), seed=0)
    assert isinstance(audit, type(keras_initkit.audit(model)))
    signal, signals, slopes, f = inputs(shape=(16,)), [], [], keras.activations.get(activation)
    weights = [(array(layer.kernel), array(layer.bias)) for layer in model.layers]
    for kernel, bias in weights[:-1]:
        z = signal @ kernel + bias
        signal = array(f(z))
        slopes.append((array(f(z + 1e-2)) - array(f(z - 1e-2))) / 2e-2)
        signals.append((z**2).mean())
    assert max(signals) < 1.5 * min(signals)
    gradient = np.random.default_rng(0).standard_normal((32, 4)) @ weights[-1][0].T
    norms = []
    for (kernel, _), slope in zip(weights[-2::-1], slopes[::-1], strict=True):
        norms.append(np.linalg.norm(gradient * slope))
        gradient = (gradient * slope) @ kernel.T
    assert 1 / 3 < norms[0] / norms[-1] < 3


def test_residual_branches_add_as_much_as_they_find():
    x = layers.Dense(64, name="stem")(first := keras.Input((16,)))
    for i in range(8):
        branch = layers.Dense(64, "relu", name=f"inner_{i}")(x)
        x = layers.Add()([x, layers.Dense(64, name=f"last_{i}")(branch)])
    model = keras.Model(first, layers.Dense(4, name="head")(x))
    initialize(model, inputs(shape=(16,)), seed=0)
    ends = keras.Model(first, [model.get_layer(f"last_{i}").output for i in (0, 7)] + [x])
    *branches, stream = ((array(z) ** 2).mean() for z in ends(inputs(shape=(16,))))
    assert branches == pytest.approx([1 / 8, 1 / 8], rel=0.01)
    assert stream == pytest.approx(2.0, rel=0.2)


def test_recurrent_layers_are_scaled_for_their_inputs_and_embeddings_for_one_hot_ones():
    x = layers.Embedding(50, 16, name="embedding")(first := keras.Input((6,), dtype="int32"))
    x = layers.LSTM(12, name="memory")(layers.Rescaling(3.0)(x))
    model = keras.Model(first, layers.Dense(2)(x))
    initialize(model, seed=0)  # noise
    embeddings, kernel, recurrent = values(model)[:3]
    assert embeddings.var() == pytest.approx(1.0, rel=0.15)
    assert 16 * 9 * (kernel**2).mean() == pytest.approx(1.0, rel=0.25)
    gates = np.split(recurrent, 4, axis=1)
    assert gates[0].T @ gates[0] == pytest.approx(np.eye(12), abs=1e-5)
    assert values(model)[3][12:24] == pytest.approx(np.ones(12))  # the forget gate's bias


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem, self.inner = layers.Dense(32), layers.Dense(32, "relu")
        self.last, self.head = layers.Dense(32), layers.Dense(3)

    def call(self, x):
        x = self.stem(x)
        return self.head(x + self.last(self.inner(x)))


@pytest.mark.backends("tensorflow", "torch")
def test_a_subclassed_model_is_traced_for_its_branches():
    model = Subclassed()
    model(inputs(shape=(16,)))
    x = inputs(shape=(16,))
    initialize(model, x, seed=0)
    stem = model.stem(x)
    assert (array(stem) ** 2).mean() == pytest.approx(1.0, rel=0.01)
    assert (array(model.last(model.inner(stem))) ** 2).mean() == pytest.approx(1.0, rel=0.01)


LABELS = np.repeat([0, 1, 2], [6, 3, 1])


@pytest.mark.parametrize(
    ("units", "activation", "targets", "expected"),
    [
        (3, "softmax", LABELS, np.log(np.array([6.5, 3.5, 1.5]) / 11.5)),
        (3, None, LABELS[:, None], np.log(np.array([6.5, 3.5, 1.5]) / 11.5)),
        (3, None, np.eye(3)[LABELS], np.log(np.array([6.5, 3.5, 1.5]) / 11.5)),
        (1, "sigmoid", (LABELS == 1) * 1.0, [np.log(3.5 / 7.5)]),
        (1, None, LABELS * 10.0, [5.0]),
        (2, None, np.stack([LABELS, -LABELS], 1) * 2.0, [1.0, -1.0]),
    ],
)
def test_the_output_bias_is_what_targets_say(units, activation, targets, expected):
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, "relu"), layers.Dense(units, activation)]
    )
    initialize(model, inputs(10, shape=(16,)), seed=0, targets=targets)
    assert array(model.layers[-1].bias) == pytest.approx(np.array(expected), rel=1e-5)
    logits = array(model.layers[0](inputs(10, shape=(16,)))) @ array(model.layers[-1].kernel)
    spread = 1.0 if activation or units > 2 else targets.std(0).mean()
    assert np.sqrt((logits**2).mean()) == pytest.approx(0.1 * spread, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "best"}, '`scheme` must be one of "auto"'),
        ({"only": "nothing"}, "`only` must select a weight. Received: only='nothing'"),
        ({"exclude": "nothing"}, "`exclude` must select a weight. Received: exclude='nothing'"),
        ({"only": "bias"}, "`model` must have a kernel to draw"),
        ({"targets": np.array([7])}, "`targets` must have 4 numbers a row for .*, or labels below"),
        ({"targets": {"other": 1}}, "`targets` must be those of an output layer .* of other layer"),
        ({"seed": "x"}, "`seed` must be an integer or None"),
    ],
)
def test_arguments_are_checked_before_a_weight_changes(arguments, message):
    model = deep("relu", depth=1)
    before = values(model)
    with pytest.raises(ValueError, match=message):
        initialize(model, **arguments)
    assert all(same(before, values(model)))


def test_layers_without_signal_are_named():
    model = deep("relu", depth=1)
    with pytest.warns(UserWarning, match="could not be measured.*dense/kernel"):
        initialize(model, np.zeros((4, 16), "float32"))
    assert set(SCHEMES) >= {"auto", "critical", "lsuv"}
