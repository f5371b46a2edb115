"""Whatever `adapt()` accepts, as a stream of NumPy elements: one reader for each kind of data."""

from __future__ import annotations

import importlib
import itertools
import math
import numbers
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.statistics.moments import is_real
from keras_initkit.wording import list_few

Array = NDArray[Any]
Tables = Literal["matrix", "columns"]

# Numbers that are read at once: a call costs nothing beside them, and they are some megabytes.
_PIECE = 1 << 20
_UNBATCHED_ROWS = 1024

_ACCEPTED = (
    "an array, a tensor, a table (pandas, polars, pyarrow), the path of a Parquet, CSV or "
    "Feather file, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a `DataLoader`, a dict of "
    "arrays, or an iterable of batches (arrays, or tuples `(x, y, sample_weight)`)"
)
_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
}
# Stages of a `tf.data` pipeline that pass elements on as they are, or nearly.
_PASSING = (
    "_PrefetchDataset",
    "_ShuffleDataset",
    "CacheDataset",
    "_RepeatDataset",
    "_TakeDataset",
    "_SkipDataset",
    "_ShardDataset",
    "_FilterDataset",
    "_OptionsDataset",
    "_ZipDataset",
    "_ConcatenateDataset",
    "_AssertCardinalityDataset",
)


class Element(NamedTuple):
    """One piece of the data.

    Attributes:
        x: Inputs: an array of shape `(rows, ...)`, masked where values don't count, or a
            dict, tuple or list of such.
        y: Targets in the same form, or `None`.
        sample_weight: Array of the leading axes of `x`, or `None`.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None


class Elements(NamedTuple):
    """Data to read once.

    Attributes:
        items: The elements. Arrays are valid until the next element is asked for.
        shape: Shape of `x` with the batch axis first, `None` where it may vary; for dicts,
            tuples and lists the same structure of shapes.
        rows: Number of rows, if it is known beforehand.
        names: Names of the columns, if the data are a table.
    """

    items: Iterator[Element]
    shape: Any
    rows: int | None
    names: tuple[str, ...] | None


class _Request(NamedTuple):
    """How the data are to be read."""

    reader: _Reader
    mask: Any
    sample_weight: Any
    limited: bool


def open_elements(
    data: Any,
    *,
    mask: Any = None,
    mask_value: float | None = None,
    sample_weight: Any = None,
    tables: Tables = "matrix",
    limited: bool = False,
) -> Elements:
    """Finds out how to read the data.

    Data given whole are arrays (in memory, memory mapped, of h5py), tensors of any
    framework, dense, sparse or ragged, lists of numbers, tables, paths of tables, dicts of
    these, and tuples of these: a tuple is `(x, y[, sample_weight])`, as for `fit()`.
    Everything else is a stream of batches: `tf.data.Dataset` (un-batched ones are batched),
    `DistributedDataset`, `PyDataset`, `DataLoader`, generators and other iterables. Batches
    that are tuples are `(x, y[, sample_weight])` too.

    No framework is imported: data can be its only where it already is. Paths need pyarrow.

    Args:
        data: The data.
        mask: Boolean array of the leading axes of `x`, true where values count. For data
            given whole.
        mask_value: Steps all of whose features (along the last axis) have this value don't
            count, as for `keras.layers.Masking`.
        sample_weight: Array of the leading axes of `x`. For data given whole; in streams,
            weights are the third item of a batch.
        tables: Whether a table is one array of shape `(rows, columns)` ("matrix") or a dict
            of one array of shape `(rows,)` for each column ("columns"). Nulls become NaN.
        limited: Whether the caller stops by itself: then endless data are accepted.

    Returns:
        The elements and what is known of them.

    Raises:
        TypeError: If data of this type can't be read.
        ValueError: If the data are empty or endless, have no batch axis, or don't fit the
            mask or the weights.
    """
    if tables not in ("matrix", "columns"):
        raise ValueError(
            '`tables` must be "matrix" or "columns". Received: '
            f'tables={tables!r}. Use "columns" for one array a column.'
        )
    request = _Request(_Reader(tables, mask_value), mask, sample_weight, limited)
    for is_kind, open_kind in _KINDS:
        if is_kind(data):
            return open_kind(data, request)
    raise TypeError(
        f"`data` must be {_ACCEPTED}. Received: data={data!r} of type {type(data).__name__}. "
        "Convert it to an array first, e.g. with `np.asarray(data)`."
    )


class _Reader:
    """Makes elements of what a source yields, and keeps what it learns on the way."""

    def __init__(self, tables: Tables, mask_value: float | None) -> None:
        self.names: tuple[str, ...] | None = None
        self._tables = tables
        self._mask_value = mask_value
        # The kind of an array is looked up once for each type.
        self._converters: dict[type, Callable[[Any], Any]] = {}

    def stream(
        self, batches: Iterable[Any], split: Callable[[Any], tuple[Any, ...]], source: str
    ) -> Iterator[Element]:
        """The elements of an iterable of batches."""
        known: Any = None
        empty = True
        for batch in batches:
            # What most streams consist of comes first: no call of a function.
            if type(batch) is np.ndarray and batch.dtype is known and batch.ndim:
                yield Element(batch)
                continue
            element = self.element(*split(batch))
            empty = empty and not _rows_of(element.x)
            if type(element.x) is np.ndarray and not empty and self._mask_value is None:
                known = element.x.dtype
            yield element
        if empty:
            raise ValueError(
                f"`data` must hold at least one row. Received: no rows, of {source}: an empty "
                "iterable, or empty batches. Check what filtered them out; a generator can be read "
                "only once: create a new one."
            )

    def element(self, x: Any, y: Any = None, weight: Any = None, mask: Any = None) -> Element:
        """One element, checked."""
        if type(x) is not np.ndarray:
            if _is_ragged(x):
                weight, mask = _repeated(weight, x), _repeated(mask, x)
            x = self._converted(x, strict=True)
        if isinstance(x, (dict, tuple, list)):
            _check_rows(x)
        else:
            _check_real(x)
        if mask is not None:
            invalid = ~mask
            x = _mapped(lambda leaf: _masked(leaf, _broadcast(invalid, leaf)), x)
        if self._mask_value is not None:
            x = _mapped(self._mask_steps, x)
        if weight is not None:
            weight = _checked_weight(self._converted(weight, strict=True), x)
        return Element(x, None if y is None else self._converted(y, strict=False), weight)

    def array(self, leaf: Any) -> Any:
        """A leaf as an array (a table as a dict of arrays, if they are read so)."""
        convert = self._converters.get(type(leaf))
        if convert is None:
            columns = _columns_function(leaf)
            if columns is not None:
                convert = lambda table: self._table(columns(table))  # noqa: E731
            else:
                convert = _array_function(leaf)
            self._converters[type(leaf)] = convert
        return convert(leaf)

    def _converted(self, value: Any, strict: bool) -> Any:
        """A structure of leaves as one of arrays."""
        if type(value) is np.ndarray:
            return value
        if isinstance(value, (dict, tuple)) or (isinstance(value, list) and not _numeric(value)):
            return _mapped(lambda leaf: self._converted(leaf, strict), value, one_level=True)
        if strict:
            return self.array(value)
        try:
            return self.array(value)
        except TypeError:  # targets are passed on as they are
            return value

    def _table(self, columns: list[tuple[Any, Array]]) -> Any:
        """A table from its columns."""
        names = tuple(str(name) for name, _ in columns)
        self.names = names
        if self._tables == "columns":
            if len(set(names)) < len(names):
                raise ValueError(
                    "`data` must have columns of different names. Received: columns="
                    f"{list_few(names)}. Rename those that occur twice."
                )
            return {name: array for name, (_, array) in zip(names, columns, strict=True)}
        other = [f"{name!r} ({a.dtype})" for name, a in columns if not is_real(a.dtype)]
        if other or not columns:
            raise TypeError(
                "`data` must have numeric columns. Received: a table with the "
                f"column{'s' * (len(other) != 1)} {', '.join(other) or 'list empty'}. Select the "
                'numeric ones, e.g. `data[["age", "income"]]` or '
                '`dataset.scanner(columns=["age", "income"])`, or use `with_normalization`, '
                "which leaves the others alone."
            )
        dtype = np.result_type(*(array.dtype for _, array in columns))
        rows = np.empty((len(columns), len(columns[0][1])), dtype)
        for row, (_, array) in zip(rows, columns, strict=True):
            row[:] = array
        # Four times as fast as writing each column with a stride.
        return np.ascontiguousarray(rows.T)

    def _mask_steps(self, leaf: Any) -> Any:
        """A leaf without the steps that have the mask value in all features."""
        if not is_real(leaf.dtype):
            return leaf
        values = np.ma.getdata(leaf)
        if leaf.ndim > 1 and not (values[..., :1] == self._mask_value).any():
            return leaf
        invalid = np.asarray(values == self._mask_value)
        if leaf.ndim > 1:
            invalid = np.broadcast_to(invalid.all(axis=-1, keepdims=True), leaf.shape)
        return _masked(leaf, invalid)


def _opened(
    items: Iterator[Element], reader: _Reader, rows: int | None = None, shape: Any = None
) -> Elements:
    """Elements of which the first one tells what is not known beforehand."""
    if shape is None:
        first = next(items)
        shape = _mapped(lambda leaf: (None, *leaf.shape[1:]), first.x)
        items = itertools.chain([first], items)
    return Elements(items, shape, rows, reader.names)


# Data given whole.


def _open_whole(data: Any, request: _Request) -> Elements:
    x, y, weight = (*_split(data), None, None)[:3]
    if weight is not None and request.sample_weight is not None:
        raise ValueError(
            "`sample_weight` must be given once. Received: `sample_weight` and a third item of "
            "`data`. Drop one of them."
        )
    weight = request.sample_weight if weight is None else weight
    x = _mapped(_whole_leaf, x)
    y, weight = (None if part is None else _mapped(_whole_leaf, part) for part in (y, weight))
    parts = (x, y, weight, _checked_mask(request.mask))
    leaves = list(_leaves(x))
    if not leaves:
        _refuse_no_arrays(x)
    rows = _common_rows(x, y, weight)
    if parts[-1] is not None and len(parts[-1]) != rows:
        _refuse_length("mask", parts[-1], str(rows))
    if not rows:
        shapes = list_few(_shape(leaf) for leaf in leaves)
        raise ValueError(
            f"`data` must hold at least one row. Received: no rows, of shape {shapes}. Check "
            "what filtered them out."
        )
    step = _rows_at_once(leaves, rows)

    def items() -> Iterator[Element]:
        for start in range(0, rows, step):
            yield request.reader.element(*(_cut_all(part, start, start + step) for part in parts))

    ragged = any(map(_is_ragged, leaves))
    return _opened(items(), request.reader, rows, _mapped(_known_shape, x) if ragged else None)


def _whole_leaf(leaf: Any) -> Any:
    """A leaf of which rows can be cut; what lies on a device or on disk stays there."""
    whole: Any = leaf
    if isinstance(leaf, keras.Variable):
        whole = _whole_leaf(leaf.value)
    elif _is_of(leaf, "scipy.sparse", "sparray", "spmatrix"):
        whole = leaf.tocsr()
    elif _is_of(leaf, "tensorflow", "SparseTensor"):
        whole = _SparseRows(leaf)
    elif isinstance(leaf, np.ndarray):
        pass
    elif _on_host(leaf) or not (hasattr(leaf, "shape") or hasattr(leaf, "slice")):
        whole = _array_function(leaf)(leaf)
    elif isinstance(leaf, keras.KerasTensor):
        _refuse_symbolic(leaf)
    if not _shape(whole):
        _refuse_scalar()
    return whole


def _on_host(leaf: Any) -> bool:
    """Whether a tensor can be seen as an array without a copy."""
    if _is_of(leaf, "torch", "Tensor"):  # a sparse one can't be cut
        return leaf.device.type == "cpu" or leaf.layout is not sys.modules["torch"].strided
    if _is_of(leaf, "jax", "Array"):
        devices = list(leaf.devices())
        return len(devices) == 1 and devices[0].platform == "cpu"
    if _is_of(leaf, "tensorflow", "Tensor"):
        return "CPU" in getattr(leaf, "device", "")
    return False


def _cut(leaf: Any, start: int, stop: int) -> Any:
    """Some rows of a leaf."""
    if _is_of(leaf, "pandas", "DataFrame", "Series"):
        return leaf.iloc[start:stop]
    if _is_of(leaf, "pyarrow", "Table", "RecordBatch", "ChunkedArray", "Array"):
        return leaf.slice(start, stop - start)
    return leaf[start:stop]


def _cut_all(value: Any, start: int, stop: int) -> Any:
    """Some rows of each leaf of a structure."""
    return None if value is None else _mapped(lambda leaf: _cut(leaf, start, stop), value)


def _shape(leaf: Any) -> tuple[Any, ...]:
    if _is_ragged(leaf):
        return (int(leaf.nrows()), *leaf.shape[1:])
    if _is_of(leaf, "pyarrow", "RecordBatch"):
        return (leaf.num_rows, leaf.num_columns)
    if _is_of(leaf, "pyarrow", "ChunkedArray", "Array"):
        return (len(leaf),)
    return tuple(leaf.shape)


def _known_shape(leaf: Any) -> tuple[int | None, ...]:
    """Shape of a tensor or of its specification; ragged axes may vary."""
    shape = tuple(leaf.shape)
    ragged = 1 + getattr(leaf, "ragged_rank", 0)
    return (None,) * ragged + shape[ragged:]


def _rows_at_once(leaves: list[Any], rows: int) -> int:
    values = [leaf.flat_values if _is_ragged(leaf) else leaf for leaf in leaves]
    size = sum(math.prod(map(int, _shape(value))) for value in values)
    step = max(1, _PIECE * rows // max(1, size))
    for leaf in leaves:
        # A compressed chunk of a file is unpacked as a whole: it must not be read twice.
        chunks = getattr(leaf, "chunks", None)
        if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int) and chunks[0]:
            step = max(1, step // chunks[0]) * chunks[0]
    return step


def _common_rows(x: Any, y: Any, weight: Any) -> int:
    sizes = [int(_shape(leaf)[0]) for leaf in _leaves((x, y, weight)) if leaf is not None]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"`data` must have the same number of rows in all arrays. Received: {list_few(sizes)} "
            "rows. A tuple is taken as (x, y, sample_weight); pass a list of batches as a list."
        )
    return sizes[0]


class _SparseRows:
    """The rows of a `tf.SparseTensor`, made dense a piece at a time."""

    def __init__(self, tensor: Any) -> None:
        indices = np.asarray(tensor.indices)
        order = np.argsort(indices[:, 0], kind="stable")
        self._indices: Array = indices[order]
        self._values: Array = np.asarray(tensor.values)[order]
        self.shape = tuple(np.asarray(tensor.dense_shape).tolist())

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        part = slice(*np.searchsorted(self._indices[:, 0], [start, stop]))
        dense = np.zeros((stop - start, *self.shape[1:]), self._values.dtype)
        first, *rest = self._indices[part].T
        dense[(first - start, *rest)] = self._values[part]
        return dense


# Streams of tables, which are data given whole too.


def _open_path(path: Any, request: _Request) -> Elements:
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(
            f"`data` must be {_ACCEPTED}. Received: the path {str(path)!r}, which does not "
            "exist. Check it; files elsewhere can be opened by `pyarrow.dataset.dataset(uri)`."
        )
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    kinds = {file: _format(file) for file in files}
    formats = sorted(set(filter(None, kinds.values())))
    if len(formats) != 1:
        raise ValueError(
            f"`data` must be the path of files of one of the types {', '.join(_FORMATS)}. "
            f"Received: {str(path)!r}, with {' and '.join(formats) or 'none'} of them. Open it "
            "by `pyarrow.dataset.dataset(path, format=...)`, or read it into an array."
        )
    try:
        arrow = importlib.import_module("pyarrow.dataset")
        file_systems = importlib.import_module("pyarrow.fs")
    except ImportError as error:
        raise ImportError(
            f"`data` given as a path needs pyarrow. Received: data={str(path)!r}. Install it: "
            "`pip install pyarrow`."
        ) from error
    base = place if place.is_dir() else place.parent
    local = file_systems.SubTreeFileSystem(str(base.absolute()), file_systems.LocalFileSystem())
    names = [file.relative_to(base).as_posix() for file in files if kinds[file]]
    options = {"filesystem": local, "format": formats[0], "partitioning": "hive"}
    dataset = arrow.dataset(names, **options)
    if formats[0] == "csv":
        dataset = arrow.dataset(names, schema=_wide_schema(dataset), **options)
    if formats[0] != "parquet":
        return _open_arrow_dataset(dataset, request)
    rows = dataset.count_rows()  # from the files' footers
    return _open_frames(_row_groups(dataset), request, rows, "the files")


def _format(file: Path) -> str | None:
    name = file.name.lower()
    return next((kind for end, kind in _FORMATS.items() if name.endswith(end)), None)


def _wide_schema(dataset: Any) -> Any:
    """Integers as float64: of a CSV file, only the first block tells the types."""
    arrow = sys.modules["pyarrow"]
    in_file = set(next(dataset.get_fragments()).physical_schema.names)
    return arrow.schema(
        field.with_type(arrow.float64())
        if field.name in in_file and arrow.types.is_integer(field.type)
        else field
        for field in dataset.schema
    )


def _row_groups(dataset: Any) -> Iterator[Any]:
    """Tables of a Parquet dataset: readahead of one scan would keep up to 1 GiB of them."""
    for file in dataset.get_fragments():
        for group in file.split_by_row_group():
            yield from group.to_batches(schema=dataset.schema, **_scan_options(dataset))


def _scan_options(dataset: Any) -> dict[str, int]:
    rows = max(1, _PIECE // max(1, len(dataset.schema.names)))
    return {"batch_size": rows, "batch_readahead": 1, "fragment_readahead": 1}


def _open_arrow_dataset(dataset: Any, request: _Request) -> Elements:
    return _open_frames(dataset.to_batches(**_scan_options(dataset)), request, None, "a dataset")


def _open_arrow_scanner(scanner: Any, request: _Request) -> Elements:
    return _open_frames(scanner.to_batches(), request, None, "a scanner")


def _open_arrow_reader(reader: Any, request: _Request) -> Elements:
    return _open_frames(reader, request, None, "a reader")


def _open_lazy_frame(frame: Any, request: _Request) -> Elements:
    columns = max(1, len(frame.collect_schema()))
    if hasattr(frame, "collect_batches"):
        frames = frame.collect_batches(chunk_size=max(1, _PIECE // columns))
    else:
        frames = [frame.collect()]
    return _open_frames(frames, request, None, "a LazyFrame")


def _open_frames(
    frames: Iterable[Any], request: _Request, rows: int | None, source: str
) -> Elements:
    weight = request.sample_weight
    weight = None if weight is None else _whole_leaf(weight)
    reader = request.reader
    raws = _along(_small(frames), weight, _checked_mask(request.mask))
    items = reader.stream(raws, lambda raw: raw, source)
    return _opened(items, reader, rows)


def _small(frames: Iterable[Any]) -> Iterator[Any]:
    """Cuts large tables into pieces; columns remain what they are."""
    for frame in frames:
        rows, columns = _shape(frame)
        step = max(1, 2 * _PIECE // max(1, columns))
        if rows <= step:
            yield frame
        else:
            yield from (_cut(frame, start, start + step) for start in range(0, rows, step))


def _along(frames: Iterable[Any], weight: Any, mask: Any) -> Iterator[tuple[Any, ...]]:
    """Pairs tables with their rows of the weights and of the mask."""
    start = 0
    for frame in frames:
        stop = start + _shape(frame)[0]
        parts = []
        for name, part in (("sample_weight", weight), ("mask", mask)):
            if part is not None and _shape(part)[0] < stop:
                _refuse_length(name, part, f"{stop} or more")
            parts.append(None if part is None else _cut(part, start, stop))
        yield frame, None, *parts
        start = stop
    for name, part in (("sample_weight", weight), ("mask", mask)):
        if part is not None and _shape(part)[0] != start:
            _refuse_length(name, part, str(start))


# Streams of batches.


def _open_tf_dataset(data: Any, request: _Request) -> Elements:
    _check_stream(request)
    tf = sys.modules["tensorflow"]
    cardinality = int(data.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY and not request.limited:
        _refuse_endless("an infinite `tf.data.Dataset`", "`dataset.take(number_of_batches)`")
    rows = None
    if not _is_batched(data):
        rows = cardinality if cardinality >= 0 else None
        data = data.batch(_rows_of_a_batch(data.element_spec))
    x, *_ = _split(data.element_spec)
    specs = list(_leaves(x))
    known = all(getattr(getattr(s, "shape", None), "rank", None) is not None for s in specs)
    if rows is None and cardinality > 0 and known:
        size = specs[0].shape[0]
        rows = None if size is None else cardinality * size
    items = request.reader.stream(data, _split, "a `tf.data.Dataset`")
    return _opened(items, request.reader, rows, _mapped(_known_shape, x) if known else None)


def _is_batched(data: Any) -> bool:
    """Whether elements are batches, by their shapes and by how they came about.

    An element with a scalar (a label, or a feature) is one row. Beyond this, shapes of rank
    2 and unknown sizes speak for a batch, and a fixed size of rank 1 for a row, unless the
    stages of the pipeline tell better.
    """
    specs = [s for s in _leaves(data.element_spec) if hasattr(s, "shape")]
    if any(spec.shape.rank == 0 or getattr(spec, "ragged_rank", 1) == 0 for spec in specs):
        return False
    if any(spec.shape.rank is None for spec in specs):
        return True
    staged = _batched_by_stages(data)
    if staged is not None:
        return staged
    x, *_ = _split(data.element_spec)
    specs = [s for s in _leaves(x) if hasattr(s, "shape")]
    return any(spec.shape.rank > 1 or spec.shape[0] is None for spec in specs)


def _batched_by_stages(data: Any) -> bool | None:
    """What the stages of a pipeline tell, from the last one back: `None` for nothing."""
    name = type(data).__name__
    if "Unbatch" in name:
        return False
    if "Batch" in name or name in ("_TensorDataset", "_DenseToRaggedDataset"):
        return True
    if name in ("_TensorSliceDataset", "_RangeDataset"):
        return False
    inputs: list[Any] = getattr(data, "_inputs", list)()
    if name in _PASSING and inputs:
        answers = {_batched_by_stages(stage) for stage in inputs}
        return answers.pop() if len(answers) == 1 else None
    # A function may load a file of many rows: that it was given one name tells nothing.
    if name in ("_MapDataset", "_ParallelMapDataset") and inputs:
        return _batched_by_stages(inputs[0]) or None
    return None


def _rows_of_a_batch(spec: Any) -> int:
    """Rows to be batched: one, if rows may differ in size."""
    leaves = [s for s in _leaves(spec) if hasattr(s, "shape")]
    dense = [s for s in leaves if not hasattr(s, "ragged_rank")]
    if not all(leaf.shape.is_fully_defined() for leaf in dense):
        return 1
    size = sum(math.prod(size or 1 for size in leaf.shape) for leaf in leaves)
    return max(1, min(_UNBATCHED_ROWS, _PIECE // max(1, size)))


def _open_distributed_dataset(data: Any, request: _Request) -> Elements:
    _check_stream(request)
    cardinality = data.cardinality
    if int(cardinality() if callable(cardinality) else cardinality) == -1 and not request.limited:
        _refuse_endless("an infinite `DistributedDataset`", "`.take()` before it is distributed")
    batches = itertools.chain.from_iterable(map(_of_each_replica, data))
    return _opened(request.reader.stream(batches, _split, "a `DistributedDataset`"), request.reader)


def _of_each_replica(element: Any) -> list[Any]:
    """Takes an element of per-replica values apart."""

    def is_taken_apart(leaf: Any) -> bool:
        return type(leaf).__name__ == "PerReplica"

    def value(replica: int) -> Any:
        return _mapped(lambda x: x.values[replica] if is_taken_apart(x) else x, element)

    counts = [len(leaf.values) for leaf in _leaves(element) if is_taken_apart(leaf)]
    return [value(replica) for replica in range(max(counts, default=1))]


def _open_py_dataset(data: Any, request: _Request) -> Elements:
    _check_stream(request)
    try:
        length = data.num_batches
    except NotImplementedError:
        length = None
    if length is None and not request.limited:
        _refuse_endless(
            "a `PyDataset` without a length", "define `__len__()`, the number of batches"
        )
    indices = itertools.count() if length is None else range(length)
    batches = (data[index] for index in indices)
    return _opened(
        request.reader.stream(batches, _split, f"a {type(data).__name__}"), request.reader
    )


def _open_data_loader(data: Any, request: _Request) -> Elements:
    _check_stream(request)

    def split(batch: Any) -> tuple[Any, ...]:
        return _split(tuple(batch) if isinstance(batch, list) else batch)

    return _opened(request.reader.stream(data, split, "a `DataLoader`"), request.reader)


def _open_iterable(data: Any, request: _Request) -> Elements:
    _check_stream(request)
    items = request.reader.stream(data, _split, f"an object of type {type(data).__name__}")
    return _opened(items, request.reader)


# Data that can't be read.


def _refuse_symbolic(data: Any, *_: Any) -> Any:
    raise TypeError(
        f"`data` must be {_ACCEPTED}. Received: a symbolic tensor of shape {data.shape}. Pass "
        "the values themselves, not an `Input`."
    )


def _refuse_scalar(*_: Any) -> Any:
    raise ValueError(
        "`data` must have a batch axis. Received: a scalar. Pass an array of shape (rows, ...), "
        "e.g. `np.reshape(data, (-1, 1))`; batch a stream of single values."
    )


def _refuse_no_arrays(x: Any) -> None:
    raise ValueError(
        f"`data` must hold at least one array. Received: an empty {type(x).__name__}. Check what "
        "dropped them."
    )


def _refuse_function(data: Any, *_: Any) -> Any:
    name = getattr(data, "__name__", "data")
    raise TypeError(
        f"`data` must be {_ACCEPTED}. Received: the function {name}. Call it: pass `{name}()`."
    )


def _refuse_torch_dataset(data: Any, *_: Any) -> Any:
    raise TypeError(
        f"`data` must be {_ACCEPTED}. Received: a torch dataset of type {type(data).__name__}, "
        "of single rows. Pass `torch.utils.data.DataLoader(data, batch_size=1024)`."
    )


def _refuse_endless(what: str, fix: str) -> None:
    raise ValueError(
        f"`data` must be finite, or limited by `steps=`. Received: {what}. Pass `steps=`, the "
        f"number of batches to read, or {fix}."
    )


def _refuse_length(name: str, part: Any, rows: str) -> None:
    raise ValueError(
        f"`{name}` must have a row for each row of `data`. Received: {name} of shape "
        f"{_shape(part)} for {rows} rows. Use the same rows in both."
    )


def _check_stream(request: _Request) -> None:
    for name, value in (("mask", request.mask), ("sample_weight", request.sample_weight)):
        if value is not None:
            fix = {
                "mask": "Use `mask_value=`, or yield masked arrays (`np.ma.MaskedArray`).",
                "sample_weight": "Yield tuples `(x, y, sample_weight)`.",
            }[name]
            raise ValueError(
                f"`{name}` must come with arrays or tables given whole. Received: `{name}` "
                f"beside a stream of batches. {fix}"
            )


def _checked_mask(mask: Any) -> Array | None:
    if mask is None:
        return None
    mask = np.asarray(_array_function(mask)(mask))
    if mask.dtype != np.bool_ or not mask.ndim:
        raise ValueError(
            "`mask` must be a boolean array, true where values count. Received: an array of "
            f"dtype={mask.dtype} and shape {mask.shape}. Convert it: `mask.astype(bool)`."
        )
    return mask


def _check_real(x: Any) -> None:
    if not is_real(x.dtype):
        raise TypeError(
            "`data` must hold booleans, integers or real floating point numbers. Received: "
            f"dtype={x.dtype}. Convert it first, e.g. with `data.astype('float32')`."
        )
    if not x.ndim:
        _refuse_scalar()


def _check_rows(x: Any) -> None:
    leaves = list(_leaves(x))
    if not leaves:
        _refuse_no_arrays(x)
    if not all(leaf.ndim for leaf in leaves):
        _refuse_scalar()


def _checked_weight(weight: Any, x: Any) -> Array:
    if isinstance(weight, (dict, tuple, list)) or not is_real(weight.dtype):
        what = getattr(weight, "dtype", type(weight).__name__)
        raise ValueError(
            f"`sample_weight` must be one array of numbers. Received: {what}. Of weights for each "
            "output, none tells how much a row of the inputs counts: drop them."
        )
    if weight.ndim > 1 and weight.shape[-1] == 1:  # as Keras takes (rows, 1)
        weight = weight[..., 0]
    if weight.shape == (1,):  # the same for all
        weight = np.repeat(weight, _rows_of(x))
    for leaf in _leaves(x):
        if not weight.ndim or weight.shape != leaf.shape[: weight.ndim]:
            raise ValueError(
                "`sample_weight` must have the leading axes of the inputs. Received: "
                f"sample_weight of shape {weight.shape} for inputs of shape {leaf.shape}. Use one "
                "weight for each row."
            )
    if not (np.min(weight, initial=0) >= 0 and np.max(weight, initial=0) < np.inf):
        bad = weight[~((weight >= 0) & np.isfinite(weight))]
        raise ValueError(
            f"`sample_weight` must be finite and not negative. Received: {list_few(bad.tolist())} "
            f"among {weight.size} weights. Drop these rows, or give them weight 0."
        )
    return np.asarray(weight)


# Leaves: arrays of every kind.


def _array_function(leaf: Any) -> Callable[[Any], Any]:
    """How an array of this type becomes a NumPy array."""
    if isinstance(leaf, np.ma.MaskedArray):
        return _same
    if isinstance(leaf, (np.ndarray, np.generic)):
        return np.asarray
    if isinstance(leaf, keras.KerasTensor):
        return _refuse_symbolic
    if isinstance(leaf, keras.Variable):
        return lambda variable: _array_function(variable.value)(variable.value)
    for module, names, function in _ARRAYS:
        if _is_of(leaf, module, *names):
            return function
    if isinstance(leaf, list):
        return _array_of_list
    if hasattr(leaf, "__array__") and hasattr(leaf, "shape"):
        return np.asarray
    raise TypeError(
        f"`data` must be {_ACCEPTED}, and batches must be arrays or tensors, with a `.shape`. "
        f"Received: a batch of type {type(leaf).__name__}. Convert it first, e.g. with "
        "`np.asarray(data)`."
    )


def _same(array: Any) -> Any:
    return array


def _array_of_list(values: list[Any]) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            "`data` must have rows of one length. Received: a list of lists of different "
            "lengths. Pad them, or pass `tf.ragged.constant(data)`."
        ) from error


def _ragged_array(tensor: Any) -> Array:
    """The values at hand, with an axis of size 1 for each ragged one."""
    values = np.asarray(tensor.flat_values)
    return values.reshape(len(values), *(1,) * tensor.ragged_rank, *values.shape[1:])


def _repeated(rows: Any, tensor: Any) -> Any:
    """What belongs to the rows of a ragged tensor, for each of its values."""
    if rows is None:
        return None
    rows = np.asarray(_array_function(rows)(rows))
    for lengths in tensor.nested_row_lengths():
        if rows.ndim != 1 or len(rows) != int(lengths.shape[0]):
            raise ValueError(
                "`sample_weight` and `mask` of a ragged tensor must have one item for each row. "
                f"Received: shape={rows.shape} for {int(lengths.shape[0])} rows. Pass one for "
                "each row, or the values that count alone."
            )
        rows = np.repeat(rows, np.asarray(lengths))
    return rows


def _torch_array(tensor: Any) -> Array:
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype == torch.bfloat16:  # of which `.numpy()` knows nothing
        bits = tensor.detach().view(torch.int16).numpy(force=True)
        return np.asarray(bits.view(np.dtype("bfloat16")))
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    return np.asarray(tensor.numpy(force=True))


def _pandas_array(series: Any) -> Array:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return np.asarray(series.to_numpy())
    if not sys.modules["pandas"].api.types.is_numeric_dtype(dtype):
        return np.asarray(series)
    kind = getattr(dtype, "numpy_dtype", None) or getattr(dtype, "subtype", dtype)
    if not isinstance(kind, np.dtype) or not is_real(kind) or series.isna().any():
        return np.asarray(series.to_numpy(np.float64, na_value=np.nan))
    return np.asarray(series.to_numpy(kind))


def _polars_array(series: Any) -> Array:
    polars = sys.modules["polars"]
    dtype = series.dtype
    nulls = dtype == polars.Boolean and series.null_count()
    if nulls or dtype in (polars.Decimal, polars.Null):
        series = series.cast(polars.Float64)
    return np.asarray(series.to_numpy())


def _arrow_array(column: Any) -> Array:
    arrow = sys.modules["pyarrow"]
    kind = column.type
    if arrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif (arrow.types.is_boolean(kind) and column.null_count) or (
        arrow.types.is_decimal(kind) or arrow.types.is_null(kind)
    ):
        column = column.cast(arrow.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _columns_function(leaf: Any) -> Callable[[Any], list[tuple[Any, Array]]] | None:
    """How a table of this type is taken apart; `None` if it is no table."""
    if _is_of(leaf, "pandas", "DataFrame"):
        return lambda table: [(name, _pandas_array(column)) for name, column in table.items()]
    if _is_of(leaf, "polars", "DataFrame"):
        return lambda table: [(column.name, _polars_array(column)) for column in table]
    if _is_of(leaf, "pyarrow", "Table", "RecordBatch"):
        return lambda table: [
            (name, _arrow_array(column))
            for name, column in zip(table.schema.names, table.columns, strict=True)
        ]
    return None


# Ordered: a class comes before the classes that it inherits from.
_ARRAYS: tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...] = (
    ("tensorflow", ("RaggedTensor",), _ragged_array),
    ("tensorflow", ("SparseTensor",), lambda tensor: _SparseRows(tensor)[:]),
    ("tensorflow", ("IndexedSlices",), lambda x: np.asarray(sys.modules["tensorflow"].identity(x))),
    ("tensorflow", ("Tensor", "Variable"), np.asarray),
    ("torch", ("Tensor",), _torch_array),
    ("jax.experimental.sparse", ("JAXSparse",), lambda matrix: np.asarray(matrix.todense())),
    ("jax", ("Array",), np.asarray),
    ("scipy.sparse", ("sparray", "spmatrix"), lambda matrix: matrix.toarray()),
    ("pandas", ("Series",), _pandas_array),
    ("polars", ("Series",), _polars_array),
    ("pyarrow", ("ChunkedArray", "Array"), _arrow_array),
)


# Structures: dicts, tuples and lists of leaves.


def _mapped(function: Callable[[Any], Any], value: Any, one_level: bool = False) -> Any:
    """Applies a function to each leaf; a list of numbers is a leaf."""

    def mapped(item: Any) -> Any:
        return function(item) if one_level else _mapped(function, item)

    if isinstance(value, Mapping):
        return {key: mapped(item) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [mapped(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list) and not _numeric(value):
        return [mapped(item) for item in value]
    return function(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple) or (isinstance(value, list) and not _numeric(value)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _numeric(values: list[Any]) -> bool:
    """Whether a list holds numbers (or lists of them) instead of arrays."""
    first: Any = values
    while isinstance(first, list):
        if not first:
            return True
        first = first[0]
    return isinstance(first, (numbers.Number, np.generic, str, bytes))


def _split(batch: Any) -> tuple[Any, ...]:
    """The items of a batch `(x, y[, sample_weight])`, or the batch as x alone."""
    if not isinstance(batch, tuple):
        return (batch,)
    if not 1 <= len(batch) <= 3:
        raise ValueError(
            "`data` must be x, `(x, y)` or `(x, y, sample_weight)`. Received: a tuple of "
            f"{len(batch)} items. Nest several inputs: `((a, b), y)`."
        )
    return batch


def _rows_of(x: Any) -> int:
    return len(next(_leaves(x)))


def _masked(leaf: Any, invalid: Array) -> Any:
    """A leaf with more of its values masked."""
    if isinstance(leaf, np.ma.MaskedArray):
        invalid = invalid | np.ma.getmaskarray(leaf)
    if not invalid.any():
        return leaf
    return np.ma.MaskedArray(np.ma.getdata(leaf), mask=invalid)


def _broadcast(mask: Array, leaf: Any) -> Array:
    if mask.shape != leaf.shape[: mask.ndim]:
        raise ValueError(
            "`mask` must have the leading axes of the inputs. Received: mask of shape "
            f"{mask.shape} for inputs of shape {leaf.shape}. Use one value for each row, or each "
            "step, or each number."
        )
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf.shape)


def _is_of(value: Any, module: str, *names: str) -> bool:
    """Whether a value is of a class of a package that need not be there."""
    package = sys.modules.get(module)
    if package is None:
        return False
    for name in names:
        try:
            kind = operator.attrgetter(name)(package)
        except AttributeError:
            continue
        if isinstance(value, kind):
            return True
    return False


def _is_ragged(value: Any) -> bool:
    return _is_of(value, "tensorflow", "RaggedTensor")


def _of(module: str, *names: str) -> Callable[[Any], bool]:
    return lambda data: _is_of(data, module, *names)


def _is_whole(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and _numeric(data)
    rows = hasattr(data, "shape") and hasattr(data, "__getitem__")
    arrow = _is_of(data, "pyarrow", "Table", "RecordBatch", "ChunkedArray", "Array")
    sparse = _is_of(data, "tensorflow", "SparseTensor")  # has no rows to be cut
    return rows or arrow or sparse or isinstance(data, (Mapping, tuple))


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, _Request], Elements]], ...] = (
    (lambda data: isinstance(data, np.ndarray), _open_whole),
    (lambda data: isinstance(data, keras.KerasTensor), _refuse_symbolic),
    (lambda data: isinstance(data, (numbers.Number, np.generic)), _refuse_scalar),
    (lambda data: isinstance(data, (str, os.PathLike)), _open_path),
    (_of("pyarrow.dataset", "Scanner"), _open_arrow_scanner),
    (_of("pyarrow.dataset", "Dataset"), _open_arrow_dataset),
    (_of("pyarrow", "RecordBatchReader"), _open_arrow_reader),
    (_of("polars", "LazyFrame"), _open_lazy_frame),
    (_of("tensorflow", "data.Dataset"), _open_tf_dataset),
    (_of("tensorflow", "distribute.DistributedDataset"), _open_distributed_dataset),
    (lambda data: isinstance(data, keras.utils.PyDataset), _open_py_dataset),
    (_of("torch.utils.data", "DataLoader"), _open_data_loader),
    (_of("torch.utils.data", "Dataset"), _refuse_torch_dataset),
    (_is_whole, _open_whole),
    (lambda data: hasattr(data, "__iter__") and not isinstance(data, bytes), _open_iterable),
    (callable, _refuse_function),
)
