"""Statistics over shards, by Dask and by functions of the user: those of a single pass."""

from __future__ import annotations

import functools
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from dask import delayed
from dask.distributed import Client, LocalCluster
from numpy.typing import NDArray

from keras_initkit.adapt import engines
from keras_initkit.layers import Normalization
from keras_initkit.statistics.moments import Moments

pytestmark = pytest.mark.numpy_alone

FEATURES = 3
TOLERANCE = 1e-12


# The workers have this file, but are no tests: what they run is at its top.
def moments_of(shard: Any) -> Moments:
    """An array, a data frame, the path of one, a list of rows, or a function that returns it."""
    if callable(shard):
        shard = shard()
    if isinstance(shard, str):
        shard = np.load(shard)
    return Moments((FEATURES,)).update(np.reshape(np.asarray(shard), (-1, FEATURES)))


def merged(first: Moments, second: Moments) -> Moments:
    return first.merge(second)


def finite_moments_of(shard: Any) -> Moments:
    if np.isnan(shard).any():
        raise ValueError("`data` must be finite. Received: NaN.")
    return moments_of(shard)


def process_of(shard: Any) -> set[int]:
    return {os.getpid()}


def both(first: set[int], second: set[int]) -> set[int]:
    first |= second
    return first


def serial(shards: Any, reduce: Callable[[Any], Any], merge: Callable[[Any, Any], Any]) -> Any:
    return functools.reduce(merge, map(reduce, shards))


def pool(shards: Any, reduce: Callable[[Any], Any], merge: Callable[[Any, Any], Any]) -> Any:
    with ThreadPoolExecutor(2) as executor:
        return functools.reduce(merge, executor.map(reduce, shards))


def table(offset: float = 1e6) -> NDArray[Any]:
    """Rows whose mean is `offset` times their standard deviation, of three scales."""
    rows = np.random.default_rng(0).normal(offset, 1.0, (4321, FEATURES))
    return rows * np.array([1.0, 1e-3, 1e3])


# Empty, uneven, of a single row.
CUTS = [0, 0, 1, 2, 1000, 1000, 1300, 4000, 4321, 4321]


def shards_of(rows: NDArray[Any]) -> list[NDArray[Any]]:
    return [rows[start:end] for start, end in itertools.pairwise(CUTS)]


def check(moments: Moments, rows: NDArray[Any]) -> None:
    """Against exactly rounded sums, and against a single pass."""
    single = Moments((FEATURES,)).update(rows)
    np.testing.assert_array_equal(moments.count, len(rows))
    for column in range(FEATURES):
        values = rows[:, column]
        mean = values[0] + math.fsum(values - values[0]) / len(values)
        squares = math.fsum((values - mean) ** 2) - math.fsum(values - mean) ** 2 / len(values)
        assert moments.mean[column] == pytest.approx(mean, rel=TOLERANCE, abs=0)
        assert moments.m2[column] == pytest.approx(squares, rel=TOLERANCE, abs=0)
    np.testing.assert_allclose(moments.mean, single.mean, rtol=TOLERANCE, atol=0)
    np.testing.assert_allclose(moments.variance, single.variance, rtol=TOLERANCE, atol=0)
    np.testing.assert_array_equal(moments.min, single.min)
    np.testing.assert_array_equal(moments.max, single.max)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e6])
@pytest.mark.parametrize("engine", [engines.dask, serial, pool])
def test_any_engine_gives_the_moments_of_one_pass(engine: engines.Engine, offset: float) -> None:
    rows = table(offset)
    check(engine(shards_of(rows), moments_of, merged), rows)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_cluster_of_processes_gives_the_moments_of_one_pass(
    client: Client, offset: float
) -> None:
    rows = table(offset)
    check(engines.dask(shards_of(rows), moments_of, merged), rows)


def test_shards_are_reduced_in_the_processes_of_the_current_client(client: Client) -> None:
    workers = set(client.run(os.getpid).values())
    assert len(workers) == 2
    used = engines.dask(range(20), process_of, both)
    assert used
    assert used <= workers


def test_workers_open_paths_and_call_functions(client: Client, tmp_path: Path) -> None:
    rows = table()
    first, *rest = shards_of(rows)
    shards: list[Any] = [first, lambda: rest[0]]
    for number, shard in enumerate(rest[1:]):
        path = str(tmp_path / f"{number}.npy")
        np.save(path, shard)
        shards.append(path)
    check(engines.dask(shards, moments_of, merged), rows)


def test_more_shards_than_one_task_merges(client: Client) -> None:
    rows = table()
    check(engines.dask(np.array_split(rows, 130), moments_of, merged), rows)


def test_one_shard() -> None:
    rows = table()
    check(engines.dask([rows], moments_of, merged), rows)


