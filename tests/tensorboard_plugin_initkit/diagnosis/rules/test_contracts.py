"""Broken contracts between output, loss and targets, and what looks like them."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.rules.contracts import (
    CONTRACT_RULES,
    RANGES,
    squeeze,
)
from tensorboard_plugin_initkit.diagnosis.rules.structure import find_outputs_of_one
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import (
    BATCH,
    RNG,
    X,
    chain,
    dense,
    facts_of,
    layer,
)

pytestmark = pytest.mark.numpy_alone

BINARY, CATEGORICAL = "binary_crossentropy", "categorical_crossentropy"
SPARSE, SQUARED = "sparse_categorical_crossentropy", "mean_squared_error"
INDEX = np.arange(BATCH)
BITS, DIGITS, NUMBERS = INDEX % 2, INDEX % 10, INDEX * 1.5
ONE_HOT = np.eye(4)[INDEX % 4]
TWO_HOT = ONE_HOT + np.eye(4)[(INDEX + 1) % 4]
PICTURES = RNG.integers(0, 256, (BATCH, 8, 8, 1))
FIRST = dense(16, "relu")


def find(setup, *batches, **fields):
    facts = facts_of(setup, *batches, **fields)
    return [finding for rule in CONTRACT_RULES for finding in rule(facts)]


def head(activation, units, loss, **fields):
    return chain(FIRST, dense(units, activation), loss=loss, **fields)


# Activation and units of the output, loss and its arguments, targets; kind, and parts of the
# message and of the fix.
BROKEN = {
    "softmax of one": ("softmax", 1, BINARY, BITS, "single_unit_softmax", "always 1", "sigmoid"),
    "softmax of one, numbers": ("softmax", 1, SQUARED, NUMBERS, "single_unit_softmax", "1", "(1)`"),
    "softmax of one, classes": ("softmax", 1, SPARSE, DIGITS, "single_unit_softmax", "1", "(10, "),
    "categorical of one": ("sigmoid", 1, CATEGORICAL, BITS, "single_unit_softmax", "0.", BINARY),
    "sparse of one": ("linear", 1, SPARSE, BITS, "single_unit_softmax", "one unit", BINARY),
    "linear": ("linear", 10, SPARSE, DIGITS, "logits", "no activation", "from_logits=True"),
    "linear for numbers": ("linear", 1, BINARY, NUMBERS, "loss_choice", "46.5", SQUARED),
    "relu": (
        "relu",
        1,
        BINARY,
        BITS,
        "head_activation",
        "`relu`",
        'Dense(1, activation="sigmoid")',
    ),
    "tanh": ("tanh", 4, CATEGORICAL, ONE_HOT, "head_activation", "`tanh`", "softmax"),
    "log softmax": (
        "log_softmax",
        10,
        SPARSE,
        DIGITS,
        "logits",
        "expects prob",
        "from_logits=True",
    ),
    "poisson": ("linear", 1, "poisson", DIGITS, "head_activation", "negative", "exponential"),
    "several": ("softmax", 4, BINARY, TWO_HOT, "loss_choice", "several classes at", "sigmoid"),
    "exclusive": ("softmax", 4, BINARY, ONE_HOT, "loss_choice", "softmax of 4", CATEGORICAL),
    "of two": ("softmax", 2, BINARY, np.eye(2)[DIGITS % 2], "loss_choice", "of 2", CATEGORICAL),
    "multi-label": ("softmax", 4, CATEGORICAL, TWO_HOT, "loss_choice", "2 ones per row", BINARY),
    "sigmoids": ("sigmoid", 4, CATEGORICAL, ONE_HOT, "loss_choice", "independent", "softmax"),
    "sparse sigmoids": ("sigmoid", 10, SPARSE, DIGITS, "loss_choice", "independent", "softmax"),
    "integers": ("softmax", 10, CATEGORICAL, DIGITS, "label_form", "(batch, 10)", SPARSE),
    "one-hot": ("softmax", 4, SPARSE, ONE_HOT, "label_form", "(batch, 4)", f'"{CATEGORICAL}"'),
    "width": ("softmax", 7, CATEGORICAL, ONE_HOT, "label_form", "(batch, 7)", "Dense(4, "),
    "from 1": ("softmax", 10, SPARSE, DIGITS + 1, "label_form", "1 to 10; 10 un", "`y = y - 1`"),
    "too many": ("softmax", 9, SPARSE, DIGITS, "label_form", "are for 0 to 8", "Dense(10, "),
    "negative": ("softmax", 10, SPARSE, DIGITS - 1, "label_form", "-1 to 8", "`y = y + 1`"),
    "fractions": ("softmax", 4, SPARSE, BITS / 2, "label_form", "fractions", ""),
    "-1 and 1": ("sigmoid", 1, BINARY, 2 * BITS - 1, "label_form", "-1 and 1", "(y + 1) / 2"),
    "hinge": ("tanh", 1, "hinge", DIGITS, "label_form", "0 to 9, its loss is", "Dense(10, "),
    "1 and 2": ("sigmoid", 1, BINARY, BITS + 1, "label_form", "1 and 2", "`y = y - 1`"),
    "digits": (
        "sigmoid",
        1,
        BINARY,
        DIGITS,
        "target_range",
        "0 to 9; the",
        '(10, activation="softm',
    ),
    "numbers": ("sigmoid", 1, SQUARED, NUMBERS, "target_range", "gives 0 to 1", "`Dense(1)`"),
    "tanh numbers": ("tanh", 1, "huber", NUMBERS, "target_range", "-1 to 1", '`loss="huber"`'),
    "negative numbers": ("relu", 8, SQUARED, X, "target_range", "gives at least 0", "`Dense(8)`"),
    "pixels": ("sigmoid", (8, 8, 1), BINARY, PICTURES, "target_range", "0 to 255", "`y = y / 255`"),
    "teacher": ("softmax", 8, "kl_divergence", X, "target_range", "0 to 1", "keras.ops.softmax(y)"),
    "one direction": ("linear", 1, "cosine_similarity", NUMBERS, "loss_choice", "sign", SQUARED),
    "repeated": ("linear", 3, SQUARED, X[:, :1], "target_shape", "(batch, 3)", "`Dense(1)`"),
    "classes": ("softmax", 10, SQUARED, DIGITS, "target_shape", "(batch, 10)", SPARSE),
    "every step": ("linear", (7, 1), SQUARED, X[:, 0], "target_shape", "(batch, 7, 1)", "Flatten"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_contract_is_told_from_one_record_with_its_remedy(name):
    activation, units, loss, y, kind, message, fix = BROKEN[name]
    (finding,) = find(head(activation, units, loss), y)
    assert (finding.kind, finding.layer, finding.step) == (kind, "dense_1", 0)
    assert message in finding.message
    assert fix in str(finding.fix)
    assert finding.cause.endswith(".")
    milder = {"of two": "note", "exclusive": "warning", "poisson": "warning"}
    severity = milder.get(name, "error")
    sure = "certain" if severity == "error" else "likely"
    assert (finding.severity, finding.confidence) == (severity, sure)
    assert {"units", "low", "high"} == set(finding.evidence)
    # The same, however often it is seen.
    assert find(head(activation, units, loss), y, steps=range(5)) == [finding]


@pytest.mark.parametrize(
    ("activation", "units", "loss", "kind"),
    [
        ("softmax", 1, BINARY, "single_unit_softmax"),
        ("linear", 10, SPARSE, "logits"),
        ("relu", 1, BINARY, "head_activation"),
        ("sigmoid", 10, CATEGORICAL, "loss_choice"),
        ("softmax", 10, BINARY, "loss_choice"),
    ],
)
def test_some_are_told_of_the_setup_alone(activation, units, loss, kind):
    (finding,) = find(head(activation, units, loss), x=None, steps=())
    assert (finding.kind, finding.step) == (kind, None)


def test_an_output_of_ones_of_an_unknown_activation():
    setup, ones = head("own", 1, BINARY, head=""), np.ones((BATCH, 1))
    (finding,) = find(setup, BITS, y_pred=ones)
    assert (finding.kind, finding.severity) == ("single_unit_softmax", "error")
    assert "is 1 for every sample, as a softmax" in finding.message
    assert 'Dense(1, activation="sigmoid")' in str(finding.fix)
    assert find(setup, BITS, y_pred=ones * 0.999) == []
    assert find(head("sigmoid", 1, BINARY), BITS, y_pred=ones) == []  # it is saturated
    assert find(head("own", 2, BINARY, head=""), np.eye(2)[BITS], y_pred=np.ones((BATCH, 2))) == []


def test_numbers_of_another_scale_come_with_their_normalization():
    for size, is_scaled in ((100, True), (0.2, False)):
        (finding,) = find(head("sigmoid", 1, SQUARED), size * NUMBERS)
        assert finding.kind == "target_range"
        assert ("with_normalization(model, x, y)" in str(finding.fix)) is is_scaled
        repairs = {"normalize": {"inputs": True, "targets": True}}
        assert (finding.fix.repairs.items() >= repairs.items()) is is_scaled


def test_targets_far_out_of_reach_under_a_loss_of_ones_own():
    (finding,) = find(head("sigmoid", 1, "my_loss"), 10 * NUMBERS)
    assert (finding.kind, finding.severity) == ("target_range", "warning")
    assert (finding.layer, finding.fix.text) == ("dense_1", "Use `Dense(1)`.")
    (finding,) = find(head("sigmoid", (8, 8, 1), "my_loss"), PICTURES)
    assert (finding.fix.text, finding.fix.repairs) == ("Use `y = y / 255`.", {})
    assert find(head("sigmoid", 1, "my_loss"), 2 * BITS - 1) == []
    assert find(head("sigmoid", 4, "my_loss"), 10 * NUMBERS) == []  # such as actions
    assert find(head("tanh", 4, "cosine_similarity"), 100 * X[:, :4]) == []


def test_classes_by_number_that_are_learned_as_one_number_are_a_note():
    setup = head("linear", 1, SQUARED, metrics=("accuracy",))
    (finding,) = find(setup, DIGITS)
    assert (finding.kind, finding.severity) == ("loss_choice", "note")
    assert SPARSE in str(finding.fix)
    assert find(head("linear", 1, SQUARED), DIGITS) == []
    assert find(setup, DIGITS + 30) == []
    (accuracy,) = find(setup, NUMBERS)
    assert (accuracy.severity, str(accuracy.fix)[:22]) == ("note", 'Use `metrics=["mae"]`,')


def test_messages():
    (finding,) = find(head("sigmoid", 1, BINARY), DIGITS)
    assert finding.message == (
        "The targets go from 0 to 9; the output (layer `dense_1`) ends in `sigmoid` and gives "
        "0 to 1."
    )
    assert finding.fix.text == (
        'Use `Dense(10, activation="softmax")` with `loss="sparse_categorical_crossentropy"`.'
    )
    (finding,) = find(head("softmax", 10, SPARSE, from_logits=True), DIGITS)
    assert finding.kind == "logits"
    assert "applied twice" in finding.cause
    assert finding.fix.text == (
        "Use `loss=keras.losses.SparseCategoricalCrossentropy(from_logits=False)`, or remove "
        '`activation="softmax"`.'
    )


SEQUENCE = RNG.normal(size=(BATCH, 7, 1))
LABELS_OF_STEPS = RNG.integers(0, 5, (BATCH, 7))
# The kind that it looks like. Activation, units, loss, targets, and arguments of the loss.
RIGHT = {
    "single_unit_softmax: binary": ("sigmoid", 1, BINARY, BITS),
    "target_shape: binary, a column": ("sigmoid", 1, BINARY, BITS[:, None]),
    "single_unit_softmax: two classes": ("softmax", 2, SPARSE, BITS),
    "label_form: a column of labels": ("softmax", 10, SPARSE, DIGITS[:, None]),
    "label_form: few of the classes": ("softmax", 100, SPARSE, DIGITS + 1),
    "loss_choice: one-hot": ("softmax", 4, CATEGORICAL, ONE_HOT),
    "label_form: smoothed": ("softmax", 4, CATEGORICAL, 0.8 * ONE_HOT + 0.05),
    "loss_choice: multi-label": ("sigmoid", 4, BINARY, TWO_HOT),
    "loss_choice: some rows without a class": ("softmax", 4, CATEGORICAL, ONE_HOT * BITS[:, None]),
    "target_range: pixels in 0..1": ("sigmoid", (8, 8, 1), BINARY, PICTURES / 255),
    "target_range: a little beyond a tanh": ("tanh", 1, SQUARED, 1.2 * np.sin(np.arange(BATCH))),
    "target_range: squared error of pixels": ("sigmoid", (8, 8, 1), SQUARED, PICTURES / 255),
    "label_form: segmentation": ("softmax", (7, 5), SPARSE, LABELS_OF_STEPS),
    "label_form: segmentation with an axis": (
        "softmax",
        (7, 5),
        SPARSE,
        LABELS_OF_STEPS[..., None],
    ),
    "numbers": ("linear", 1, SQUARED, NUMBERS),
    "target_shape: a column of numbers": ("linear", 1, SQUARED, NUMBERS[:, None]),
    "target_shape: steps without an axis": ("linear", (7, 1), SQUARED, SEQUENCE[..., 0]),
    "target_shape: steps": ("linear", 7, "mean_absolute_error", SEQUENCE),
    "head_activation: positive numbers": ("relu", 1, SQUARED, NUMBERS),
    "head_activation: counts": ("exponential", 1, "poisson", DIGITS),
    "label_form: hinge": ("tanh", 1, "hinge", 2 * BITS - 1),
    "logits: hinge of bits": ("linear", 1, "hinge", BITS),
    "logits: a loss that knows": ("linear", 10, SPARSE, DIGITS, {"from_logits": True}),
    "label_form: no class": ("softmax", 10, SPARSE, DIGITS - 1, {"ignore_class": -1}),
    "label_form: a border": (
        "softmax",
        10,
        SPARSE,
        np.where(BITS, 255, DIGITS),
        {"ignore_class": 255},
    ),
    "label_form: classes on another axis": (
        "softmax",
        (4, 5),
        CATEGORICAL,
        np.eye(4)[DIGITS % 4],
        {"axis": 1},
    ),
    "loss_choice: probabilities as numbers": ("sigmoid", 1, SQUARED, BITS),
    "target_range: a little beyond": ("tanh", 1, SQUARED, np.linspace(-1.01, 1.01, BATCH)),
    "target_range: angles": ("tanh", 8, "cosine_similarity", 100 * X),
    "a loss of one's own": ("sigmoid", 1, "my_loss", 100 * X),
    "no loss": ("softmax", 1, "", DIGITS),
    "target_range: an activation of one's own": ("my_activation", 1, SQUARED, NUMBERS),
    "target_range: a relu with a slope": ("relu(negative_slope=0.1)", 8, SQUARED, X),
}


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_said_of_what_is_right(name):
    activation, units, loss, y, *arguments = RIGHT[name]
    assert find(head(activation, units, loss, **dict(*arguments)), y) == []


def test_samples_that_do_not_count_may_have_any_target():
    weights = np.where(DIGITS > 0, 1.0, 0.0)
    assert find(head("softmax", 10, SPARSE), DIGITS - 1, sample_weight=weights) == []
    assert find(head("sigmoid", 1, SQUARED), NUMBERS, sample_weight=weights) == []


def test_predictions_beyond_an_activation_tell_that_something_follows_it():
    assert find(head("sigmoid", 1, SQUARED), NUMBERS, y_pred=NUMBERS[:, None]) == []


def test_predictions_tell_of_logits_where_the_activation_is_not_known():
    model = head("linear", 10, SPARSE, head="")
    logits = RNG.normal(size=(BATCH, 10))
    (finding,) = find(model, DIGITS, y_pred=logits)
    assert finding.kind == "logits"
    assert "goes from -" in finding.message
    assert "from_logits=True" in str(finding.fix)
    assert find(model, DIGITS) == []
    assert find(head("linear", 10, SPARSE, head="", from_logits=True), DIGITS, y_pred=logits) == []
    # What is only not normalized, this loss normalizes.
    positive = head("linear", 4, CATEGORICAL, head="")
    assert find(positive, ONE_HOT, y_pred=np.exp(logits[:, :4])) == []
    assert find(head("exponential", 4, CATEGORICAL), ONE_HOT) == []


def test_a_dropout_as_the_output():
    setup = chain(FIRST, dense(10, "softmax"), layer("Dropout", 10), loss=SPARSE)
    (finding,) = find(setup, DIGITS)
    assert (finding.kind, finding.layer) == ("output_dropout", "dropout_2")
    assert "`Dropout` before the last `Dense`" in str(finding.fix)
    assert find(chain(FIRST, layer("Dropout", 16), dense(10, "softmax"), loss=SPARSE), DIGITS) == []
    assert find(chain(FIRST, dense(10, "softmax"), layer("Dropout", 10)), DIGITS) == []


def test_what_keras_mends_is_no_error():
    setup = head("softmax", 10, SPARSE, from_logits=True)
    (finding,) = find(dataclasses.replace(setup, backend="tensorflow"), DIGITS)
    assert (finding.kind, finding.severity) == ("logits", "warning")
    assert "Keras mostly notices this" in finding.cause


def test_each_of_several_outputs_is_judged_by_its_own_targets():
    setup = head("sigmoid", 1, BINARY)
    other = setup.heads[0]._replace(name="b", loss=SQUARED, activation="linear")
    setup = dataclasses.replace(setup, heads=(setup.heads[0]._replace(name="a"), other))
    preds = [BITS[:, None], X[:, :1]]
    assert find(setup, [BITS, NUMBERS], y_pred=preds) == []
    assert find(setup, {"b": NUMBERS, "a": BITS}, y_pred=preds) == []  # in whatever order
    (finding,) = find(setup, [DIGITS, NUMBERS], y_pred=preds)
    assert finding.message.startswith(
        "The targets go from 0 to 9; the output `a` (layer `dense_1`)"
    )


def test_the_best_constant_of_each_output_has_the_weight_of_its_own():
    (head_of_one,) = head("linear", 1, SQUARED).heads
    weights = {"a": 100, "b": 1}
    heads = [head_of_one._replace(name=k, arguments={"loss_weight": weights[k]}) for k in "ab"]
    setup = dataclasses.replace(head("linear", 1, SQUARED), heads=tuple(heads))
    small, large = X[:, :1], 20 * X[:, :1]
    want = 100 * small.var() + large.var()
    for y in ([small, large], {"a": small, "b": large}, {"b": large, "a": small}):
        assert facts_of(setup, y, y_pred=[small, small]).loss.guess[0] == pytest.approx(want)


def test_it_is_told_when_it_is_first_seen():
    setup = head("softmax", 9, SPARSE)
    facts = facts_of(setup, DIGITS, steps=(0, 10, 20))
    ports = facts.records._joined().ports
    ports["max"][:2, 1] = 8
    (finding,) = CONTRACT_RULES[0](facts)
    assert finding.step == 20


# Inside the model.


def test_a_softmax_over_an_axis_of_one():
    scores = dense((7, 1), "softmax")
    (finding,) = find(chain(FIRST, scores, layer("Flatten", 7), dense(1)))
    assert (finding.kind, finding.layer) == ("single_unit_softmax", "dense_1")
    assert "an axis of size 1" in finding.message
    along_steps = (dense((7, 1)), layer("Softmax", (7, 1), "softmax", axis=1))
    assert find(chain(FIRST, *along_steps, layer("Flatten", 7), dense(1))) == []
    assert find(chain(FIRST, dense((7, 2), "softmax"), dense(1))) == []
    assert find(chain(FIRST, layer("LSTM", 1, "softmax"), dense(1))) == []
    # Of an output without a loss, in a step of one's own, it is a cause.
    (finding,) = find_outputs_of_one(facts_of(chain(FIRST, dense(1, "softmax"))))
    assert (finding.layer, finding.confidence) == ("dense_1", "likely")
    assert "two classes" in str(finding.fix)
    assert list(find_outputs_of_one(facts_of(chain(FIRST, dense(2, "softmax"))))) == []
    # Of a model whose shapes are not known.
    unknown = dense(1, "softmax")._replace(shape=(), arguments={"units": 1})
    (finding,) = find(chain(FIRST, unknown, dense(1)))
    assert finding.layer == "dense_1"


def test_a_loss_below_0():
    (finding,) = find(head("sigmoid", 1, BINARY), None, loss=-3.0)
    assert finding.kind == "negative_loss"
    assert "`binary_crossentropy` is -3 at step 0" in finding.message
    assert find(head("sigmoid", 1, BINARY), None, loss=-3.0, penalty=-4.0) == []
    assert find(head("sigmoid", 1, BINARY), None, loss=-3.0, penalty=np.nan) == []
    assert find(head("linear", 4, "cosine_similarity"), X[:, :4], loss=-3.0) == []
    assert find(head("sigmoid", 1, BINARY, loss_weight=-1.0), None, loss=-3.0) == []
    # The labels are told of, not what follows from them.
    assert [f.kind for f in find(head("sigmoid", 1, BINARY), DIGITS, loss=-3.0)] == ["target_range"]


@pytest.mark.parametrize(
    ("course", "loss", "expected"),
    [
        (lambda s: -0.4 - s**2 / 100, "mine", [("negative_loss", 70)]),
        (lambda s: 1 - s**2 / 100, "mine", []),  # a likelihood of densities begins above 0
        (lambda s: -0.4 - np.sqrt(s), "mine", []),
        (lambda s: -0.4 - s**2 / 100, "cosine_similarity", []),
    ],
)
def test_a_loss_of_ones_own_that_falls_faster_and_faster(course, loss, expected):
    steps = np.arange(0, 100, 10)
    found = find(head("linear", 4, loss), X[:, :4], steps=steps, loss=course(steps))
    assert [(f.kind, f.step) for f in found] == expected
    asked = head("linear", 4, loss, fault="")  # as minus a Dice coefficient
    assert find(asked, X[:, :4], steps=steps, loss=course(steps)) == []


@pytest.mark.parametrize(
    ("fault", "kind", "fix"),
    [
        ("sign", "loss_choice", "return 1 - value"),
        ("swapped", "loss_choice", "y_true, y_pred"),
        ("labels", "label_form", "y = 2 * y - 1"),
        ("samples", "target_shape", "ops.reshape(y_true"),
    ],
)
def test_a_loss_of_ones_own_that_is_not_smallest_for_right_outputs(fault, kind, fix):
    asked = {"of_targets": 1.0, "of_constant": 0.5}
    (finding,) = find(head("sigmoid", 1, "mine", fault=fault, **asked), BITS)
    assert (finding.kind, finding.severity) == (kind, "error")
    assert "is 1 for outputs that are the targets, and 0.5 for" in finding.message
    assert fix in str(finding.fix)
    assert find(head("sigmoid", 1, "mine", fault="", **asked), BITS) == []


def test_an_error_in_percent_of_targets_that_are_0():
    setup = head("linear", 1, "mean_absolute_percentage_error")
    zeros, far = np.maximum(X[:, :1], 0), 1 + np.abs(X[:, :1])

    def told(y, loss, setup=setup):
        return [f.kind for f in find(setup, y, steps=(0, 10, 20), loss=loss)]

    assert told(zeros, 1e7) == ["loss_choice"]
    assert told(far, 1e7) == []  # predictions are far off
    assert told(zeros, 90.0) == told(zeros, [1e7, 1e7, 90.0]) == []
    assert told(zeros, 1e7, head("linear", 1, "mean_absolute_error")) == []


def test_outputs_that_are_to_be_like_the_inputs():
    (finding,) = find(head("sigmoid", 8, SQUARED), BITS)
    assert (finding.kind, "model.fit(x, x)" in str(finding.fix)) == ("target_shape", True)
    (finding,) = find(head("sigmoid", 4, SQUARED), BITS)
    assert "model.fit(x, x)" not in str(finding.fix)


def test_a_loss_of_ones_own_may_compare_each_output_with_all_targets():
    def told(y, y_pred, loss="MyLoss", steps=(0, 10, 100), course=2.3, **fields):
        setup = head("linear", 1, loss, **fields)
        found = find(setup, y, y_pred=y_pred, steps=steps, loss=course)
        return [(f.kind, f.step, f.severity) for f in found]

    y, output = X[:, 0], 0.1 * X[:, 1:2]
    expected = [("target_shape", 100, "warning")]
    assert told(y, output, reduction="sum") == told(y, output, "Net.compute_loss") == expected
    assert told(y, output) == []  # Keras makes the shapes of a function's arguments alike
    # Though in it a function may change one of them: asked where the loss falls no more.
    long = np.arange(0, 200, 10)
    assert told(y, output, steps=long) == told(y[:, None], output, steps=long) == expected
    assert told(y, output, steps=long, course=0.99**long) == []
    # A `compute_loss` or a step of one's own, in which targets may be anything, as numbers of rows.
    assert told(y, output, "", steps=long) == expected
    assert told(y, output, "", steps=long, course=0.99**long) == []
    assert told(y, output, "mean_squared_error", steps=long) == []
    assert told(y, 10 * output, steps=long) == []
    assert told(y[:, None], output, reduction="sum") == []
    assert told(y, 10 * output, reduction="sum") == []
    assert told(y, output, "huber", reduction="sum") == []


def test_an_output_with_metrics_that_does_not_count_is_a_note():
    setup = head("linear", 1, SQUARED, metrics=("mae",), loss_weight=0)
    two = dataclasses.replace(setup, heads=(*setup.heads, setup.heads[0]._replace(arguments={})))
    for model, severity in ((setup, "warning"), (two, "note")):
        found = find(model, X[:, :1], y_pred=X[:, :1])
        assert [(f.kind, f.severity) for f in found] == [("no_gradient", severity)]


def test_shapes_are_squeezed_as_keras_does():
    keras = pytest.importorskip("keras")
    from keras.src.losses.loss import squeeze_or_expand_to_same_rank

    shapes = ((), (1,), (3,), (1, 1), (3, 1), (7, 1), (7, 3), (7, 3, 1), (7, 1, 1))
    for y in shapes:
        for y_pred in shapes[1:]:
            pair = (keras.KerasTensor((BATCH, *y)), keras.KerasTensor((BATCH, *y_pred)))
            expected = tuple(t.shape[1:] for t in squeeze_or_expand_to_same_rank(*pair))
            assert squeeze(y, y_pred) == expected, (y, y_pred)


def test_the_ranges_of_activations_are_those_of_keras():
    keras = pytest.importorskip("keras")
    x = np.concatenate([np.linspace(-30, 30, 20001), [-1e6, 1e6]]).astype(np.float32)
    for name, (low, high) in RANGES.items():
        if name in ("softmax", "sparsemax", "log_softmax"):
            continue
        y = np.asarray(keras.activations.get(name)(x))
        y = y[np.isfinite(y)]
        assert y.min() == pytest.approx(low, abs=1e-3) if low > -np.inf else y.min() < -5
        assert y.max() == pytest.approx(high, abs=1e-3) if high < np.inf else y.max() > 20
