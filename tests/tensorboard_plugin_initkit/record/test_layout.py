import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION, Layout, Variable
from tests.tensorboard_plugin_initkit.record.made import A2, A, B, C, sized

pytestmark = pytest.mark.numpy_alone

names = st.text(st.characters(codec="utf-8"), max_size=30)
shapes = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
layouts = st.builds(
    Layout,
    st.lists(st.builds(Variable, names, names, shapes, names, names, names), max_size=6).map(tuple),
    st.lists(names, min_size=1, unique=True).map(tuple),
    st.lists(names, unique=True).map(tuple),
    st.integers(1, 4096),
)


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
    assert json.loads(text)["version"] == SCHEMA_VERSION == 3
    assert Layout.from_json(text) == Layout.from_json(text.encode()) == layout


@pytest.mark.parametrize("version", [2, 4])
def test_another_schema_version_is_refused_in_words(version):
    text = json.dumps({"version": version, "columns": "of another form"})
    message = (
        rf"^The log must have schema version 3\. Received: version {version}\. Read it with "
        r"the keras-initkit that wrote it\.$"
    )
    with pytest.raises(ValueError, match=message):
        Layout.from_json(text)


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
