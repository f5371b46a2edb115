"""The logs that TensorBoard has loaded, as `GradientHistory`: read when they are asked for."""

import contextlib
import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
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
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.schema import RECORDED, TOTALS, Chunk, Layout, LazyArrays
from tensorboard_plugin_initkit.tab.cache import Cache
from tensorboard_plugin_initkit.tab.memory import give_back_memory

_ALL = 2**30  # `downsample` of 0 is none at all
_MOST_BYTES = 128 * 2**20
_MOST_BYTES_OF_SAMPLES = 32 * 2**20
_MOST_INDICES = 32
# No statistic is computed from more, besides the numbers of those that are not finite.
_MOST_AT_ONCE = 3


class LogError(ValueError):
    """A log that cannot be read, with what is wrong in one sentence."""


class EmptyLogError(LogError):
    """A log that holds no record yet."""


class Run(NamedTuple):
    """A log in TensorBoard.

    Attributes:
        name: TensorBoard's name of it.
        title: What people are shown.
        state: Changes when the log does.
        statistics: Those of `RECORDED` that it has.
        has_findings: Whether something was found wrong with its training.
        has_ended: Whether a training was ended after the last record.
    """

    name: str
    title: str
    state: str
    statistics: tuple[str, ...]
    has_findings: bool
    has_ended: bool


class _Key(NamedTuple):
    """What the tables of one chunk have in common."""

    step: int
    wall_time: float


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A chunk of the log, without the steps that were recorded anew after it.

    Attributes:
        key: Of its tables.
        records: Number of rows of its tables, of which the first are wanted.
        steps: Its steps that are wanted.
        totals: (steps, statistics x optimizers).
        layout: Its columns.
    """

    key: _Key
    records: int
    steps: np.ndarray
    totals: np.ndarray
    layout: Layout

    def before(self, step: int) -> "_Piece":
        """The part of smaller steps."""
        kept = int(np.searchsorted(self.steps, step))
        return dataclasses.replace(self, steps=self.steps[:kept], totals=self.totals[:kept])


@dataclasses.dataclass(frozen=True)
class _Index:
    """What a log has, without its statistics."""

    layout: Layout
    steps: np.ndarray
    totals: dict[str, np.ndarray]
    pieces: list[_Piece]
    points: int


class Experiment:
    """The logs of a TensorBoard. Any thread may ask.

    Args:
        data_provider: TensorBoard's.
        samples: Number of chunks of a log that TensorBoard keeps at most; 0 for all.
    """

    def __init__(self, data_provider: Any, samples: int = 0) -> None:
        self._provider, self._samples = data_provider, samples
        self._indices: Cache[tuple[str, str], _Index] = Cache(_MOST_INDICES, lambda index: 1)
        self._samples_taken: Cache[tuple[str, str, str, bytes], np.ndarray] = Cache(
            _MOST_BYTES_OF_SAMPLES, _bytes
        )
        self._arrays: Cache[tuple[str, str, str], np.ndarray] = Cache(_MOST_BYTES, _bytes)

    def runs(self) -> list[Run]:
        """The logs of a `GradientMonitor`, by name."""
        listed = self._list(None)
        runs = [_run(name, tags) for name, tags in sorted(listed.items()) if tags]
        states = {(run.name, run.state) for run in runs}
        self._indices.keep(lambda key: key in states)
        self._arrays.keep(lambda key: key[:2] in states)
        self._samples_taken.keep(lambda key: key[:2] in states)
        return runs

    def run(self, name: str) -> Run | None:
        """One of `runs`, if there is one of that name."""
        tags = self._list([name]).get(name)
        return _run(name, tags) if tags else None

    def runs_of_all_plugins(self) -> int:
        """Number of runs that TensorBoard has found, with anything in them."""
        return len(self._provider.list_runs(RequestContext(), experiment_id=""))

    def history(self, run: Run) -> GradientHistory:
        """The record of a run, whose statistics are read when they are asked for.

        Raises:
            LogError: If the log cannot be read.
            EmptyLogError: If it holds no record yet.
        """
        index = self._index(run)
        values = _Values(
            run.statistics,
            lambda name: self._array(run, index, name),
            lambda name, rows, read: self._sample(run, name, rows, read),
        )
        history = GradientHistory(None)
        history.append(Chunk(index.layout, index.steps, values, index.totals))
        return history

    def findings(self, run: Run) -> list[Finding]:
        """What was found wrong with the training of a run.

        Raises:
            LogError: If that cannot be read.
        """
        texts = [_text(datum.numpy) for datum in self._read(run, FINDINGS_TAG)]
        with _damaged(run):
            return merge_findings(texts)

    def notes(self, run: Run) -> list[str]:
        """What people must know of the record to read it rightly."""
        index, notes = self._index(run), []
        if self._samples and index.points >= self._samples:
            notes.append(
                f"TensorBoard keeps only a random sample of this log: {self._samples} of its "
                "chunks. Records are missing, and with them the spikes of single steps. Start "
                f"TensorBoard without `--samples_per_plugin {PLUGIN_NAME}=…` to see all."
            )
        if not run.has_ended:
            notes.append(
                f"The log breaks off after step {index.steps[-1]}: the training goes on, it was "
                "killed, or the file is damaged there."
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
            raise LogError(f"TensorBoard cannot list its runs: {_said(error)}") from error

    def _read(self, run: Run, tag: str) -> list[Any]:
        """What was logged under a tag, in that order; gRPC takes one tag of one run at a time."""
        try:
            read = self._provider.read_tensors(
                RequestContext(),
                experiment_id="",
                plugin_name=PLUGIN_NAME,
                downsample=_ALL,
                run_tag_filter=RunTagFilter(runs=[run.name], tags=[tag]),
            )
        except Exception as error:
            raise _unreadable(run, tag, error) from error
        return read.get(run.name, {}).get(tag, [])

    def _index(self, run: Run) -> _Index:
        return self._indices.get((run.name, run.state), lambda: self._indexed(run))

    def _indexed(self, run: Run) -> _Index:
        # In this order: to what is logged meanwhile there may be columns, but no records.
        totals = self._read(run, TOTALS_TAG)
        layouts = self._read(run, LAYOUT_TAG)
        with _damaged(run):
            index = _indexed(layouts, totals)
        if not len(index.steps):
            raise EmptyLogError(
                f"The log {run.title!r} holds no recorded step yet: the training has not come to "
                "one, or was stopped before."
            )
        return index

    def _array(self, run: Run, index: _Index, statistic: str) -> np.ndarray:
        size = 4 * len(index.steps) * len(index.layout.variables)
        return self._arrays.get(
            (run.name, run.state, statistic),
            lambda: self._assembled(run, index, statistic),
            size,
        )

    def _sample(
        self, run: Run, statistic: str, rows: np.ndarray, read: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Some rows of an array: they are kept when the array no longer is."""
        key = run.name, run.state, statistic, np.asarray(rows).tobytes()
        return self._samples_taken.get(key, lambda: _compact(read()[rows]))

    def _assembled(self, run: Run, index: _Index, statistic: str) -> np.ndarray:
        give_back_memory()
        data = self._read(run, f"{PLUGIN_NAME}/{statistic}")
        give_back_memory()
        array = _compact(_assembled(index, data))
        give_back_memory()
        return array


