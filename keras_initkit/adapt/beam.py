"""Moments by Apache Beam: a CombineFn, and an engine on any runner."""

import functools
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder, CloudpickleCoder
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from keras_initkit.adapt.engines import Engine, Reduce, list_shards, merge_states, reduce_shard
from keras_initkit.adapt.intake import Result
from keras_initkit.statistics.moments import Moments


class MomentsFn(beam.CombineFn):
    """Combiner of batches of rows into their `keras_initkit.Moments`.

    For pipelines of one's own: of the whole PCollection, of each key or of each window. Each
    element is an array of shape `(rows, *shape)`, best of thousands of rows
    (`beam.BatchElements` makes batches of single ones).

    Args:
        shape: Shape of one row: the features. `()` for batches of scalars.

    Example:
    ```python
    moments = batches | beam.CombineGlobally(MomentsFn((32,)))
    of_each_key = keys_and_batches | beam.CombinePerKey(MomentsFn((32,)))
    ```
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = tuple(shape)

    def create_accumulator(self) -> Any:
        """Return moments of no rows."""
        return Moments(self.shape)

    def add_input(self, mutable_accumulator: Any, element: Any) -> Any:
        """Take in a batch of rows."""
        return mutable_accumulator.update(element)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        """Merge moments into the first of them."""
        return functools.reduce(Moments.merge, accumulators)

    def extract_output(self, accumulator: Any) -> Any:
        """Return the moments."""
        return accumulator


def beam_engine(options: PipelineOptions | None = None, directory: str | None = None) -> Engine:
    """Make an engine of a Beam runner.

    The state, a `Result`, comes back through a file of arrays: any runner can write one, and
    whoever else may write there runs no code in this process.

    Args:
        options: Options of the pipeline, with the runner and its own. Defaults to
            Beam's FnApiRunner: one process on this machine.
        directory: Where the file is written and read, and then deleted: a path or URL within
            reach of both the workers and this process, such as `gs://bucket/tmp`. Defaults to
            the `temp_location` of the options, and without options to a temporary directory.

    Returns:
        A function for `adapt(shards, engine=…)`.

    Raises:
        ValueError: If there are options, but no directory.

    Example:
    ```python
    options = PipelineOptions(runner="DataflowRunner", temp_location="gs://bucket/tmp", …)
    layer.adapt(paths, engine=beam_engine(options))
    ```
    """
    if options is None:
        # Without flags, or they would be taken from this program's command line. The
        # DirectRunner would download Prism, a program, where it can.
        return functools.partial(_run_pipeline, PipelineOptions([], runner="FnApiRunner"), None)
    directory = directory or options.view_as(GoogleCloudOptions).temp_location
    if directory is None:
        raise ValueError(
            "`directory` must be a place that the workers write to and this process reads from. "
            "Received: directory=None, and options without a `temp_location`. Pass a path or URL "
            "that both can reach, such as directory='gs://bucket/tmp'."
        )
    return functools.partial(_run_pipeline, options, directory)


def run(shards: Sequence[Any], reduce: Reduce) -> Any:
    """Reduce shards in a Beam pipeline on this machine, as `beam_engine()` does."""
    return beam_engine()(shards, reduce)


def _run_pipeline(
    options: PipelineOptions, directory: str | None, shards: Sequence[Any], reduce: Reduce
) -> Any:
    """Run a pipeline to its end and read the file with the state."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="keras-initkit-") as here:
            return _run_pipeline(options, here, shards, reduce)
    if isinstance(shards, beam.PCollection):
        raise TypeError(
            "`shards` must be a sequence. Received: a PCollection. Combine it in its own pipeline: "
            "`pcollection | beam.CombineGlobally(MomentsFn(shape))`."
        )
    parts = list_shards(shards)
    # Beam's coder of Python objects can't encode functions that have no module.
    encode = CloudpickleCoder().encode
    path = FileSystems.join(directory, f"keras-initkit-{uuid.uuid4().hex}.npz")
    write = beam.io.WriteToText(
        path, shard_name_template="", append_trailing_newlines=False, coder=BytesCoder()
    )
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create([(place, encode(part)) for place, part in enumerate(parts)])
            | "Reduce" >> beam.MapTuple(functools.partial(_reduce_encoded, reduce, len(parts)))
            | "Merge" >> beam.CombineGlobally(_merge_if_any)
            | "Encode" >> beam.Map(Result.to_bytes)
            | "Write" >> write
        )
    with FileSystems.open(path) as file:
        state = Result.from_bytes(file.read())  # others may write there: it holds no code
    FileSystems.delete([path])
    return state


def _reduce_encoded(reduce: Reduce, count: int, place: int, encoded: bytes) -> Any:
    try:
        return reduce_shard(reduce, count, place, CloudpickleCoder().decode(encoded))
    except Exception as error:
        # Of an exception Beam keeps the message at most: no notes, and elsewhere no type.
        notes = "\n".join(error.__notes__)
        raise RuntimeError(f"{type(error).__name__}: {error}\n{notes}") from error


def _merge_if_any(states: Iterable[Any]) -> Any:
    """Merge states; `None` is the state of no shards."""
    some = [state for state in states if state is not None]
    return merge_states(some) if some else None
