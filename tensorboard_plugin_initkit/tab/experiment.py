"""The logs loaded by TensorBoard, each as a `GradientHistory` to be read when needed."""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.diagnosis.finding import Finding, from_json, merge_findings
from tensorboard_plugin_initkit.log.content import (
    make_chunk,
    note_damage,
    note_gaps,
    ports_of,
    read_text,
    split_table,
    values_of,
)
from tensorboard_plugin_initkit.log.gradient_log import (
    END_TAG,
    FINDINGS_TAG,
    LAYOUT_TAG,
    PORTS_TAG,
    RUN,
    SETUP_TAG,
    TOTALS_TAG,
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
from tensorboard_plugin_initkit.record.setup import Setup
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
        place: Among all runs of TensorBoard, in the order in which it gives them colours.
        title: Shown to people.
        state: Changes when the log does.
        statistics: Those of `RECORDED` in the log.
        extras: Tags of what else is in the log, of ports and setup.
        has_findings: True if the log has findings.
        has_ended: True if the training was ended after the last record.
    """

    name: str
    place: int
    title: str
    state: str
    statistics: tuple[str, ...]
    extras: tuple[str, ...]
    has_findings: bool
    has_ended: bool


@dataclasses.dataclass(eq=False)
class _Index:
    """The columns and steps of a log, as read at one time; it is the key of the arrays on them.

    Attributes:
        chunks: Chunks without values, and their tables of totals, by the step and time of these.
        whole: The chunks joined; steps recorded anew replace the older ones.
        problems: Sentences on damaged parts, which are left out.
        gaps: The same on steps that are missing between the files of the log.
        setup: The model as it is built and compiled; `None` if it is not known.
    """

    chunks: list[tuple[tuple[int, float], Chunk, np.ndarray]]
    whole: Chunk
    problems: list[str]
    gaps: list[str]
    setup: Setup | None = None


class Experiment:
    """The logs of a TensorBoard. Any thread may ask.

    Args:
        data_provider: TensorBoard's.
        samples: Largest number of chunks of a log in TensorBoard; 0 for all.
    """

    def __init__(self, data_provider: Any, samples: int = 0) -> None:
        self._provider, self._samples = data_provider, samples
        self._indices: Cache[tuple[str, str], _Index] = Cache(_MOST_INDICES, lambda index: 1)
        # By statistic and rows of an index; of all rows if these are empty. While a log grows, an
        # index of the same state of the log may be read again, and have more rows.
        self._arrays: Cache[tuple[_Index, str, bytes], np.ndarray] = Cache(_MOST_BYTES, _bytes)

    def runs(self) -> list[Run]:
        """List the logs of a `GradientMonitor`, by name."""
        listed, places = self._list(None), self._number_runs()
        named = ((name, tags) for name, tags in sorted(listed.items()) if tags)
        runs = [_describe(name, places.get(name, 0), tags) for name, tags in named]
        states = {(run.name, run.state) for run in runs}
        kept = self._indices.keep(lambda key: key in states)
        self._arrays.keep(lambda key: key[0] in kept)
        return runs

    def run(self, name: str) -> Run | None:
        """Find a run by its name."""
        tags = self._list([name]).get(name)
        return _describe(name, self._number_runs().get(name, 0), tags) if tags else None

    def runs_of_all_plugins(self) -> int:
        """Count all runs in TensorBoard."""
        return len(self._number_runs())

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
        history.setup, history.ended = index.setup, run.has_ended
        return history

    def findings(self, run: Run) -> list[Finding]:
        """Read the findings of a run.

        Raises:
            LogError: If they cannot be read.
        """
        data = self._read(run, FINDINGS_TAG)
        try:
            return merge_findings([from_json(_text(datum)) for datum in data])
        except ValueError as error:
            raise LogError(f"The log {run.title!r} cannot be read: {error}") from error

    def notes(self, run: Run) -> list[str]:
        """Describe the gaps of a log in sentences."""
        index = self._index(run)
        notes = note_damage(index.problems)
        if self._samples and len(index.chunks) >= self._samples:
            notes.append(
                f"TensorBoard keeps only a random sample of this log: {self._samples:,} of its "
                "blocks of steps. Spikes of single steps may be missing. Start TensorBoard "
                f"without `--samples_per_plugin {PLUGIN_NAME}=…` to see all."
            )
        else:
            notes += index.gaps
        if not run.has_ended:
            notes.append(
                f"The log ends at step {index.whole.steps[-1]:,}: the training is still going on, "
                "was killed, or the file is damaged there."
            )
        return notes

    def _number_runs(self) -> dict[str, int]:
        """Number all runs as TensorBoard does to give them colours: by their beginning."""
        try:
            runs = self._provider.list_runs(RequestContext(), experiment_id="")
        except Exception as error:
            raise LogError(f"TensorBoard cannot list its runs: {_one_line(error)}") from error
        begins = (
            (math.inf if run.start_time is None else run.start_time, run.run_name) for run in runs
        )
        return {name: place for place, (_, name) in enumerate(sorted(begins))}

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
                    f"{what} is larger than the 256 MB that TensorBoard's data server can send. "
                    "Start TensorBoard with `--load_fast=false`, or record fewer steps with "
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
        ports, setups = (
            self._read(run, tag) if tag in run.extras else [] for tag in (PORTS_TAG, SETUP_TAG)
        )
        index = _index(layouts, totals, ports, setups)
        if not index.chunks:
            if index.problems:
                raise LogError(f"The log {run.title!r} cannot be read: {index.problems[0]}")
            raise EmptyLogError(
                f"The log {run.title!r} holds no recorded step: the training has not reached one "
                "yet, or was stopped before it did."
            )
        if not index.whole.layout.variables:
            raise EmptyLogError(f"The log {run.title!r} has no layer with trainable weights.")
        return index

    def _array(self, run: Run, index: _Index, statistic: str) -> np.ndarray:
        size = 4 * len(index.whole.steps) * len(index.whole.layout.variables)
        return self._arrays.get(
            (index, statistic, b""),
            lambda: self._read_array(run, index, statistic),
            size,
        )

    def _sample(self, run: Run, index: _Index, statistic: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows of an array; they are cached apart from it."""
        key = index, statistic, np.asarray(rows).tobytes()
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


def _describe(name: str, place: int, tags: Mapping[str, Any]) -> Run:
    last = sorted((tag, series.max_step, series.max_wall_time) for tag, series in tags.items())
    state = hashlib.blake2b(repr(last).encode("utf-8", "replace"), digest_size=9).hexdigest()
    statistics = tuple(name for name in RECORDED if f"{PLUGIN_NAME}/{name}" in tags)
    end, totals = tags.get(END_TAG), tags.get(TOTALS_TAG)
    has_ended = bool(end and totals and end.max_wall_time >= totals.max_wall_time)
    title = RUN if name == "." else name.removesuffix(f"/{RUN}")
    extras = tuple(tag for tag in (PORTS_TAG, SETUP_TAG) if tag in tags)
    return Run(name, place, title, state, statistics, extras, FINDINGS_TAG in tags, has_ended)


def _text(datum: Any) -> bytes | str:
    return read_text(np.ravel(datum.numpy).tolist())


def _one_line(error: Exception) -> str:
    """Write an error in one line."""
    # gRPC's have many, of which people need this one.
    text = error.details() if hasattr(error, "details") else str(error)
    return f"{type(error).__name__}: {text}"


def _index(layouts: list[Any], totals: list[Any], ports: list[Any], setups: list[Any]) -> _Index:
    """Put together what a log holds besides values, as far as it is not damaged."""
    problems: list[str] = []

    def attempt(make: Callable[..., Any], *args: Any) -> Any:
        try:
            return make(*args)
        except ValueError as error:
            problems.append(str(error))
            return None

    columns = [(d.step, attempt(lambda d: Layout.from_json(_text(d)), d)) for d in layouts]
    tables = {(datum.step, datum.wall_time): datum.numpy for datum in ports}
    chunks = [
        (key, attempt(_add_ports, chunk, datum.numpy, tables.get(key)) or chunk, datum.numpy)
        for datum in totals
        if (chunk := attempt(_chunk, datum.numpy, columns)) is not None
        and (key := (datum.step, datum.wall_time))
    ]
    known = [attempt(lambda datum: Setup.from_json(_text(datum)), datum) for datum in setups[-1:]]
    # Each file begins with a layout, of the time of its first chunk.
    begins = sorted(datum.wall_time for datum in layouts)
    files = itertools.groupby(chunks, lambda item: bisect.bisect(begins, item[0][1]))
    recorded = [np.concatenate([chunk.steps for _, chunk, _ in file]) for _, file in files]
    whole = _join(chunk for _, chunk, _ in chunks)
    return _Index(chunks, whole, problems, note_gaps(recorded), *known)


def _add_ports(chunk: Chunk, totals: np.ndarray, table: np.ndarray | None) -> Chunk:
    """Add what is known of the ports to a chunk."""
    if table is None:
        return chunk
    return dataclasses.replace(chunk, ports=ports_of(table, chunk, totals))


def _join(chunks: Iterable[Chunk]) -> Chunk:
    """Join chunks in the order of the log; steps recorded anew replace older ones."""
    kept: list[Chunk] = []
    for chunk in chunks:
        append_chunk(kept, chunk)
    return join(kept) if kept else Chunk(Layout(()), np.zeros(0, np.int64), {})


def _chunk(totals: np.ndarray, layouts: list[tuple[int, Layout | None]]) -> Chunk:
    """Make a chunk of the newest layout logged up to its first step; `None` is a damaged one."""
    steps, columns = split_table(totals)
    before = [layout for first, layout in layouts if first <= steps[0]]
    fitting = [
        layout
        for layout in before
        if layout is None or len(TOTALS) * len(layout.optimizers) == columns.shape[1]
    ]
    return make_chunk((fitting or before or [None])[-1], totals)


def _assemble(index: _Index, data: list[Any], statistic: str) -> np.ndarray:
    """Put together a statistic of all steps and variables; NaN where its table is missing."""
    tables = {(datum.step, datum.wall_time): datum.numpy for datum in data}

    def values(key: tuple[int, float], chunk: Chunk, totals: np.ndarray) -> dict[str, np.ndarray]:
        # What is damaged is missing.
        with contextlib.suppress(KeyError, ValueError):
            return {statistic: values_of(tables[key], chunk, totals)}
        return {}

    whole = _join(Chunk(c.layout, c.steps, values(key, c, t)) for key, c, t in index.chunks)
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
