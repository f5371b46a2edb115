"""Losses of one's own that are, and are not, smallest where outputs are right."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.anatomy.setup import read_setup
from keras_initkit.callbacks import GradientMonitor
from keras_initkit.models.check.check import check
from keras_initkit.models.check.own_loss import ask_loss

pytestmark = pytest.mark.newest

RNG = np.random.default_rng(0)
BITS, CLASSES, NUMBERS = RNG.integers(0, 2, 99), RNG.integers(0, 4, 99), RNG.normal(size=99)
ONE_HOT, SIGNS, SIZES = np.eye(4)[CLASSES], 2 * BITS - 1, RNG.lognormal(3, 0.5, 99)
MASKS = np.float32(RNG.uniform(size=(99, 8, 8, 1)) < 0.2)


def dice(y, p):
    return (2 * ops.sum(y * p) + 1) / (ops.sum(y) + ops.sum(p) + 1)


def likelihood(y, p):
    return ops.mean(y * ops.log(p) + (1 - y) * ops.log(1 - p))


def squares(y, p):
    return ops.mean(ops.square(y - p))


def hinge(y, p):
    return ops.mean(ops.maximum(1 - y * p, 0))


class Flattened(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return squares(ops.reshape(y_true, (-1,)), y_pred)


# A loss, targets, the output's activation, and the fault.
LOSSES: dict[str, tuple[Any, Any, str | None, str | None]] = {
    "minus squares": (lambda y, p: -squares(y, p), NUMBERS, None, "sign"),
    "likelihood": (likelihood, BITS, "sigmoid", "sign"),
    "Dice coefficient": (dice, MASKS, "sigmoid", "sign"),
    "all with all": (lambda y, p: squares(ops.reshape(y, (-1,)), p), NUMBERS, None, "samples"),
    "of a class, all with all": (Flattened(), NUMBERS, None, "samples"),
    "mean before size": (lambda y, p: ops.abs(ops.mean(y - p)), NUMBERS, None, "samples"),
    "difference alone": (lambda y, p: ops.mean(y - p), NUMBERS, None, "samples"),
    "hinge of 0 and 1": (hinge, BITS, None, "labels"),
    "hinge, sigmoid": (hinge, BITS, "sigmoid", "labels"),
    "one class alone": (lambda y, p: -ops.mean(y * ops.log(p)), BITS, "sigmoid", "samples"),
    "relative, swapped": (
        lambda p, y: ops.mean(ops.maximum(1 - y * p, 0) + 9 * ops.square(y)),
        SIGNS,
        None,
        "swapped",
    ),
    # These are right.
    "cross-entropy": (lambda y, p: -likelihood(y, p), BITS, "sigmoid", ""),
    "squares": (squares, NUMBERS, None, ""),
    "root": (lambda y, p: ops.sqrt(squares(y, p)), SIZES, "relu", ""),
    "1 - Dice": (lambda y, p: 1 - dice(y, p), MASKS, "sigmoid", ""),
    "minus Dice": (lambda y, p: -dice(y, p), MASKS, "sigmoid", ""),
    "hinge": (hinge, SIGNS, "tanh", ""),
    "hinge that makes signs": (lambda y, p: hinge(2 * y - 1, p), BITS, "sigmoid", ""),
    "logits": (
        lambda y, p: ops.mean(ops.maximum(p, 0) - p * y + ops.log1p(ops.exp(-ops.abs(p)))),
        BITS,
        None,
        "",
    ),
    "sparse": (
        lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p),
        CLASSES,
        "softmax",
        "",
    ),
    "cosine": (lambda y, p: -ops.sum(y * p) / ops.norm(p), ONE_HOT, None, ""),
    "quantile": (
        lambda y, p: ops.mean(ops.maximum(0.9 * (y - p), 0.1 * (p - y))),
        NUMBERS,
        None,
        "",
    ),
    "profit": (lambda y, p: -ops.mean(y * p), NUMBERS / 100, "tanh", ""),
    # These cannot be asked: distances, critics, losses inside the model, one target, wrong shapes.
    "distance": (
        lambda y, p: ops.mean(y * p**2 + (1 - y) * ops.maximum(1 - p, 0) ** 2),
        BITS,
        None,
        None,
    ),
    "critic": (lambda y, p: ops.mean(y * p), SIGNS, None, None),
    "the output itself": (lambda y, p: ops.mean(p), BITS, None, None),
    "one target": (lambda y, p: -squares(y, p), NUMBERS * 0, None, None),
    "raises": (lambda y, p: ops.mean(p) + 1 / 0, NUMBERS, None, None),
    "of Keras": (keras.losses.mean_squared_error, NUMBERS, None, None),
}


def ask(loss, x, y, *stack):
    model = keras.Sequential([keras.Input(stack[0]), *stack[1:]])
    model.compile("sgd", loss)
    return ask_loss(model, read_setup(model), x, y).heads[0].arguments


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_asked_for_its_value_of_right_outputs(name):
    loss, y, activation, fault = LOSSES[name]
    units = 4 if y is CLASSES else y.shape[-1] if y.ndim > 1 else 1
    last = layers.Conv2D if y.ndim > 2 else layers.Dense
    size = (units, 1) if y.ndim > 2 else (units,)
    asked = ask(
        loss, None, y, (8, 8, 1) if y.ndim > 2 else (3,), last(*size, activation=activation)
    )
    assert asked.get("fault") == fault
    # Of losses whose values are known, by hand.
    if name == "squares":
        assert asked["of_targets"] == 0
        assert asked["of_constant"] > np.var(y) * 0.7


def test_pairs_that_are_pushed_apart_where_they_are_alike():
    first = RNG.normal(size=(99, 5))
    second = np.where(BITS[:, None] == 1, first + 0.1 * RNG.normal(size=(99, 5)), -first)

    def contrastive(y, p):
        return ops.mean((1 - y) * ops.square(p) + y * ops.square(ops.maximum(1 - p, 0)))

    def told(loss, x, y):
        inputs = [keras.Input((5,)), keras.Input((5,))]
        distance = layers.Dense(1)(layers.Subtract()(inputs))
        model = keras.Model(inputs, distance)
        model.compile("sgd", loss)
        return ask_loss(model, read_setup(model), x, y).heads[0].arguments.get("fault")

    assert told(contrastive, [first, second], BITS) == "pairs"
    assert told(contrastive, [first, second], 1 - BITS) != "pairs"
    assert told(lambda y, p: contrastive(1 - y, p), [first, second], BITS) != "pairs"
    assert told(contrastive, [first, first[::-1]], BITS) != "pairs"  # neither is nearer
    assert told(lambda y, p: squares(y, p), [first, second], BITS) == ""


def test_check_and_the_monitor_tell_of_it():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")])
    model.compile("sgd", likelihood)
    x = RNG.normal(size=(99, 3))
    (finding,) = check(model, x, BITS)
    assert (finding.kind, finding.severity) == ("loss_choice", "error")
    monitor = GradientMonitor(verbose=False)
    with pytest.warns(UserWarning, match="The loss `likelihood` is"):
        model.fit(x, BITS, verbose=0, callbacks=[monitor])
    assert [f.kind for f in monitor.findings] == ["loss_choice"]


def test_nothing_of_the_model_or_of_random_numbers_changes():
    keras.utils.set_random_seed(0)
    before = np.random.get_state(legacy=True)[1].copy()  # type: ignore[index]
    ask(
        lambda y, p: squares(y, p + keras.random.normal((1,))), None, NUMBERS, (3,), layers.Dense(1)
    )
    after = np.random.get_state(legacy=True)[1]  # type: ignore[index]
    assert (after == before).all()


def test_a_loss_that_keeps_something_is_not_asked():
    kept: list[float] = []
    steps = keras.Variable(0.0)

    def counting(y, p):
        steps.assign_add(1.0)
        return -squares(y, p)

    def keeping(y, p):
        def inner():
            kept.append(1.0)

        inner()
        return -squares(y, p)

    class Remembering(keras.losses.Loss):
        def call(self, y_true, y_pred):
            self.last = y_pred
            return -squares(y_true, y_pred)

    for loss in (counting, keeping, Remembering()):
        assert "fault" not in ask(loss, None, NUMBERS, (3,), layers.Dense(1))
    assert not kept
    assert float(steps) == 0
