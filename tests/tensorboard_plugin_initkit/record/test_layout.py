import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorboard_plugin_initkit.record.chunk import MEASURED, PORT_STATISTICS, SAMPLED, TOTALS
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout, Port, Variable
from tests.tensorboard_plugin_initkit.record.made import A2, A, B, C, sized

pytestmark = pytest.mark.numpy_alone

names = st.text(st.characters(codec="utf-8"), max_size=30)
shapes = st.lists(st.integers(0, 2**15), max_size=4).map(tuple)


@st.composite
def make_layout(draw):
    optimizers = tuple(draw(st.lists(names, min_size=1, unique=True)))
    of_one = st.sampled_from(optimizers)
    column = st.builds(Variable, names, names, shapes, of_one, names, names)
    variables = draw(st.lists(column, max_size=6))
    frozen = tuple(draw(st.lists(names, unique=True)))
    ports = tuple(draw(st.lists(st.builds(Port, names, names, shapes, names), max_size=3)))
    return Layout(tuple(variables), optimizers, frozen, draw(st.integers(1, 4096)), ports)


layouts = make_layout()


def test_layers_are_listed_once_in_order_of_first_appearance():
    assert sized(B, A, A2, C, B).layers == ["b", "a", "c"]
    assert Layout(()).layers == []


@pytest.mark.parametrize(
    ("shape", "size", "units"),
    [((), 1, 1), ((7,), 7, 7), ((2, 3, 4), 24, 4), ((0, 3), 0, 3), ((2**31, 2**20), 2**51, 2**20)],
)
def test_a_variable_has_elements_and_along_its_last_axis_units(shape, size, units):
    variable = Variable("path", "layer", shape)
    assert (variable.size, variable.units) == (size, units)


@settings(max_examples=60, deadline=None)
@given(layouts)
def test_a_layout_is_the_same_after_json(layout):
    text = layout.to_json()
    assert json.loads(text)["version"] == SCHEMA_VERSION == 4
    assert Layout.from_json(text) == Layout.from_json(text.encode()) == layout


def test_logs_of_other_columns_are_of_another_version():
    columns = MEASURED, SAMPLED, TOTALS, PORT_STATISTICS, Variable._fields, Port._fields
    # Who changes columns writes down both anew, with the next version.
    assert (SCHEMA_VERSION, zlib.crc32(repr(columns).encode())) == (4, 169593959)


@pytest.mark.parametrize("version", [3, 5])
def test_another_schema_version_is_refused_in_words(version):
    text = json.dumps({"version": version, "columns": "of another form"})
    message = (
        rf"^The layout of a log must have version 4\. Received: version {version}\. Read it with "
        r"the keras-initkit that wrote it\.$"
    )
    with pytest.raises(ValueError, match=message):
        Layout.from_json(text)


CONTENT = json.loads(Layout((Variable("a/kernel", "a", (3, 2)),)).to_json())
COLUMN = CONTENT["variables"][0]


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("{", "'{'"),
        ("[" * 100_000, "'[["),
        ("[]", "'[]'"),
        ("9" * 5_000, "'999"),
        (CONTENT | {"evil": 1}, "{'evil': 1"),
        (CONTENT | {"replicas": 0}, "replicas=0"),
        (CONTENT | {"replicas": 1.5}, "replicas=1.5"),
        (CONTENT | {"optimizers": [None]}, "optimizers=[None]"),
        (CONTENT | {"optimizers": ["x"]}, "Received: ['']"),
        (CONTENT | {"frozen": "abc"}, "frozen='abc'"),
        (CONTENT | {"variables": [7]}, "variables=[7]"),
        ({"layer_type": None}, "layer_type=None"),
        ({"path": 7}, "path=7"),
        ({"shape": [-1, 8]}, "shape=[-1, 8]"),
        ({"shape": [10**400]}, "shape=[1000"),
        ({"shape": [2**40, 2**40]}, "shape=[1099511627776, 1099511627776]"),
        ({"shape": [1] * 10_000}, "shape=[1, 1"),
        ({"shape": [True]}, "shape=[True]"),
        ({"shape": "32"}, "shape='32'"),
    ],
    ids=str,
)
def test_what_is_no_layout_is_refused_in_words(text, received):
    if isinstance(text, dict) and "version" not in text:
        text = CONTENT | {"variables": [COLUMN | text]}
    with pytest.raises(ValueError, match=r"^The .* must .*\. Received: .*\. Read it with") as error:
        Layout.from_json(text if isinstance(text, str) else json.dumps(text))
    assert received in str(error.value)
    assert len(str(error.value)) < 400


@settings(max_examples=60, deadline=None)
@given(layouts, layouts)
def test_a_union_holds_the_columns_of_both_each_once(some, other):
    union = some.union(other)
    keys, first, second = ([v.key for v in layout.variables] for layout in (union, some, other))
    assert set(keys) == set(first) | set(second)
    assert len(set(keys)) == len(keys)
    # In the order of the first, or of the second where that has all and more: a layer that is
    # unfrozen later stands where the model has it.
    larger = list(dict.fromkeys(second if set(first) < set(second) else first))
    assert keys[: len(larger)] == larger
    assert union.union(other) == union
    assert [variable.key for variable in union.union(some).variables] == keys
    assert set(union.optimizers) == set(some.optimizers) | set(other.optimizers)
    # What is said of the model is what was said last.
    assert (union.frozen, union.replicas) == (other.frozen, other.replicas)
    assert [keys[column] for column in union.columns_of(other)] == second


def test_a_variable_that_is_drawn_otherwise_later_stays_one_column():
    first = Variable("a/kernel", "a", (2, 3), layer_type="Dense", initializer="Zeros")
    later = first._replace(initializer="HeNormal")
    assert Layout((first,)).union(Layout((later,))).variables == (later,)