def _bytes(array: np.ndarray) -> int:
    """What an array takes, of which all rows may be the same memory."""
    return array.nbytes if array.strides[0] or not len(array) else array[0].nbytes


class _Values(LazyArrays):
    """Arrays by name, each read when it is asked for."""

    def __init__(
        self,
        names: tuple[str, ...],
        read: Callable[[str], np.ndarray],
        sample: Callable[[str, np.ndarray, Callable[[], np.ndarray]], np.ndarray],
    ) -> None:
        self._names, self._read, self._sample = names, read, sample
        # Held besides the cache: a chart goes over them again and again, block by block.
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._arrays:
            others = [other for other in self._arrays if other != "nonfinite"]
            if name != "nonfinite" and len(others) >= _MOST_AT_ONCE:
                del self._arrays[others[0]]
            self._arrays[name] = self._whole(name)
        self._arrays.move_to_end(name)
        return self._arrays[name]

    def take(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Rows of an array, which is not held for a few of them."""
        if isinstance(rows, slice):
            return self[name][rows]
        return self._sample(name, rows, lambda: self._whole(name))

    def _whole(self, name: str) -> np.ndarray:
        return self._arrays[name] if name in self._arrays else self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _run(name: str, tags: Mapping[str, Any]) -> Run:
    last = sorted((tag, series.max_step, series.max_wall_time) for tag, series in tags.items())
    state = hashlib.blake2b(repr(last).encode("utf-8", "replace"), digest_size=9).hexdigest()
    statistics = tuple(name for name in RECORDED if f"{PLUGIN_NAME}/{name}" in tags)
    end, totals = tags.get(END_TAG), tags.get(TOTALS_TAG)
    has_ended = bool(end and totals and end.max_wall_time >= totals.max_wall_time)
    return Run(name, _title(name), state, statistics, FINDINGS_TAG in tags, has_ended)


def _title(name: str) -> str:
    return RUN if name == "." else name.removesuffix(f"/{RUN}")


def _text(value: np.ndarray) -> str | bytes:
    return np.asarray(value).reshape(-1)[0]


@contextlib.contextmanager
def _damaged(run: Run) -> Iterator[None]:
    """Say of which log it is that something is wrong with it."""
    try:
        yield
    except LogError:
        raise
    except Exception as error:
        why = f"it is damaged ({error})" if not isinstance(error, ValueError) else str(error)
        raise LogError(f"The log {run.title!r} cannot be read: {why}") from error


def _unreadable(run: Run, tag: str, error: Exception) -> LogError:
    # Every error of gRPC says its code in its text, whatever its class.
    if "RESOURCE_EXHAUSTED" in str(error):
        return LogError(
            f"{tag!r} of the log {run.title!r} is larger than the 256 MB that TensorBoard's data "
            "server sends at once. Start TensorBoard with `--load_fast=false`, or record fewer "
            "steps with `GradientMonitor(every_n_steps=…)`."
        )
    return LogError(f"TensorBoard cannot read {tag!r} of the log {run.title!r}: {_said(error)}")


def _said(error: Exception) -> str:
    """What an error says, in one line."""
    # gRPC's have many, of which people need this one.
    text = error.details() if hasattr(error, "details") else str(error)
    return f"{type(error).__name__}: {text}"


def _indexed(layouts: list[Any], totals: list[Any]) -> _Index:
    """Put together what was logged as layouts and as totals."""
    columns = [(datum.step, _layout(datum.numpy)) for datum in layouts]
    pieces: list[_Piece] = []
    for datum in totals:
        table = _table(datum.numpy)
        if table is None or not len(table):
            raise ValueError("a table of it is damaged.")
        steps, rest = split_table(table)
        if (np.diff(steps) <= 0).any():
            raise ValueError("the steps of a table of it do not increase.")
        first = int(steps[0])
        while pieces and pieces[-1].steps[-1] >= first:
            part = pieces.pop().before(first)
            if len(part.steps):
                pieces.append(part)
        layout = _layout_at(first, columns, rest.shape[1])
        pieces.append(_Piece(_Key(datum.step, datum.wall_time), len(steps), steps, rest, layout))
    return _joined(pieces, len(totals))


def _layout(value: np.ndarray) -> Layout:
    """A layout that can be relied on: a log may come from anywhere."""
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
    """The newest layout that was logged up to a step."""
    for first, layout in reversed(layouts):
        if first <= step and len(TOTALS) * len(layout.optimizers) == totals:
            return layout
    raise ValueError(f"the names of its columns at step {step} are missing.")


def _joined(pieces: list[_Piece], points: int) -> _Index:
    layout = Layout(())
    for i, piece in enumerate(pieces):
        layout = layout.union(piece.layout) if i else piece.layout
    steps = np.concatenate([np.zeros(0, np.int64), *(piece.steps for piece in pieces)])
    totals = {
        name: np.full((len(steps), len(layout.optimizers)), np.nan, np.float32) for name in TOTALS
    }
    start = 0
    for piece in pieces:
        rows = slice(start, start := start + len(piece.steps))
        place = [layout.optimizers.index(name) for name in piece.layout.optimizers]
        for name, array in split_totals(piece.totals).items():
            totals[name][rows, place] = array
    return _Index(layout, steps, totals, pieces, points)


def _assembled(index: _Index, data: list[Any]) -> np.ndarray:
    """A statistic of all steps and variables; NaN where no table of it is there."""
    result = np.full((len(index.steps), len(index.layout.variables)), np.nan, np.float32)
    place = {_Key(datum.step, datum.wall_time): i for i, datum in enumerate(data)}
    start = 0
    for piece in index.pieces:
        rows = slice(start, start := start + len(piece.steps))
        at = place.get(piece.key)
        if at is None:
            continue
        table, data[at] = _table(data[at].numpy), None  # not in memory twice
        shape = (piece.records, 2 + len(piece.layout.variables))
        if table is not None and table.shape == shape:
            values = table[: len(piece.steps), 2:]
            if piece.layout == index.layout:
                result[rows] = values
            else:
                result[rows, index.layout.columns_of(piece.layout)] = values
    return result


def _compact(array: np.ndarray) -> np.ndarray:
    """The same, read-only; as one row in memory if all are the same, as often of `nonfinite`."""
    first = array[:1]
    blocks = (array[start : start + 256] for start in range(0, len(array), 256))
    if all(((block == first) | np.isnan(block) & np.isnan(first)).all() for block in blocks):
        return np.broadcast_to(first.copy(), array.shape)
    array.flags.writeable = False
    return array


def _table(array: np.ndarray) -> np.ndarray | None:
    """A table of a log, or None if it is something else."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype != np.float32:
        return None
    return array if np.isfinite(array[:, :2]).all() else None
