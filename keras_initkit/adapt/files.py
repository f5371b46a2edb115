"""Tables read in parts: files and folders, Arrow datasets, lazy frames."""

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_initkit.adapt.arrays import ACCEPTED, is_instance, shape_of, to_rows
from keras_initkit.adapt.reader import NUMBERS_AT_ONCE, OpenData, Reader, refuse_length
from keras_initkit.adapt.tables import wrap_table

_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".csv.gz": "csv"}
_FORMATS |= dict.fromkeys((".feather", ".arrow", ".ipc"), "feather")


def open_path(path: Any, reader: Reader) -> OpenData:
    """Open a file, or a folder of files, of one format."""
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(
            f"`data` must be {ACCEPTED}. Received: the path {str(path)!r}, which does not "
            "exist. Check it; files elsewhere can be opened by `pyarrow.dataset.dataset(uri)`."
        )
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    kinds = {file: _find_format(file) for file in files}
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
    try:
        dataset = arrow.dataset(names, **options)
    except sys.modules["pyarrow"].ArrowInvalid as error:
        raise ValueError(
            f"`data` must be the path of files that pyarrow can read. Received: {str(path)!r}: "
            f"{error}. Rename columns that occur twice; check what wrote the files."
        ) from error
    if formats[0] == "csv":
        dataset = arrow.dataset(names, schema=_widen_integers(dataset), **options)
    if formats[0] != "parquet":
        return open_tables(dataset, reader)
    rows = dataset.count_rows()  # from the files' footers
    return _open_frames(_read_row_groups(dataset), reader, "the files", rows)


def open_tables(data: Any, reader: Reader) -> OpenData:
    """Open an Arrow dataset, scanner or reader, or a Polars LazyFrame."""
    frames = data
    if is_instance(data, "pyarrow.dataset", "Dataset"):
        frames = data.to_batches(**_limit_scan(data))
    elif is_instance(data, "pyarrow.dataset", "Scanner"):
        frames = data.to_batches()
    elif hasattr(data, "collect_batches"):
        columns = max(1, len(data.collect_schema()))
        frames = data.collect_batches(chunk_size=max(1, NUMBERS_AT_ONCE // columns))
    elif hasattr(data, "collect"):  # Polars before 1.34
        frames = [data.collect()]
    return _open_frames(frames, reader, f"a {type(data).__name__}")


def _find_format(file: Path) -> str | None:
    name = file.name.lower()
    return next((kind for end, kind in _FORMATS.items() if name.endswith(end)), None)


def _widen_integers(dataset: Any) -> Any:
    """Declare integers as float64: of a CSV file, only the first block tells the types."""
    arrow = sys.modules["pyarrow"]
    in_file = set(next(dataset.get_fragments()).physical_schema.names)
    return arrow.schema(
        field.with_type(arrow.float64())
        if field.name in in_file and arrow.types.is_integer(field.type)
        else field
        for field in dataset.schema
    )


def _read_row_groups(dataset: Any) -> Iterator[Any]:
    """Read a Parquet dataset: readahead of one scan would keep up to 1 GiB."""
    for file in dataset.get_fragments():
        for group in file.split_by_row_group():
            yield from group.to_batches(schema=dataset.schema, **_limit_scan(dataset))


def _limit_scan(dataset: Any) -> dict[str, int]:
    rows = max(1, NUMBERS_AT_ONCE // max(1, len(dataset.schema.names)))
    return {"batch_size": rows, "batch_readahead": 1, "fragment_readahead": 1}


def _open_frames(
    frames: Iterable[Any], reader: Reader, source: str, rows: int | None = None
) -> OpenData:
    weight = reader.reading.sample_weight
    weight = None if weight is None else to_rows(weight)
    parts = _pair(_cut(frames), weight, reader.check_mask())
    return reader.open(parts, source, tuple, rows)


def _cut(frames: Iterable[Any]) -> Iterator[Any]:
    """Cut large tables."""
    for frame in map(wrap_table, frames):
        rows, columns = frame.shape
        step = max(1, 2 * NUMBERS_AT_ONCE // max(1, columns))
        for start in range(0, max(rows, 1), step):
            yield frame[start : start + step] if rows > step else frame


def _pair(frames: Iterable[Any], weight: Any, mask: Any) -> Iterator[tuple[Any, ...]]:
    """Pair tables with their rows of the weights and of the mask."""
    beside = {"sample_weight": weight, "mask": mask}
    start = 0
    for frame in frames:
        stop = start + len(frame)
        for name, part in beside.items():
            if part is not None and shape_of(part)[0] < stop:
                refuse_length(name, shape_of(part), f"{stop} or more")
        yield frame, None, *(None if part is None else part[start:stop] for part in beside.values())
        start = stop
    for name, part in beside.items():
        if part is not None and shape_of(part)[0] != start:
            refuse_length(name, shape_of(part), str(start))
