"""Engines by name, and those that are functions of the user."""

import re
import sys

import pytest

from keras_initkit.adapt import dask
from keras_initkit.adapt.engines import find_engine, list_shards, merge_states
from tests.keras_initkit.adapt.sharded import Joined

pytestmark = pytest.mark.numpy_alone


def test_engines():
    assert find_engine("dask") is dask.run
    assert find_engine(max) is max


def test_states_are_merged_into_a_copy():
    states = [Joined(number) for number in range(4)]
    assert merge_states(states).items == [0, 1, 2, 3]
    assert [state.items for state in states] == [[0], [1], [2], [3]]


ENGINES = "`engine` must be 'dask', 'beam' or a function engine(shards, reduce). Received: "


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: list_shards(iter([])),
            ValueError,
            "`shards` must hold at least one shard. Received: none. Check the pattern of the "
            "paths, or what filtered them out.",
        ),
        (
            lambda: find_engine("ray"),
            ValueError,
            f"{ENGINES}engine='ray'. Pass a function for any other: Ray and Spark take a few "
            "lines, shown in docs/how_to/several_machines.md.",
        ),
        (
            lambda: find_engine([3]),  # type: ignore[arg-type]
            TypeError,
            f"{ENGINES}engine=[3] of type list. A Dask cluster is used by engine='dask' while its "
            "Client is the current one; a Beam runner by engine=beam_engine(options).",
        ),
    ],
    ids=["no shards", "unknown", "a cluster"],
)
def test_errors_say_what_to_write(call, kind, message):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize(
    ("engine", "module", "package"),
    [("dask", "dask", "dask"), ("beam", "apache_beam", "apache-beam")],
)
def test_a_missing_package(monkeypatch, engine, module, package):
    monkeypatch.delitem(sys.modules, f"keras_initkit.adapt.{engine}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        find_engine(engine)
    assert str(error.value) == (
        f"`engine={engine!r}` needs the package {package}. Received: import of {module} halted; "
        f"None in sys.modules. Install it with `pip install 'keras-initkit[{engine}]'`."
    )
