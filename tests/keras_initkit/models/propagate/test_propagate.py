"""`propagate` on whole models: closed forms, laws of scale, kinds of models, bad arguments."""

import keras
import numpy as np
import pytest

import keras_initkit

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

layers, ops = keras.layers, keras.ops


def mlp(depth=4, width=64, activation="relu", gain=2.0, names=("dense",)):
    stack = [keras.Input((width,), name="x")]
    for i in range(depth):
        initializer = keras.initializers.VarianceScaling(gain, seed=i)
        name = f"{names[0]}_{i}"
        stack.append(layers.Dense(width, activation, kernel_initializer=initializer, name=name))
    return keras.Sequential(stack)


def moments(model, *arguments, **keywords):
    rows = keras_initkit.propagate(model, *arguments, **keywords)
    return [(row.second_moment, row.gradient_second_moment) for row in rows]


def power(layer):
    kernel = ops.convert_to_numpy(layer.kernel)
    return float((kernel.astype("float64") ** 2).mean()) * len(kernel)


def test_relu_halves_the_second_moment_and_maps_the_correlation():
    model = mlp(1)
    row = keras_initkit.propagate(model, (0.0, 2.0, 0.5))["dense_0"]
    q = 2.0 * power(model.layers[0])
    assert row.second_moment == pytest.approx(q / 2.0, rel=1e-4)
    assert row.mean == pytest.approx(np.sqrt(q / (2.0 * np.pi)), rel=1e-3)
    # Cho and Saul, 2009, of an angle of 60°.
    angle = np.pi / 3.0
    expected = (np.sin(angle) + (np.pi - angle) * 0.5) / np.pi
    assert row.correlation == pytest.approx(expected, rel=1e-4)
    before = keras_initkit.propagate(model)["x"]
    assert before.gradient_second_moment == pytest.approx(power(model.layers[0]) / 2.0, rel=1e-3)


def test_weights_times_a_number_scale_linear_layers_by_its_square():
    model = mlp(3, activation=None)
    before = moments(model)
    for layer in model.layers:
        layer.kernel.assign(3.0 * layer.kernel)
    after = moments(model)
    for i, ((signal, gradient), (larger, steeper)) in enumerate(zip(before, after, strict=True)):
        assert larger == pytest.approx(9.0**i * signal, rel=1e-5)
        assert steeper == pytest.approx(9.0 ** (3 - i) * gradient, rel=1e-5)


def test_names_and_the_order_of_building_do_not_matter():
    first, second = mlp(), mlp(names=("other",))
    second.set_weights(first.get_weights())
    assert moments(first) == moments(second)
    x = keras.Input((8,))
    branches = [layers.Dense(8, name="a"), layers.Dense(8, name="b")]
    built = {}
    for order in (branches, branches[::-1]):
        made = {layer.name: layer(x) for layer in order}
        model = keras.Model(x, layers.Add(name="add")([made["a"], made["b"]]))
        row = keras_initkit.propagate(model)["add"]
        built[order[0].name] = row.second_moment
    assert built["a"] == built["b"]


def test_a_sum_knows_that_its_terms_are_the_same_tensor():
    x = keras.Input((64,))
    y = layers.Dense(64, name="y")(x)
    model = keras.Model(x, [layers.Add(name="twice")([y, y]), layers.Add(name="sum")([x, y])])
    found = keras_initkit.propagate(model)
    q = found["y"].second_moment
    assert found["twice"].second_moment == pytest.approx(4.0 * q)
    assert found["sum"].second_moment == pytest.approx(1.0 + q)
    assert found["y"].gradient_second_moment == pytest.approx(5.0)


def test_functions_of_one_tensor_are_taken_together():
    x = keras.Input((64,))
    model = keras.Model(x, ops.multiply(x, ops.sigmoid(x)))
    found = keras_initkit.propagate(model).rows
    assert found[-1].second_moment == pytest.approx(0.355776, abs=1e-4)
    assert found[0].gradient_second_moment == pytest.approx(0.379482, abs=1e-3)


