"""Faults of the data, and data that is right."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.judge import UPDATE_CAUSES, judge
from tensorboard_plugin_initkit.diagnosis.rules.contracts import CONTRACT_RULES
from tensorboard_plugin_initkit.diagnosis.rules.data import (
    DATA_CAUSES,
    find_losses_of_two_classes,
    find_missing_classes,
    find_other_losses,
    find_rare_classes,
    find_value_ranges,
)
from tests.tensorboard_plugin_initkit.diagnosis.made import both, learns, made, supervised
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import (
    BATCH,
    RNG,
    X,
    chain,
    dense,
    facts_of,
    layer,
    measure,
)

pytestmark = pytest.mark.numpy_alone

SQUARED, BINARY = "mean_squared_error", "binary_crossentropy"
SPARSE, CATEGORICAL = "sparse_categorical_crossentropy", "categorical_crossentropy"
INDEX = np.arange(BATCH)
BITS, Y = INDEX % 2, X[:, :1]
WINDOW = (0, 10, 20)
PICTURES = RNG.integers(0, 256, (BATCH, 8, 8, 3))
REGRESSION = chain(dense(16, "relu"), dense(1), loss=SQUARED)
CLASSES = chain(dense(16, "relu"), dense(2, "softmax"), loss=SPARSE)
DIGITS = chain(dense(16, "relu"), dense(10), loss=SPARSE, from_logits=True)
BIT = chain(dense(16, "relu"), dense(1, "sigmoid"), loss=BINARY)
CONVOLUTION = chain(layer("Conv2D", (6, 6, 4), "relu"), layer("Flatten", 144), dense(1))
NORMALIZED = chain(layer("Normalization", 8), dense(16, "relu"), dense(1), loss=SQUARED)


def normalized(mean, std):
    first = layer("Normalization", 8, mean=mean, std=std)
    return chain(first, dense(16, "relu"), dense(1), loss=SQUARED)


def embedding(size=10):
    words = layer("Embedding", (8, 4), weights=1, input_dim=size, output_dim=4)
    return chain(words, layer("Flatten", 32), dense(1), loss=SQUARED)


def find(rules, setup, *batches, **fields):
    facts = facts_of(setup, *batches, **fields)
    return [finding for rule in rules for finding in rule(facts)]


def kinds(findings):
    return [finding.kind for finding in findings]


# Certain.


def test_embeddings_beside_other_inputs():
    words = layer("Embedding", (1, 4), weights=1, input_dim=32, output_dim=4, takes=(-1,))
    setup = chain(words, dense(16, takes=(-1,)), layer("Concatenate", 20, takes=(0, 1)), dense(1))
    codes = INDEX[:, None]
    (finding,) = find(CONTRACT_RULES, setup, x=[codes / 32, X])
    assert (finding.kind, finding.layer) == ("embedding_indices", "embedding_0")
    assert "integers that are not scaled" in str(finding.fix)
    assert find(CONTRACT_RULES, setup, x=[codes, X]) == []
    assert find(CONTRACT_RULES, setup, x=[codes, X[:, :1]]) == []  # either may be its input


# Setup, targets, inputs, kind, parts of the message and of the fix, and what else is recorded.
CAUSES: dict[str, Any] = {
    "large": (REGRESSION, Y, 40 * X, "input_scale", "far from 0 and 1.", "with_normalization("),
    "far": (REGRESSION, Y, X + 4, "input_scale", "mean 4", "with_normalization(model, x)"),
    "small": (REGRESSION, Y, X / 1000, "input_scale", "by 0.001", "with_normalization(model, x)"),
    "pixels": (CONVOLUTION, None, PICTURES, "input_scale", "mean 12", "Rescaling(1 / 255)"),
    "scaled twice": (
        chain(layer("Rescaling", 8, scale=1 / 255, offset=0), dense(1), loss=SQUARED),
        Y,
        X,
        "input_scale",
        "vary by 0.00397 after `rescaling_0`",
        "Remove `rescaling_0`",
    ),
    "never adapted": (
        normalized([0.0, 0.0], [1.0, 1.0]),
        Y,
        40 * X,
        "input_scale",
        "a standard deviation of 1, as before `adapt`; the inputs of step 0 have mean",
        "`adapt(x)` of `normalization_0` with all inputs",
    ),
    "adapted to one sample": (
        normalized([-3.0, 2.0], [0.0, 0.0]),
        Y,
        X,
        "input_scale",
        "a standard deviation of 0, as after `adapt` on a single sample",
        "with all inputs",
    ),
    "a series of prices": (
        chain(layer("LSTM", 8), dense(1), loss=SQUARED),
        300 + 40 * Y,
        300 + 40 * X,
        "input_scale",
        "mean 300",
        "with_normalization(model, x, y)",
    ),
    "scales": (REGRESSION, Y, X * np.logspace(-4, 0, 8), "feature_scales", "vary by", "normaliz"),
    "constant": (REGRESSION, Y, X * 0 + 0.5, "constant_input", "inputs are all 0.5.", "Print `x`"),
    "constant tokens": (embedding(), Y, INDEX[:, None] * 0, "constant_input", "all 0.", "Print"),
    "targets": (REGRESSION, 40 * Y, X, "target_scale", "begins near 0", "`y = (y - "),
    "absolute errors": (
        chain(dense(1), loss="mean_absolute_error"),
        40 * Y,
        X,
        "target_scale",
        "begins near 0",
        "`y = (y - ",
    ),
    "mean": (REGRESSION, Y + 500, X, "target_scale", "mean 500", "undo it after `predict`"),
    "one class": (CLASSES, BITS * 0, X, "one_class", "Up to step 20 all labels", "shuffle"),
    "one": (BIT, BITS * 0, X, "one_class", "all labels of the output", "permutation"),
    "numbers of classes": (
        chain(dense(4, "softmax"), loss=SQUARED),
        np.eye(4)[INDEX % 4],
        X,
        "loss_choice",
        "are classes, but `mean_squared_error` is for numbers",
        CATEGORICAL,
    ),
    "accuracy": (
        chain(dense(1), loss=SQUARED, metrics=("accuracy",)),
        INDEX % 10,
        X,
        "loss_choice",
        "are classes",
        'Dense(10, activation="softmax")',
    ),
    "nearly one class": (
        CLASSES,
        (np.arange(128) == 0).astype(int),
        X,
        "rare_classes",
        "at most 0.8% of others",
        "class_weight",
    ),
    "fractions": (embedding(), Y, X, "embedding_indices", "with fractions; the", "remove the `Emb"),
    "beyond the last": (
        embedding(),
        Y,
        INDEX[:, None],
        "embedding_indices",
        "go from 0 to 31; the embedding `embedding_0` has the indices 0 to 9.",
        "Embedding(32, 4)",
    ),
    "below 0": (embedding(), Y, INDEX[:, None] % 8 - 1, "embedding_indices", "-1 to 6", "Add 1 to"),
    "weights of 0": (
        REGRESSION,
        Y,
        X,
        "zero_sample_weights",
        "All sample weights of step 0 are 0: no sample counts.",
        "leave the argument out",
        {"sample_weight": INDEX * 0},
    ),
    "weights below 0": (
        REGRESSION,
        Y,
        X,
        "negative_sample_weights",
        "go down to -1.47 at step 0.",
        "np.maximum(sample_weight, 0)",
        {"sample_weight": X[:, 0]},
    ),
}
# Severity and confidence, where they are not those of a possible cause.
SURE = {
    "constant_input": ("warning", "certain"),
    "one_class": ("warning", "likely"),
    "embedding_indices": ("error", "certain"),
    "zero_sample_weights": ("error", "certain"),
}
ALL_RULES = [*DATA_CAUSES, find_other_losses, *CONTRACT_RULES]


def test_numbers_beside_a_picture_have_a_scale_of_their_own():
    rescaling = layer("Rescaling", (8, 8, 3), scale=1 / 255, offset=0.0)
    convolved = (layer("Conv2D", (8, 8, 4), "relu"), layer("GlobalAveragePooling2D", 4))
    setup = chain(rescaling, *convolved, layer("Concatenate", 6), dense(1, "sigmoid"), loss=BINARY)
    layers = [x._replace(takes=(2, -1)) if x.type == "Concatenate" else x for x in setup.layers]
    setup = dataclasses.replace(setup, layers=tuple(layers))
    pictures = RNG.uniform(0, 255, (BATCH, 8, 8, 3))
    for numbers, kinds in ((1e6 + 1e4 * X[:, :2], ["input_scale"]), (X[:, :2], [])):
        found = find(ALL_RULES, setup, BITS, [pictures, numbers], steps=WINDOW)
        assert [finding.kind for finding in found] == kinds
        assert all("mean 1e+06" in finding.message for finding in found)


def test_a_question_about_each_of_exclusive_classes_is_told_late():
    setup, y = chain(dense(4, "sigmoid"), loss=BINARY), np.eye(4)[INDEX % 4]
    assert find(ALL_RULES, setup, y, steps=WINDOW) == []
    (finding,) = find(ALL_RULES, setup, y, steps=(*WINDOW, 300))
    assert "one class per row" in finding.message
    assert CATEGORICAL in str(finding.fix)


@pytest.mark.parametrize("name", CAUSES)
def test_causes_in_the_data(name):
    setup, y, x, kind, message, fix, *fields = CAUSES[name]
    finding, *_ = find(ALL_RULES, setup, y, x, steps=WINDOW, **dict(*fields))
    assert finding.kind == kind
    assert message in finding.message
    assert fix in str(finding.fix)
    assert finding.cause.endswith(".")
    assert (finding.severity, finding.confidence) == SURE.get(kind, ("warning", "possible"))


WORDS = RNG.integers(0, 500, (BATCH, 20))
RECURRENT = chain(layer("LSTM", 16), dense(1, "sigmoid"), loss=BINARY)


@pytest.mark.parametrize(
    ("setup", "x", "is_told"),
    [
        (RECURRENT, WORDS, True),
        (RECURRENT, WORDS[:, :, None], True),
        (chain(layer("Conv1D", 16), dense(1, "sigmoid"), loss=BINARY), WORDS, True),
        (BIT, WORDS, True),
        (BIT, WORDS * np.logspace(0, 2, 20).astype(int), False),  # columns of a table
        (RECURRENT, WORDS % 40, False),  # counts
        (RECURRENT, WORDS - 250, False),
        (RECURRENT, WORDS + 0.5, False),
        (RECURRENT, RNG.integers(0, 255, (BATCH, 8, 8)), False),  # rows of a picture
    ],
)
def test_numbers_of_words_belong_into_an_embedding(setup, x, is_told):
    finding, *_ = find(DATA_CAUSES, setup, BITS, x, steps=WINDOW)
    assert finding.kind == "input_scale"
    assert ("`Embedding(int(x.max()) + 1, 32)`" in str(finding.fix)) == is_told
    assert "with_normalization(model, x)" in str(finding.fix)


def test_a_squared_error_of_two_classes_is_the_last_cause():
    setup = chain(dense(1, "sigmoid"), loss=SQUARED, metrics=("accuracy",))
    assert find(DATA_CAUSES, setup, BITS, X, steps=WINDOW) == []
    (finding,) = find([find_losses_of_two_classes], setup, BITS, X, steps=WINDOW)
    assert (finding.kind, finding.confidence) == ("loss_choice", "possible")
    assert "binary_crossentropy" in str(finding.fix)
    assert UPDATE_CAUSES[-1] is find_losses_of_two_classes
    assert find(UPDATE_CAUSES[-1:], BIT, BITS, X, steps=WINDOW) == []
    assert find(UPDATE_CAUSES[-1:], setup, Y, X, steps=WINDOW) == []


# The kinds that it looks like. Setup, targets, inputs, and what else is recorded.
RIGHT = {
    "input_scale: unit scale": (REGRESSION, Y, X),
    "feature_scales: standardized, one constant": (
        REGRESSION,
        Y,
        X * np.where(np.arange(8), 1, 1e-8),
    ),
    "input_scale: a single sample, far from 0": (REGRESSION, Y[:1], 0.1 * X[:1] + 4),
    "input_scale: in 0..1": (REGRESSION, Y, RNG.uniform(size=(BATCH, 8))),
    "input_scale: normalized in the model": (NORMALIZED, Y, 100 * X),
    "input_scale: adapted": (normalized([-3.0, 4.0], [0.0, 120.0]), Y, 100 * X),
    "input_scale: never adapted, and no need of it": (normalized([0.0, 0.0], [1.0, 1.0]), Y, X),
    "input_scale: rescaled in the model": (
        chain(layer("Rescaling", (8, 8, 3)), layer("Conv2D", (6, 6, 4))),
        None,
        PICTURES,
    ),
    "embedding_indices: indices": (embedding(1000), Y, RNG.integers(0, 1000, (BATCH, 8))),
    "embedding_indices: as many as rows": (embedding(32), Y, INDEX[:, None]),
    "embedding_indices: of floats": (embedding(), Y, INDEX[:, None] % 10 * 1.0),
    "constant_input: a constant feature": (REGRESSION, Y, X * (np.arange(8) > 0)),
    "constant_input: words, nearly all padding": (embedding(), Y, INDEX[:, None] // 31),
    "target_scale: relative errors": (
        chain(dense(1), loss="mean_absolute_percentage_error"),
        100 + Y,
        X,
    ),
    "one_class: numbers that are all the same": (REGRESSION, Y * 0 + 1, X),
    "zero_sample_weights, negative_sample_weights: some of 0": (
        REGRESSION,
        Y,
        X,
        {"sample_weight": BITS},
    ),
    "zero_sample_weights, negative_sample_weights: small ones": (
        REGRESSION,
        Y,
        X,
        {"sample_weight": 1e-6 * (INDEX + 1)},
    ),
    "input_scale: a layer of one's own first": (
        chain(layer("Mine", 8), dense(1), loss=SQUARED),
        Y,
        100 * X,
    ),
    "feature_scales: binary inputs, some rare": (
        REGRESSION,
        Y,
        RNG.binomial(1, np.full(8, 0.2), (BATCH, 8)),
    ),
    "one_class: two classes": (CLASSES, BITS, X),
    "rare_classes: a rare class": (CLASSES, (INDEX == 0).astype(int), X),
    "rare_classes: all ten digits": (DIGITS, INDEX % 10, X),
    "rare_classes: each of several labels": (
        chain(dense(4, "sigmoid"), loss=BINARY),
        np.eye(128, 4),
        X,
    ),
    "loss_choice: numbers that are integers": (REGRESSION, INDEX[:, None] % 20, X),
    "target_scale: large targets of counts": (
        chain(dense(1, "exponential"), loss="poisson"),
        INDEX * 9,
        X,
    ),
    "loss_choice: multi-label": (
        chain(dense(4, "sigmoid"), loss=BINARY),
        np.eye(4)[INDEX % 4] + np.eye(4)[(INDEX + 1) % 4],
        X,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_data_that_is_right(name):
    setup, y, x, *fields = RIGHT[name]
    assert find(ALL_RULES, setup, y, x, steps=WINDOW, **dict(*fields)) == []


def test_one_class_takes_a_window_and_nearly_one_is_told_apart():
    assert find(DATA_CAUSES, CLASSES, BITS * 0, steps=(0,)) == []
    facts = facts_of(CLASSES, BITS, steps=WINDOW)
    facts.records._joined().ports["entropy"][:] = 0.098  # of one in fifty
    (finding,) = DATA_CAUSES[0](facts)
    assert finding.kind == "rare_classes"
    assert finding.message.endswith("are of one class, and at most 2.0% of others.")
    assert "class_weight" in str(finding.fix)


@pytest.mark.parametrize(
    ("y", "x", "steps"),
    [
        (Y * 0 + 1, X * 0 + 0.5, WINDOW),  # the same is wanted
        (Y, [X, X * 0 + 0.5], WINDOW),  # beside others
        (Y, X * 0 + 0.5, (0,)),
    ],
)
def test_constant_inputs_may_be_meant(y, x, steps):
    found = find(DATA_CAUSES, REGRESSION, y, x, steps=steps)
    assert [f.confidence for f in found if f.kind == "constant_input"] == ["likely"]


def test_one_class_is_told_at_the_end():
    setup = dataclasses.replace(BIT, steps=61)
    steps = [*WINDOW, 30, 40, 50, 60]
    (finding,) = find(CONTRACT_RULES, setup, BITS * 0, X, steps=steps)
    assert (finding.kind, finding.step) == ("one_class", 60)
    assert find(CONTRACT_RULES, BIT, BITS * 0, X, steps=steps) == []
    assert find(CONTRACT_RULES, setup, BITS * 0, X, steps=steps[:4]) == []
    assert find(CONTRACT_RULES, setup, BITS, X, steps=steps) == []


def test_one_class_is_told_where_the_loss_is_gone():
    steps, falling = (*WINDOW, 30), [2, 1, 0.2, 0.01]
    (finding,) = find(CONTRACT_RULES, CLASSES, BITS * 0, steps=steps, loss=falling)
    assert (finding.kind, finding.step) == ("one_class", 30)
    assert find(CONTRACT_RULES, CLASSES, BITS * 0, steps=steps) == []
    assert find(CONTRACT_RULES, CLASSES, BITS, steps=steps, loss=falling) == []


def test_classes_of_which_no_sample_counts():
    def told(y, weights, setup=BIT, steps=(*WINDOW, 50), entropy=None):
        facts = facts_of(setup, y, sample_weight=weights, steps=steps)
        ports, counted = facts.records._joined().ports, measure(y[weights != 0])
        for name in ("classes", "entropy", "variance", "binary_entropy"):
            ports[name][:, -1] = counted.get(name, np.nan)
        if entropy is not None:
            ports["binary_entropy"][:, -1] = entropy
        return [(f.kind, f.step) for rule in CONTRACT_RULES for f in rule(facts)]

    assert told(BITS, BITS) == told(BITS, BITS, CLASSES) == [("rare_classes", 50)]
    assert told(INDEX % 4, INDEX % 4, DIGITS) == [("rare_classes", 50)]
    # Weights that make the rarer class rarer still, and those that help it; half is 0.35.
    assert told(BITS, BITS + 0.1, entropy=0.3) == [("rare_classes", 50)]
    assert told(BITS, BITS + 0.1, entropy=0.4) == []
    assert told(BITS, BITS - 0.5, entropy=0.3) == []  # advantages
    # Some samples of each class count; a weight that is not 0; too early to say.
    assert told(BITS, INDEX % 3) == told(BITS, BITS + 0.1) == told(BITS, BITS, BIT, WINDOW) == []


def test_augmentations_for_another_range_of_pixels():
    def told(high, x, kind="RandomBrightness", **fields):
        first = layer(kind, (8, 8, 1), value_range=[0, high], **fields)
        setup = chain(first, layer("Conv2D", (6, 6, 4)), dense(1), loss=SQUARED)
        found = find([find_value_ranges], setup, x=x)
        return [(f.kind, f.fix.text.partition("value_range")[2][:9]) for f in found]

    assert told(255, PICTURES / 255) == [("input_scale", "=(0, 1))`")]
    assert told(1, PICTURES) == [("input_scale", "=(0, 255)")]
    assert told(255, PICTURES) == told(1, PICTURES / 255) == []
    assert told(255, PICTURES / 255, "RandomContrast") == []


def test_rare_classes_are_noted_at_the_end():
    steps, setup = (*WINDOW, 60), dataclasses.replace(BIT, steps=61)

    def told(y, loss, setup=setup):
        found = find([find_rare_classes], setup, y, steps=steps, loss=loss)
        return [(f.kind, f.severity) for f in found]

    rare = (INDEX < 2).astype(int)  # an entropy of 0.23
    assert told(rare, 0.2) == [("rare_classes", "note")]
    assert told(rare, 0.1) == told(BITS, 0.6) == told(rare, 0.2, BIT) == []


def test_classes_that_never_come_are_noted_at_the_end():
    def told(y, setup):
        found = find([find_missing_classes], dataclasses.replace(setup, steps=21), y, steps=WINDOW)
        return [f.message.partition(" classes")[0] for f in found]

    few = chain(dense(3, "softmax"), loss=SPARSE)
    assert told(BITS, few) == ["Only 2 of the 3"]
    assert told(INDEX % 3, few) == told(BITS, BIT) == []
    assert told(BITS, chain(dense(5000, "softmax"), loss=SPARSE)) == []  # words


def in_turn(spread, entropy=0.69, x=1.0):
    """Make facts of batches with a spread of labels that differs from one to the next."""
    facts = facts_of(CLASSES, BITS, steps=range(20))
    ports = facts.records._joined().ports
    ports["batch_std"][:, 0], ports["batch_std"][:, 1] = x, np.resize(spread, 20)
    ports["entropy"][:, 1] = entropy
    return facts


def test_batches_of_one_class_each_are_sorted():
    facts = in_turn([0, 0, 0, 0, 0.3])
    (finding,) = (finding for rule in CONTRACT_RULES for finding in rule(facts))
    assert (finding.kind, finding.severity, finding.step) == ("one_class", "error", 9)
    assert finding.message.startswith("In 8 of 10 recorded batches all labels of the output")
    assert "permutation" in str(finding.fix)
    for healthy in (in_turn(0.5), in_turn([0, 0, 0.3]), in_turn(0, x=0.0), in_turn(0, 0.06)):
        assert [finding for rule in CONTRACT_RULES for finding in rule(healthy)] == []


def test_an_adaptive_optimizer_has_half_of_the_training_for_large_targets():
    steps = (0, 100, 500, 900)

    def told(planned, y, rows=steps, optimizer="Adam"):
        setup = dataclasses.replace(REGRESSION, steps=planned, optimizer=optimizer)
        return [f.step for f in find(DATA_CAUSES, setup, y, steps=rows, learning_rate=1e-3)]

    assert told(1000, Y + 100) == [500]
    assert told(1000, Y + 100, steps[:2]) == []
    assert told(101, Y + 90, steps[:2]) == [100]
    assert told(1000, Y + 2000) == told(0, Y + 100) == told(1000, Y + 100, steps, "SGD") == [0]


def test_negative_sample_weights_are_right_where_a_policy_learns():
    for change, expected in ((both(), ["negative_sample_weights"]), (learns, [])):
        both(supervised(), change)(record := made())
        record.ports["sample_weight"] = record.ports["x"] | {"min": -1.0}
        assert kinds(judge(record.history())) == expected
