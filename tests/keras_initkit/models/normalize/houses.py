"""Models and data that the tests of this folder share."""

import keras
import numpy as np

layers = keras.layers
ROWS = 700


def columns(rows=ROWS):
    rng = np.random.default_rng(0)
    return {
        "age": rng.normal(50, 20, rows),
        "blood": rng.normal([100, -3, 0.1], [10, 100, 0.01], (rows, 3)),
        "job": rng.integers(0, 5, rows),
    }


def prices(rows=ROWS):
    return np.random.default_rng(1).normal(3e5, 1e5, (rows, 1))


def scaled(values):
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def by_hand(data):
    return {"age": scaled(data["age"]), "blood": scaled(data["blood"]), "job": data["job"]}


def features():
    """Two continuous inputs and a categorical one, and a hidden layer of them."""
    inputs = {
        "age": keras.Input((1,), name="age"),
        "blood": keras.Input((3,), name="blood"),
        "job": keras.Input((), dtype="int32", name="job"),
    }
    job = layers.Embedding(5, 2)(inputs["job"])
    joined = layers.Concatenate()([inputs["age"], inputs["blood"], job])
    return inputs, layers.Dense(8, "tanh")(joined)


def regression():
    inputs, hidden = features()
    return keras.Model(inputs, layers.Dense(1, name="price")(hidden), name="houses")


def two_outputs(structure="list"):
    inputs, hidden = features()
    price = layers.Dense(1, name="price")(hidden)
    kind = layers.Dense(4, "softmax", name="kind")(hidden)
    outputs = {"price": price, "kind": kind} if structure == "dict" else [price, kind]
    return keras.Model(inputs, outputs)


def stack(*shape):
    inputs = keras.Input(shape, name="x")
    return keras.Sequential([inputs, layers.Dense(4, "tanh"), layers.Dense(1)])


def list_model():
    inputs = [keras.Input((1,), name="a"), keras.Input((2,), name="b")]
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(inputs)))


def column_model():
    names = ("age", "blood_0", "blood_1", "blood_2")
    inputs = {name: keras.Input((1,) if name == "age" else (), name=name) for name in names}
    wide = [inputs["age"], *(layers.Reshape((1,))(inputs[name]) for name in names[1:])]
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(wide)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


class Batches(keras.utils.PyDataset):
    def __init__(self, data, y):
        super().__init__()
        self.data, self.y, self.reads = data, y, 0

    def __len__(self):
        return 7

    def __getitem__(self, index):
        self.reads += 1
        part = slice(100 * index, 100 * index + 100)
        return {name: array[part] for name, array in self.data.items()}, self.y[part]


def generator(data, y):
    batches = Batches(data, y)
    for index in range(len(batches)):
        yield batches[index]


def call(model, x):
    """Predict without compiling."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))
