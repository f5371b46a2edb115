"""Statistics of inputs and targets: the same from every form of data, in one pass."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit.adapt.reader import Reading
from keras_initkit.models.normalize.choice import choose_inputs, find_sources
from keras_initkit.models.normalize.columns import fit_rank, read_statistics
from keras_initkit.models.normalize.ports import Ports, read_ports
from tests.keras_initkit.models.normalize.houses import (
    ROWS,
    Batches,
    column_model,
    columns,
    generator,
    layers,
    list_model,
    prices,
    regression,
    stack,
    two_outputs,
)

pytestmark = pytest.mark.backends("tensorflow", "torch")


def read(model, data, targets=None, **options):
    """Moments of inputs and targets, by names."""
    inputs, outputs = read_ports(model)
    chosen, _ = choose_inputs(model, inputs, None, None)
    sources = find_sources(targets, outputs)
    results = read_statistics(data, Reading(**options), inputs, chosen, outputs, sources)
    return {port.name: result.moments for port, result in results.items()}


def check(moments, values):
    np.testing.assert_allclose(moments.mean, values.mean(axis=0).reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, values.var(axis=0).reshape(-1), rtol=1e-6)


# tests/keras_initkit/adapt reads all other data.
def test_inputs_are_found_by_their_names_in_one_pass():
    data, y = columns(), prices()
    batches = Batches(data, y)
    for source, targets, names in (
        ({**data, "note": np.array(["a"] * ROWS)}, None, ["age", "blood"]),
        (batches, True, ["age", "blood", "price"]),
    ):
        found = read(regression(), source, targets)
        assert list(found) == names
        for name, moments in found.items():
            check(moments, {**data, "price": y}[name])
    assert batches.reads == 7


def test_the_columns_of_a_table_are_inputs_by_name_or_the_features_of_one_input():
    data = columns()
    flat = {"age": data["age"], **{f"blood_{i}": data["blood"][:, i] for i in range(3)}}
    frame = pytest.importorskip("pandas").DataFrame(flat)
    found = read(column_model(), frame.assign(note="a"))
    assert list(found) == list(flat)
    for name, moments in found.items():
        check(moments, flat[name])
    check(read(stack(4), frame)["x"], frame.to_numpy())


LISTS = {
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"b": b, "a": a},
    "tuple and targets": lambda a, b: ((a, b), a),
    "batches and targets": lambda a, b: (
        ((a[i : i + 50], b[i : i + 50]), a[i : i + 50]) for i in range(0, ROWS, 50)
    ),
}


@pytest.mark.parametrize("form", LISTS)
def test_a_list_of_inputs_takes_lists(form):
    a, b = columns()["age"], columns()["blood"][:, :2]
    found = read(list_model(), LISTS[form](a, b))
    check(found["a"], a)
    check(found["b"], b)


def beside(data, y):
    return (batch[0] for batch in generator(data, y))


TARGETS = {
    "array": lambda data, y: (data, y),
    "array (rows,)": lambda data, y: (data, y[:, 0]),
    "array beside a stream": lambda data, y: (beside(data, y), y),
    "array beside other targets": lambda data, y: (generator(data, y + 1), y),
    "stream of (rows,)": lambda data, y: (generator(data, y[:, 0]), True),
    "column": lambda data, y: ({**data, "y": y[:, 0]}, "y"),
}


@pytest.mark.parametrize("source", TARGETS)
def test_targets_from_every_source(source):
    y = prices()
    data, targets = TARGETS[source](columns(), y)
    check(read(regression(), data, targets)["price"], y)


@pytest.mark.parametrize("form", [dict, lambda y: [y["a"], y["b"]]])
def test_targets_of_several_outputs(form):
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in ("a", "b")})
    x, y = columns()["blood"], {"b": 1e-3 * prices() + 7, "a": prices()}
    for targets in (True, {"a": True, "b": y["b"]}):
        found = read(model, (x, form(y)), targets)
        for name, values in y.items():
            check(found[name], values)


def test_arrays_need_no_data():
    ids = keras.Input((), dtype="int32", name="id")
    model = keras.Model(ids, layers.Dense(1)(layers.Embedding(9, 2)(ids)))
    (moments,) = read(model, None, prices()).values()
    check(moments, prices())


@pytest.mark.parametrize(
    ("targets", "limit"),
    [(True, {"steps": 3}), (prices(), {"steps": 3}), (True, {"max_rows": 300})],
)
def test_a_pass_can_be_limited(targets, limit):
    found = read(regression(), generator(columns(), prices()), targets, **limit)
    check(found["age"], columns()["age"][:300])
    check(found["price"], prices()[:300])
    # Targets may end with the pass.
    check(read(regression(), columns(), prices()[:300], max_rows=300)["price"], prices()[:300])


@pytest.mark.parametrize("targets", [True, prices()])
def test_weights_count(targets):
    data, weight = columns(), np.random.default_rng(2).uniform(0, 1, ROWS)
    found = read(regression(), (data, prices(), weight), targets)
    for name, values in {"age": data["age"], "price": prices()[:, 0]}.items():
        np.testing.assert_allclose(found[name].mean, [np.average(values, weights=weight)])


def test_missing_values_and_masked_steps_are_left_out():
    data = columns()
    data["age"][3] = np.nan
    data["blood"][:200] = -1
    found = read(regression(), data, nan="ignore", mask_value=-1)
    np.testing.assert_allclose(found["age"].mean, [np.nanmean(data["age"])])
    check(found["blood"], data["blood"][200:])


@pytest.mark.parametrize(
    ("rows", "shape", "expected"),
    [
        ((9,), (1,), (9, 1)),
        ((9, 1), (), (9,)),
        ((9, 5), (5, 1), (9, 5, 1)),
        ((9, 3), (3,), (9, 3)),
        ((9,), (3,), (9,)),
    ],
)
def test_a_last_axis_of_size_1_may_lack(rows, shape, expected):
    (port,) = Ports(keras.Input(shape), "data")
    assert fit_rank(np.ones(rows), port).shape == expected


ONE = np.ones(9)
NINE = {"age": ONE, "blood": np.ones((9, 3)), "job": ONE}
PRICE = {"price": True}
NO_TARGETS = r"^`data` must hold `\(x, y\)`, with targets of the output 'price' in y. Received: "
ROWS_DIFFER = r"^`targets` must have a row for each row of `data`. Received: "
NO_INPUTS = (
    r"^`data` must hold the inputs of the model, a dict of 'age', 'blood', 'job'. Received: 3 "
    r"arrays without names. A tuple is `\(x, y\)` or `\(x, y, sample_weight\)`; pass inputs as `{"
)
NO_COLUMN = (
    r"^`targets` must name a column of `data`. Received: 'price'. The columns are 'age', 'bl"
)
ERRORS: list[tuple[Any, Any, str]] = [
    (
        {"Age": ONE},
        None,
        r"the inputs 'age', 'blood'. Received: 'Age', without 'age', 'blood'. Ren",
    ),
    (([ONE] * 3, ONE), None, NO_INPUTS),
    (
        {**NINE, "age": ["a"] * 9},
        None,
        r"^`data\['age'\]` must hold boo.* dtype=<U1. Convert it, or",
    ),
    (
        {**NINE, "blood": np.ones((9, 2))},
        None,
        r"^`data\['blood'\]` must .* shape \(None, 3\).*, 2\)",
    ),
    (
        NINE,
        True,
        NO_TARGETS + r"no targets. Yield y as a dict of the outputs 'price'; or pass `targ",
    ),
    (NINE, "price", NO_COLUMN),
    (NINE, np.ones(5), ROWS_DIFFER + "5 targets of 'price' for 9 rows. Use the same"),
    (beside(columns(), prices()), np.ones(150), ROWS_DIFFER + "150 .* 200 or more rows"),
    (beside(columns(), prices()), np.ones(701), ROWS_DIFFER + "701 .* for 700 rows"),
    (NINE, np.ones((9, 2)), r"^`targets` must yield batches of the shape \(None, 1\)"),
    (NINE, ONE * np.inf, r"^`targets` must be finite\. Received: inf at row 0"),
]
ERRORS_OF_OTHERS: list[tuple[Any, Any, Any, str]] = [
    (list_model, np.ones((9, 3)), None, r"a list or dict of 'a', 'b'. Received: one array. A tup"),
    (two_outputs, (NINE, ONE), PRICE, NO_TARGETS + "one array. .* 'price', 'kind';"),
    (two_outputs, (NINE, {"p": ONE}), PRICE, NO_TARGETS + "targets of 'p'"),
]


@pytest.mark.parametrize(
    ("make", "data", "targets", "message"), [(regression, *e) for e in ERRORS] + ERRORS_OF_OTHERS
)
def test_errors_say_what_to_do(make, data, targets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        read(make(), data, targets)
