"""Statistics by Apache Beam, in an environment of its own (`make test-beam`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from numpy.typing import NDArray

from keras_initkit.adapt.beam import MomentsFn, beam_engine, run
from keras_initkit.adapt.engines import find_engine
from keras_initkit.adapt.intake import Result
from keras_initkit.statistics.moments import Moments
from tests.keras_initkit.adapt.sharded import (
    FEATURES,
    cut,
    reduce_to_moments,
    table,
)
from tests.keras_initkit.statistics.two_passes import check


def reduce_to_result(shard):
    """The state of `adapt`: nothing else comes back from Beam's workers."""
    return Result((None, FEATURES), (FEATURES,), reduce_to_moments(shard), ("a", "b", "c"))


def checked(rows: NDArray[Any]) -> Callable[[list[Moments]], None]:
    """A check of a PCollection of one, which runs in the pipeline."""

    def check_one(results: list[Moments]) -> None:
        (moments,) = results
        check(moments, rows)

    return check_one


def local_pipeline() -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions([], runner="FnApiRunner"))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_engine_gives_the_moments_of_one_pass(offset: float) -> None:
    rows = table(offset)
    check(find_engine("beam")(cut(rows), reduce_to_result).moments, rows)


def test_workers_open_paths_and_call_functions(tmp_path: Path) -> None:
    rows = table()
    first, second, *rest = cut(rows)
    shards: list[Any] = [first, lambda: second]
    for number, shard in enumerate(rest):
        path = str(tmp_path / f"{number}.npy")
        np.save(path, shard)
        shards.append(path)
    check(run(shards, lambda shard: reduce_to_result(shard)).moments, rows)


def test_workers_in_processes_of_their_own(tmp_path: Path) -> None:
    options = PipelineOptions(
        [], runner="FnApiRunner", direct_running_mode="multi_processing", direct_num_workers=2
    )
    rows = table()
    check(beam_engine(options, str(tmp_path))(cut(rows), reduce_to_result).moments, rows)
    assert not list(tmp_path.iterdir())


def test_the_result_is_written_to_the_temp_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = beam.io.WriteToText

    def noted(path: str, **options: Any) -> Any:
        written.append(path)
        return write(path, **options)

    monkeypatch.setattr(beam.io, "WriteToText", noted)
    options = PipelineOptions([], runner="FnApiRunner", temp_location=str(tmp_path))
    rows = table()
    result = beam_engine(options)(cut(rows), reduce_to_result)
    check(result.moments, rows)
    assert result[:2] + result[3:] == ((None, FEATURES), (FEATURES,), ("a", "b", "c"))
    (path,) = written
    assert Path(path).parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_combine_globally_in_a_tree() -> None:
    rows = table()
    with local_pipeline() as pipeline:
        batches = pipeline | beam.Create(cut(rows))
        moments = batches | beam.CombineGlobally(MomentsFn((FEATURES,))).with_fanout(3)
        assert_that(moments, checked(rows))


def test_combine_per_key() -> None:
    rows = table()

    def check_keys(results: list[tuple[str, Moments]]) -> None:
        by_key = dict(results)
        check(by_key["first"], rows)
        check(by_key["second"], -rows)

    with local_pipeline() as pipeline:
        batches = pipeline | beam.Create(
            [("first", part) for part in cut(rows)] + [("second", -part) for part in cut(rows)]
        )
        assert_that(batches | beam.CombinePerKey(MomentsFn((FEATURES,))), check_keys)


def test_combine_nothing() -> None:
    def check_empty(results: list[Moments]) -> None:
        (moments,) = results
        assert moments.rows == 0
        assert moments.shape == (FEATURES,)

    with local_pipeline() as pipeline:
        batches = pipeline | beam.Create([])
        assert_that(batches | beam.CombineGlobally(MomentsFn((FEATURES,))), check_empty)


def test_an_error_says_which_shard_it_was() -> None:
    def missing(shard: int) -> Any:
        raise FileNotFoundError(2, "No such file", f"part-{shard}.npy")

    with pytest.raises(RuntimeError) as error:
        run([7], missing)
    assert str(error.value).startswith(
        "FileNotFoundError: [Errno 2] No such file: 'part-7.npy'\nThis was in shards[0] of 1: 7"
    )


def test_a_pcollection() -> None:
    batches = beam.Pipeline(options=PipelineOptions([])) | beam.Create([1])
    with pytest.raises(TypeError) as error:
        run(batches, reduce_to_result)
    assert str(error.value) == (
        "`shards` must be a sequence. Received: a PCollection. Combine it in its own pipeline: "
        "`pcollection | beam.CombineGlobally(MomentsFn(shape))`."
    )


def test_workers_elsewhere_need_a_directory() -> None:
    with pytest.raises(ValueError, match="`directory`") as error:
        beam_engine(PipelineOptions([], runner="FlinkRunner"))
    assert str(error.value) == (
        "`directory` must be a place that the workers write to and this process reads from. "
        "Received: directory=None, and options without a `temp_location`. Pass a path or URL that "
        "both can reach, such as directory='gs://bucket/tmp'."
    )
    beam_engine(PipelineOptions([], runner="DataflowRunner", temp_location="gs://bucket/tmp"))