@pytest.mark.parametrize(
    ("collection", "partitions"),
    [
        (lambda rows: dask.array.from_array(rows, chunks=((1000, 3321), (3,))), 2),
        (lambda rows: dask.array.from_array(rows, chunks=((1, 0, 4320), (1, 2))), 3),
        (lambda rows: dask.dataframe.from_pandas(pd.DataFrame(rows), npartitions=5), 5),
        (lambda rows: dask.bag.from_sequence(rows.tolist(), partition_size=1200).map(tuple), 4),
        (lambda rows: delayed(np.copy)(rows), 1),
        (lambda rows: [delayed(np.copy)(part) for part in shards_of(rows)], 9),
    ],
    ids=["array", "array cut both ways", "data frame", "bag", "delayed", "list of delayed"],
)
@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_dask_collections_are_cut_as_they_are(
    request: pytest.FixtureRequest, collection: Any, partitions: int, where: str
) -> None:
    if where == "cluster":
        request.getfixturevalue("client")
    rows = table()
    check(engines.dask(collection(rows), moments_of, merged), rows)
    assert len(engines.dask(collection(rows), lambda _: [0], lambda a, b: a + b)) == partitions


def test_a_layer_adapts_on_a_cluster_of_processes(client: Client, tmp_path: Path) -> None:
    rows = table(1e3)
    paths = [tmp_path / f"{place}.parquet" for place in range(3)]
    for path, part in zip(paths, np.array_split(rows, 3), strict=True):
        columns = dict(zip("abcdefgh", part.T, strict=False))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    alone, layer = Normalization(), Normalization()
    alone.adapt(rows)
    for data in ([str(path) for path in paths], dask.array.from_array(rows, chunks=(50, 1))):
        layer.adapt(data, engine="dask")
        np.testing.assert_allclose(layer.moments.mean, alone.moments.mean, rtol=1e-12)
        np.testing.assert_allclose(layer.moments.m2, alone.moments.m2, rtol=1e-12)
    with pytest.raises(ValueError, match=r"an incompatible shape|the same features"):
        layer.adapt([rows, rows[:, :1]], engine="dask")


def test_states_are_merged_in_the_order_of_the_shards() -> None:
    assert engines.dask(list(range(100)), lambda i: [i], lambda a, b: a + b) == list(range(100))


def test_merge_may_change_its_first_argument_only() -> None:
    states = [{number} for number in range(20)]
    assert engines.dask(states, lambda state: state, both) == set(range(20))
    assert states == [{number} for number in range(20)]


@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_an_error_says_which_shard_it_was(request: pytest.FixtureRequest, where: str) -> None:
    if where == "cluster":
        request.getfixturevalue("client")
    shards = shards_of(table())
    shards[6] = np.full((2, 3), np.nan)
    with pytest.raises(ValueError, match=r"^`data` must be finite. Received: NaN.") as error:
        engines.dask(shards, finite_moments_of, merged)
    (note,) = error.value.__notes__
    assert note.startswith("This was in shards[6] of 9: array([[nan")


@pytest.mark.parametrize("shards", [[], (), iter([])])
def test_no_shards(shards: Any) -> None:
    with pytest.raises(ValueError, match="at least one shard") as error:
        engines.dask(shards, moments_of, merged)
    assert str(error.value) == (
        "`shards` must hold at least one shard. Received: none. Check the pattern of the paths, "
        "or what filtered them out."
    )


def test_a_dask_collection_without_partitions() -> None:
    class Labelled:
        def __dask_graph__(self) -> dict[str, int]:
            return {"x": 1}

    with pytest.raises(TypeError) as error:
        engines.dask(Labelled(), moments_of, merged)  # type: ignore[arg-type]
    assert str(error.value) == (
        "`shards` must be a sequence, or a Dask array, data frame, bag or Delayed. Received: "
        "Labelled. Pass what it is made of, e.g. the `.data` of an xarray.DataArray."
    )


@pytest.mark.parametrize("engine", ["dask", "beam"])
def test_engines_by_name(engine: str) -> None:
    assert engines.engine_of(engine) is getattr(engines, engine)


def test_a_function_is_an_engine() -> None:
    assert engines.engine_of(serial) is serial


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="`engine`") as error:
        engines.engine_of("ray")
    assert str(error.value) == (
        "`engine` must be 'dask', 'beam' or a function engine(shards, reduce, merge). Received: "
        "engine='ray'. Pass a function for any other: Ray and Spark take a few lines, shown in "
        "docs/how_to/several_machines.md."
    )


def test_a_cluster_is_no_engine(client: Client) -> None:
    with pytest.raises(TypeError) as error:
        engines.engine_of(client)
    message = str(error.value)
    assert message.startswith(
        "`engine` must be 'dask', 'beam' or a function engine(shards, reduce, merge). Received: "
        "engine=<Client"
    )
    assert message.endswith(
        "of type Client. A Dask cluster is used by engine='dask' while its Client is the current "
        "one; a Beam runner by engine=beam_engine(options)."
    )


@pytest.mark.parametrize(
    ("engine", "module", "message"),
    [
        (
            engines.dask,
            "dask",
            "`engine='dask'` needs the package dask. Received: import of dask halted; None in "
            "sys.modules. Install it with `pip install 'keras-initkit[dask]'`.",
        ),
        (
            engines.beam,
            "apache_beam",
            "`engine='beam'` needs the package apache-beam. Received: import of apache_beam "
            "halted; None in sys.modules. Install it with `pip install 'keras-initkit[beam]'`.",
        ),
    ],
)
def test_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, engine: engines.Engine, module: str, message: str
) -> None:
    monkeypatch.delitem(sys.modules, "keras_initkit.adapt.beam", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        engine([1], moments_of, merged)
    assert str(error.value) == message
