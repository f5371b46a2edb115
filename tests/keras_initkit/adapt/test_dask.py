"""Statistics over shards by Dask: those of a single pass."""

import os

import dask.array
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from dask.distributed import Client, LocalCluster

from keras_initkit.adapt.dask import run
from keras_initkit.layers import Normalization
from tests.keras_initkit.adapt.sharded import (
    Joined,
    cut,
    reduce_to_moments,
    reduce_to_process,
    table,
)
from tests.keras_initkit.statistics.two_passes import check

pytestmark = pytest.mark.numpy_alone


@pytest.mark.parametrize(
    ("collection", "partitions"),
    [
        (lambda rows: dask.array.from_array(rows, chunks=((1000, 3321), (3,))), 2),
        (lambda rows: dask.array.from_array(rows, chunks=((1, 0, 4320), (1, 2))), 3),
        (lambda rows: dask.dataframe.from_pandas(pd.DataFrame(rows), npartitions=5), 5),
        (lambda rows: dask.bag.from_sequence(rows.tolist(), partition_size=1200).map(tuple), 4),
        (lambda rows: delayed(np.copy)(rows), 1),
        (lambda rows: [delayed(np.copy)(part) for part in cut(rows)], 9),
        (cut, 9),
    ],
    ids=["array", "array cut both ways", "data frame", "bag", "delayed", "list of delayed", "list"],
)
def test_dask_collections_are_cut_as_they_are(collection, partitions):
    check(run(collection(table()), reduce_to_moments), table())
    assert len(run(collection(table()), Joined).items) == partitions


@pytest.fixture
def client():
    # One process: to import Keras and its backend there takes most of the time.
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield client


@pytest.mark.backends("torch")
def test_a_layer_adapts_on_a_cluster_of_processes(client, tmp_path):
    assert run(range(2), reduce_to_process).items != [os.getpid()] * 2
    rows = table(1e3)
    frame = pd.DataFrame(rows, columns=list("abc"))
    frame[:100].to_parquet(tmp_path / "0.parquet")
    alone, layer = Normalization(), Normalization()
    alone.adapt(rows)
    parts = [str(tmp_path / "0.parquet"), lambda: frame[100:2000], frame[2000:]]
    for data in (parts, dask.array.from_array(rows, chunks=(2000, 1))):
        layer.adapt(data, engine="dask")
        np.testing.assert_allclose(layer.moments.mean, alone.moments.mean, rtol=1e-12)
        np.testing.assert_allclose(layer.moments.m2, alone.moments.m2, rtol=1e-12)
    with pytest.raises(ValueError, match=r"an incompatible shape|the same features"):
        layer.adapt([rows, rows[:, :1]], engine="dask")
    with pytest.raises(ValueError, match=r"^`data` must be finite. Received: nan") as error:
        layer.adapt([rows, rows * np.nan], engine="dask")
    assert error.value.__notes__[0].startswith("This was in shards[1] of 2: array([[nan")


def test_states_are_merged_in_the_order_of_the_shards():
    assert run(list(range(100)), Joined).items == list(range(100))


def test_an_error_says_which_shard_it_was():
    shards = cut(table())
    shards[6] = np.full((2, 3), np.nan)
    with pytest.raises(ValueError, match=r"^`data` must be finite. Received: NaN.") as error:
        run(shards, reduce_to_moments)
    (note,) = error.value.__notes__
    assert note.startswith("This was in shards[6] of 9: array([[nan")


def test_a_dask_collection_without_partitions():
    class Labelled:
        def __dask_graph__(self):
            return {"x": 1}

    with pytest.raises(TypeError) as error:
        run(Labelled(), reduce_to_moments)  # type: ignore[arg-type]
    assert str(error.value) == (
        "`shards` must be a sequence, or a Dask array, data frame, bag or Delayed. Received: "
        "Labelled. Pass what it is made of, e.g. the `.data` of an xarray.DataArray."
    )
