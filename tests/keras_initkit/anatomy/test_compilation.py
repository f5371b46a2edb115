"""What models were compiled with."""

import functools

import keras
import pytest

from keras_initkit.anatomy.compilation import read_heads, read_optimizer

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

losses = keras.losses


def compiled(cls=keras.Sequential, **arguments):
    model = cls([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(**arguments)
    return model


def test_keras_is_as_it_is_read():
    """If this fails, see the top of anatomy/compilation.py."""
    model = compiled(loss="mse", metrics=["mae"])
    assert model._compile_config.config["metrics"] == ["mae"]
    assert model.loss == "mse"
    assert losses.BinaryCrossentropy().fn is losses.binary_crossentropy
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    assert keras.optimizers.SGD(schedule)._learning_rate is schedule


def own_loss(y_true, y_pred):
    return keras.ops.mean(y_true - y_pred)


def hinge(y_true, y_pred):
    return own_loss(y_true, y_pred)


class OwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return own_loss(y_true, y_pred)

    def get_config(self):
        raise RuntimeError


class Weighted(keras.losses.BinaryCrossentropy):
    def call(self, y_true, y_pred):
        return 2 * super().call(y_true, y_pred)


class Renamed(keras.losses.BinaryCrossentropy):
    pass


@pytest.mark.parametrize(
    ("loss", "name", "arguments"),
    [
        (None, "", {}),
        ("mse", "mean_squared_error", {}),
        ("MAE", "mean_absolute_error", {}),
        ("kld", "kl_divergence", {}),
        ("Huber", "huber", {"delta": 1.0}),
        ("crossentropy", "crossentropy", {}),
        (losses.MeanSquaredError, "mean_squared_error", {}),
        (losses.sparse_categorical_crossentropy, "sparse_categorical_crossentropy", {}),
        (
            losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
            "sparse_categorical_crossentropy",
            {"from_logits": True, "ignore_class": 0},
        ),
        (
            functools.partial(losses.binary_crossentropy, from_logits=True),
            "binary_crossentropy",
            {"from_logits": True},
        ),
        (losses.CategoricalFocalCrossentropy(), "categorical_focal_crossentropy", {"gamma": 2.0}),
        (Renamed(from_logits=True), "binary_crossentropy", {"from_logits": True}),
        (Weighted(), "Weighted", {"from_logits": False}),
        (OwnLoss(), "OwnLoss", {}),
        (own_loss, "own_loss", {}),
        (hinge, f"{__name__}.hinge", {}),
        (lambda y_true, y_pred: 0.0, "<lambda>", {}),
        ([losses.MeanSquaredError()], "mean_squared_error", {}),
        (["mse", "mae"], "", {}),
        ({"own": "mse"}, "mean_squared_error", {}),
        ({"other": "mse"}, "", {}),
    ],
    ids=lambda case: "",
)
def test_losses(loss, name, arguments):
    (head,) = read_heads(compiled(loss=loss), [["own"]]).values()
    assert head.loss == name
    assert arguments.items() <= head.arguments.items()
    assert not {"name", "fn", "dtype"} & head.arguments.keys()


class OwnComputation(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


def test_a_loss_computed_otherwise_is_named_after_it():
    (head,) = read_heads(compiled(OwnComputation, loss="mse"), [["own"]]).values()
    assert head.loss == "OwnComputation.compute_loss"


def test_metrics():
    metrics = ["accuracy", keras.metrics.Precision(name="hits"), own_loss, keras.metrics.AUC]
    model = compiled(loss="mse", metrics=metrics, weighted_metrics=["mae"])
    (head,) = read_heads(model, [["own"]]).values()
    assert head.metrics == ("accuracy", "hits", "own_loss", "AUC", "mae")


def test_outputs_that_are_known_by_their_losses_alone():
    model = compiled(loss={"b": "mse", "a": None}, metrics={"a": ["mae"]})
    heads = read_heads(model, None)
    assert [(name, head.loss, head.metrics) for name, head in heads.items()] == [
        ("a", "", ("mae",)),
        ("b", "mean_squared_error", ()),
    ]


class OwnOptimizer(keras.optimizers.SGD):
    def get_config(self):
        raise RuntimeError


def test_optimizers():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.1, 0.01])
    inner = keras.optimizers.AdamW(schedule, weight_decay=0.02, global_clipnorm=1)
    name, numbers = read_optimizer(compiled(optimizer=keras.optimizers.LossScaleOptimizer(inner)))
    assert name == "AdamW"
    expected = {"learning_rate": 0.1, "weight_decay": 0.02, "global_clipnorm": 1, "epsilon": 1e-7}
    assert expected.items() <= numbers.items()
    assert all(isinstance(value, int | float) for value in numbers.values())
    warm_up = keras.optimizers.schedules.CosineDecay(0.0, 9, warmup_target=0.1, warmup_steps=10)
    numbers = read_optimizer(compiled(optimizer=keras.optimizers.SGD(warm_up)))[1]
    assert numbers["learning_rate"] == pytest.approx(0.01)  # and 0 at its first step
    assert read_optimizer(compiled(optimizer=OwnOptimizer())) == ("OwnOptimizer", {})
    assert read_optimizer(keras.Sequential()) == ("", {})


def test_a_setup_is_read_without_a_call_that_callbacks_take_for_a_save():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    saves = []
    vars(model.optimizer)["get_config"] = lambda: saves.append(1)
    assert read_optimizer(model)[1]["learning_rate"] == 0.01
    assert saves == []
