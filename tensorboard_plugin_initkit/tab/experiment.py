"""The logs loaded by TensorBoard, each as a `GradientHistory` to be read when needed."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.diagnosis.finding import Finding, merge_findings
from tensorboard_plugin_initkit.log.gradient_log import (
    END_TAG,
    FINDINGS_TAG,
    LAYOUT_TAG,
    RUN,
    TOTALS_TAG,
    split_table,
    split_totals,
)
from tensorboard_plugin_initkit.record.chunk import (
    RECORDED,
    TOTALS,
    Chunk,
    LazyArrays,
    append_chunk,
    join,
)
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout
from tensorboard_plugin_initkit.tab.cache import Cache
from tensorboard_plugin_initkit.tab.memory import give_back_memory

_ALL = 2**30  # `downsample` of 0 is none at all
_MOST_BYTES = 160 * 2**20
_MOST_INDICES = 32


class LogError(ValueError):
    """An unreadable log; the message is one sentence for people."""


class EmptyLogError(LogError):
    """A log without a record so far."""


class Run(NamedTuple):
    """A log in TensorBoard.

    Attributes:
        name: TensorBoard's name of it.
        title: Shown to people.
        state: Changes when the log does.
        statistics: Those of `RECORDED` in the log.
        has_findings: True if the log has findings.
        has_ended: True if the training was ended after the last record.
    """

    name: str
    title: str
    state: str
    statistics: tuple[str, ...]
    has_findings: bool
    has_ended: bool


class _Index(NamedTuple):
    """The columns and steps of a log: its chunks, by the step and time of their tables; and joined.

    In the whole, steps recorded anew replace the older ones.
    """

    chunks: list[tuple[tuple[int, float], Chunk]]
    whole: Chunk


class Experiment:
    """The logs of a TensorBoard. Any thread may ask.

    Args:
        data_provider: TensorBoard's.
        samples: Largest number of chunks of a log in TensorBoard; 0 for all.
    """

    def __init__(self, data_provider: Any, samples: int = 0) -> None:
        self._provider, self._samples = data_provider, samples
        self._indices: Cache[tuple[str, str], _Index] = Cache(_MOST_INDICES, lambda index: 1)
        # By run, its state, statistic and rows; of all rows if these are empty.
        self._arrays: Cache[tuple[str, str, str, bytes], np.ndarray] = Cache(_MOST_BYTES, _bytes)

    def runs(self) -> list[Run]:
        """List the logs of a `GradientMonitor`, by name."""
        listed = self._list(None)
        runs = [_describe(name, tags) for name, tags in sorted(listed.items()) if tags]
        states = {(run.name, run.state) for run in runs}
        self._indices.keep(lambda key: key in states)
        self._arrays.keep(lambda key: key[:2] in states)
        return runs

    def run(self, name: str) -> Run | None:
        """Find a run by its name."""
        tags = self._list([name]).get(name)
        return _describe(name, tags) if tags else None

    def runs_of_all_plugins(self) -> int:
        """Count all runs in TensorBoard."""
        return len(self._provider.list_runs(RequestContext(), experiment_id=""))

    def history(self, run: Run) -> GradientHistory:
        """Return the history of a run; its statistics are read when they are needed.

        Raises:
            LogError: If the log cannot be read.
            EmptyLogError: If it holds no record yet.
        """
        index = self._index(run)
        values = _Values(
            run.statistics,
            lambda name: self._array(run, index, name),
            lambda name, rows: self._sample(run, index, name, rows),
        )
        history = GradientHistory(None)
        history.append(dataclasses.replace(index.whole, values=values))
        return history

    def findings(self, run: Run) -> list[Finding]:
        """Read the findings of a run.

        Raises:
            LogError: If they cannot be read.
        """
        texts = [_text(datum.numpy) for datum in self._read(run, FINDINGS_TAG)]
        with _naming(run):
            return merge_findings(texts)

    def notes(self, run: Run) -> list[str]:
        """Describe the gaps of a log in sentences."""
        index, notes = self._index(run), []
        if self._samples and len(index.chunks) >= self._samples:
            notes.append(
                f"TensorBoard keeps only a random sample of this log: {self._samples} of its "
                "chunks. Records are missing, and with them the spikes of single steps. Start "
                f"TensorBoard without `--samples_per_plugin {PLUGIN_NAME}=…` to see all."
            )
        if not run.has_ended:
            notes.append(
                f"The log breaks off after step {index.whole.steps[-1]}: the training goes on, "
                "it was killed, or the file is damaged there."
            )
        return notes

    def _list(self, names: list[str] | None) -> Mapping[str, Mapping[str, Any]]:
        try:
            return self._provider.list_tensors(
                RequestContext(),
                experiment_id="",
                plugin_name=PLUGIN_NAME,
                run_tag_filter=RunTagFilter(runs=names),
            )
        except Exception as error:
            raise LogError(f"TensorBoard cannot list its runs: {_one_line(error)}") from error

    def _read(self, run: Run, tag: str) -> list[Any]:
        """Read the data of one tag in the order of the log; gRPC allows one tag at a time."""
        try:
            read = self._provider.read_tensors(
                RequestContext(),
                experiment_id="",
                plugin_name=PLUGIN_NAME,
                downsample=_ALL,
                run_tag_filter=RunTagFilter(runs=[run.name], tags=[tag]),
            )
        except Exception as error:
            what = f"{tag!r} of the log {run.title!r}"
            sentence = f"TensorBoard cannot read {what}: {_one_line(error)}"
            # Every error of gRPC says its code in its text, whatever its class.
            if "RESOURCE_EXHAUSTED" in str(error):
                sentence = (
                    f"{what} is larger than the 256 MB that TensorBoard's data server sends at "
                    "once. Start TensorBoard with `--load_fast=false`, or record fewer steps with "
                    "`GradientMonitor(every_n_steps=…)`."
                )
            raise LogError(sentence) from error
        return read.get(run.name, {}).get(tag, [])

    def _index(self, run: Run) -> _Index:
        return self._indices.get((run.name, run.state), lambda: self._read_index(run))

    def _read_index(self, run: Run) -> _Index:
        # In this order: to what is logged meanwhile there may be columns, but no records.
        totals = self._read(run, TOTALS_TAG)
        layouts = self._read(run, LAYOUT_TAG)
        with _naming(run):
            index = _index(layouts, totals)
        if not index.chunks:
            raise EmptyLogError(
                f"The log {run.title!r} holds no recorded step yet: the training has not come to "
                "one, or was stopped before."
            )
        return index

    def _array(self, run: Run, index: _Index, statistic: str) -> np.ndarray:
        size = 4 * len(index.whole.steps) * len(index.whole.layout.variables)
        return self._arrays.get(
            (run.name, run.state, statistic, b""),
            lambda: self._read_array(run, index, statistic),
            size,
        )

    def _sample(self, run: Run, index: _Index, statistic: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows of an array; they are cached apart from it."""
        key = run.name, run.state, statistic, np.asarray(rows).tobytes()
        return self._arrays.get(key, lambda: _compact(self._array(run, index, statistic)[rows]))

    def _read_array(self, run: Run, index: _Index, statistic: str) -> np.ndarray:
        give_back_memory()
        data = self._read(run, f"{PLUGIN_NAME}/{statistic}")
        array = _compact(_assemble(index, data, statistic))
        del data
        give_back_memory()
        return array