class Block(keras.layers.Layer):
    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.fc = layers.Dense(64, "relu", name="fc")
        self.norm = layers.LayerNormalization(name="norm")

    def build(self, shape):
        self.fc.build(shape)
        self.norm.build(shape)

    def call(self, x, training=False):
        return self.norm(x + self.fc(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.blocks = [Block(name="first"), Block(name="second")]
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        x = inputs
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x)}


def test_subclassed_models_are_traced_into_their_layers():
    model = Subclassed()
    model(np.zeros((2, 64), "float32"))
    weights = [ops.convert_to_numpy(w) for w in model.weights]
    found = keras_initkit.propagate(model)
    paths = [row.path for row in found]
    assert {"first/fc", "first/norm", "second/fc", "head"} <= {
        p.replace("blocks/", "") for p in paths
    }
    assert {row.how for row in found} == {"rule"}
    for before, after in zip(weights, model.weights, strict=True):
        assert before.tobytes() == ops.convert_to_numpy(after).tobytes()
    assert not model.head._inbound_nodes


class Odd(keras.layers.Layer):
    def call(self, x):
        return ops.sort(x, axis=-1)


def test_nested_shared_and_unknown_layers():
    shared = layers.Dense(32, name="shared")
    inner = keras.Sequential([keras.Input((32,)), layers.Dense(32, name="deep")], name="inner")
    a, b = keras.Input((32,), name="a"), keras.Input((32,), name="b")
    x = layers.Concatenate(name="join")([inner(shared(a)), shared(b)])
    model = keras.Model({"a": a, "b": b}, [Odd(name="odd")(x), inner(b)])
    found = keras_initkit.propagate(model, {"a": (0.0, 4.0, 0.0), "b": None})
    assert found["shared"].second_moment == pytest.approx(4.0 * found["shared#2"].second_moment)
    assert found["inner/deep"].how == "rule"
    assert "inner/deep#2" in [row.path for row in found]
    assert found["odd"].how == "sampled"
    assert found["odd"].second_moment == pytest.approx(found["join"].second_moment, rel=0.05)
    assert found["odd"].gradient_second_moment == pytest.approx(1.0)
    assert found["join"].gradient_second_moment == pytest.approx(1.0, rel=0.2)
    assert "sampled" in str(found)
    assert "1 sampled" in repr(found)
    with pytest.raises(KeyError, match=r"must be the path of a layer.*no layer"):
        found["missing"]


def test_integers_are_looked_up():
    model = keras.Sequential([keras.Input((None,), dtype="int32"), layers.Embedding(50, 16)])
    first, last = keras_initkit.propagate(model).rows
    table = ops.convert_to_numpy(model.layers[0].embeddings)
    assert last.second_moment == pytest.approx(float((table**2).mean()), rel=1e-5)
    assert first.gradient_second_moment is None


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="must be built"):
        keras_initkit.propagate(keras.Sequential([layers.Dense(2)]))
    model = mlp(1)
    with pytest.raises(
        ValueError, match=r"a second moment of mean² or more.*Received: \(2, 1, 0\)"
    ):
        keras_initkit.propagate(model, (2, 1, 0))
    with pytest.raises(ValueError, match=r"data of shape \(examples, 64\).*shape \(5, 3\)"):
        keras_initkit.propagate(model, np.zeros((5, 3)))
    pair = keras.Model([x := keras.Input((2,)), y := keras.Input((2,))], layers.Add()([x, y]))
    with pytest.raises(ValueError, match="structure of the model's inputs, of which there are 2"):
        keras_initkit.propagate(pair, (0.0, 1.0, 0.0))


def test_a_softmax_of_constants_is_their_share():
    zeros = layers.Dense(10, "softmax", kernel_initializer="zeros")
    (*_, (power, _)) = moments(keras.Sequential([keras.Input((4,)), zeros]))
    assert power == pytest.approx(0.01, rel=1e-5)