def _bytes(array: np.ndarray) -> int:
    """Count the bytes of an array; all its rows may be the same memory."""
    return array.nbytes if array.strides[0] or not len(array) else array[0].nbytes


class _Values(LazyArrays):
    """Arrays by name, each read when it is asked for.

    Whole ones are held besides the cache, as long as the history is: a chart goes over them
    block by block.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        read: Callable[[str], np.ndarray],
        sample: Callable[[str, np.ndarray], np.ndarray],
    ) -> None:
        self._names, self._read, self._sample = names, functools.cache(read), sample

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def take(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Return rows of an array; for a few of them the array is not held."""
        return self[name][rows] if isinstance(rows, slice) else self._sample(name, rows)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _describe(name: str, tags: Mapping[str, Any]) -> Run:
    last = sorted((tag, series.max_step, series.max_wall_time) for tag, series in tags.items())
    state = hashlib.blake2b(repr(last).encode("utf-8", "replace"), digest_size=9).hexdigest()
    statistics = tuple(name for name in RECORDED if f"{PLUGIN_NAME}/{name}" in tags)
    end, totals = tags.get(END_TAG), tags.get(TOTALS_TAG)
    has_ended = bool(end and totals and end.max_wall_time >= totals.max_wall_time)
    title = RUN if name == "." else name.removesuffix(f"/{RUN}")
    return Run(name, title, state, statistics, FINDINGS_TAG in tags, has_ended)


def _text(value: np.ndarray) -> str | bytes:
    return np.asarray(value).reshape(-1)[0]


@contextlib.contextmanager
def _naming(run: Run) -> Iterator[None]:
    """Name the log in errors."""
    try:
        yield
    except LogError:
        raise
    except Exception as error:
        why = f"it is damaged ({error})" if not isinstance(error, ValueError) else str(error)
        raise LogError(f"The log {run.title!r} cannot be read: {why}") from error


def _one_line(error: Exception) -> str:
    """Write an error in one line."""
    # gRPC's have many, of which people need this one.
    text = error.details() if hasattr(error, "details") else str(error)
    return f"{type(error).__name__}: {text}"


def _index(layouts: list[Any], totals: list[Any]) -> _Index:
    """Put together the layouts and totals of a log."""
    columns = [(datum.step, _layout(datum.numpy)) for datum in layouts]
    chunks: list[tuple[tuple[int, float], Chunk]] = []
    for datum in totals:
        table = _table(datum.numpy)
        if table is None or not len(table):
            raise ValueError("a table of it is damaged.")
        steps, rest = split_table(table)
        if (np.diff(steps) <= 0).any():
            raise ValueError("the steps of a table of it do not increase.")
        layout = _layout_at(int(steps[0]), columns, rest.shape[1])
        chunk = Chunk(layout, steps, {}, split_totals(rest))
        chunks.append(((datum.step, datum.wall_time), chunk))
    return _Index(chunks, _join(chunk for _, chunk in chunks))


def _join(chunks: Iterable[Chunk]) -> Chunk:
    """Join chunks in the order of the log; steps recorded anew replace older ones."""
    kept: list[Chunk] = []
    for chunk in chunks:
        append_chunk(kept, chunk)
    return join(kept) if kept else Chunk(Layout(()), np.zeros(0, np.int64), {})


def _layout(value: np.ndarray) -> Layout:
    """Read a layout and check it: a log may come from anywhere."""
    layout = Layout.from_json(_text(value))
    for variable in layout.variables:
        texts = (variable.path, variable.layer, variable.layer_type, variable.initializer)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("the names of its columns are damaged.")
        if not all(isinstance(size, int) for size in variable.shape):
            raise ValueError("the shapes of its columns are damaged.")
        if variable.optimizer not in layout.optimizers:
            raise ValueError("the optimizers of its columns are damaged.")
    return layout


def _layout_at(step: int, layouts: list[tuple[int, Layout]], totals: int) -> Layout:
    """Find the newest layout logged up to a step."""
    for first, layout in reversed(layouts):
        if first <= step and len(TOTALS) * len(layout.optimizers) == totals:
            return layout
    raise ValueError(f"the names of its columns at step {step} are missing.")


def _assemble(index: _Index, data: list[Any], statistic: str) -> np.ndarray:
    """Put together a statistic of all steps and variables; NaN where its table is missing."""
    tables = {(datum.step, datum.wall_time): datum.numpy for datum in data}

    def values(key: tuple[int, float], chunk: Chunk) -> dict[str, np.ndarray]:
        table = _table(tables[key]) if key in tables else None
        if table is None or table.shape != (len(chunk.steps), 2 + len(chunk.layout.variables)):
            return {}
        return {statistic: table[:, 2:]}

    whole = _join(Chunk(c.layout, c.steps, values(key, c)) for key, c in index.chunks)
    missing = np.broadcast_to(np.float32(np.nan), (len(whole.steps), len(whole.layout.variables)))
    return whole.values.get(statistic, missing)


def _compact(array: np.ndarray) -> np.ndarray:
    """Return the array read-only; as one row in memory if all rows are equal, as in `nonfinite`."""
    first = array[:1]
    blocks = (array[start : start + 256] for start in range(0, len(array), 256))
    if all(((block == first) | np.isnan(block) & np.isnan(first)).all() for block in blocks):
        return np.broadcast_to(first.copy(), array.shape)
    array.flags.writeable = False
    return array


def _table(array: np.ndarray) -> np.ndarray | None:
    """Return a table of a log, or None if it is something else."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype != np.float32:
        return None
    return array if np.isfinite(array[:, :2]).all() else None
