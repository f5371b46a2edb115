"""Collecting of batches: the `Moments` of the features of an array."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from keras_initkit.checks import list_few
from keras_initkit.statistics.moments import Moments

Array = NDArray[Any]
Shape = tuple[int | None, ...]

# Measured: enough to make the cost of a call vanish, still within the caches.
_JOINED_ELEMENTS = 1 << 19


class Result(NamedTuple):
    """Statistics of data after a pass.

    Attributes:
        shape: Shape of the data, the batch axis first as `None`.
        sizes: Sizes of the kept axes.
        moments: Moments of the features, one after the other as the kept axes have them.
        names: Names of the columns, if the data are a table.
    """

    shape: Shape
    sizes: tuple[int, ...]
    moments: Moments
    names: tuple[str, ...] | None = None

    def to_bytes(self) -> bytes:
        """Return the statistics for another process: arrays and names, and no code."""
        file = io.BytesIO()
        rest = np.array(json.dumps([self.shape, self.sizes, self.names]))
        arrays: dict[str, Any] = {"rest": rest, **self.moments.get_state()}
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the output of `to_bytes`; raise ValueError for anything that could run code."""
        arrays = np.load(io.BytesIO(data), allow_pickle=False)
        shape, sizes, names = json.loads(str(arrays["rest"]))
        moments = Moments.from_state(arrays)
        return cls(tuple(shape), tuple(sizes), moments, None if names is None else tuple(names))

    def merge(self, other: Self) -> Self:
        """Merge the statistics of other data, with the same features, into these."""
        if len(self.shape) != len(other.shape) or self.names != other.names:
            raise ValueError(
                "All parts of `data` must have the same features. Received: parts of shape "
                f"{self.shape} and {other.shape}, with columns named {self.names} and "
                f"{other.names}. Give all parts the same columns in the same order."
            )
        pairs = zip(self.shape, other.shape, strict=True)
        shape = tuple(mine if mine == theirs else None for mine, theirs in pairs)
        return self._replace(shape=shape, moments=self.moments.merge(other.moments))

    def name_features(self, chosen: NDArray[np.bool_]) -> str:
        """Name the chosen features (booleans, one each), for a message."""
        if not self.sizes:
            return "the only one"

        def write(index: list[int]) -> str:
            if len(index) > 1:
                return str(tuple(index))
            return str(index[0]) if self.names is None else repr(self.names[index[0]])

        return list_few(np.argwhere(chosen.reshape(self.sizes)).tolist(), write=write)


class Intake:
    """Collector of the batches of one array: joins small ones, refuses infinite values and NaN.

    Args:
        shape: Shape of the data, the batch axis first.
        axis: The axes of the features.
        extremes: Whether minima and maxima are wanted.
        nan: Meaning of NaN, as in `Reading`.
        label: Name of the data in errors.
        names: Names of the features, for errors.
    """

    def __init__(
        self,
        shape: Shape,
        axis: Sequence[int],
        *,
        extremes: bool = False,
        nan: str = "error",
        label: str = "`data`",
        names: tuple[str, ...] | None = None,
    ) -> None:
        self._shape, self._nan, self._label = shape, nan, label
        self._kept = kept_axes(axis, shape)
        self._check_features(axis)
        sizes = tuple(shape[kept] or 0 for kept in self._kept)
        moments = Moments((math.prod(sizes),), extremes)
        self._result = Result(shape, sizes, moments, names)
        self._rows = 0
        self._buffer, self._joined = np.empty(0), 0

    def push(self, batch: Any, sample_weight: Any = None) -> None:
        """Take in a batch, copied or done with when this returns; weights are of leading axes."""
        if not hasattr(batch, "shape"):
            self._refuse_batch(f"that is a {type(batch).__name__}")
        shape = batch.shape
        if len(shape) != len(self._shape) or self._result.sizes != tuple(
            [shape[axis] for axis in self._kept]
        ):
            self._refuse_batch(f"of an incompatible shape, {shape}")
        plain = sample_weight is None and not isinstance(batch, np.ma.MaskedArray)
        if plain and batch.size <= _JOINED_ELEMENTS // 4:
            self._join(batch)
        else:
            self.flush()
            self._take_in(batch, sample_weight)

    def flush(self) -> None:
        """Take in the batches only joined so far."""
        if self._joined:
            joined, self._joined = self._joined, 0
            self._take_in(self._buffer[:joined])

    def result(self) -> Result:
        """Return the statistics; each feature must have had a value."""
        if not self._rows:
            raise ValueError(
                f"{self._label} must hold at least one value. Received: no rows, of shape "
                f"{self._shape}. Check what filtered them out."
            )
        empty = self._result.moments.count == 0
        if empty.any():
            raise ValueError(
                f"{self._label} must hold a value that counts for each feature. Received: none in "
                f"{self._rows} rows for {empty.sum()} of {empty.size} features: "
                f"{self._result.name_features(empty)}. Check the mask, the weights, or where "
                "values are missing; or drop these features."
            )
        return self._result

    def _refuse_batch(self, received: str) -> NoReturn:
        raise ValueError(
            f"{self._label} must yield batches of the shape {self._shape}. Received: a batch "
            f"{received}. Give all batches the same features."
        )

    def _join(self, batch: Array) -> None:
        """Copy a small batch behind the former ones: a generator may reuse its array."""
        rows = len(batch)
        fits = self._buffer.shape[1:] == batch.shape[1:] and self._buffer.dtype == batch.dtype
        if not fits or self._joined + rows > len(self._buffer):
            self.flush()
            if not fits or rows > len(self._buffer):
                most = _JOINED_ELEMENTS // max(1, math.prod(batch.shape[1:]))
                self._buffer = np.empty((max(rows, most), *batch.shape[1:]), batch.dtype)
        self._buffer[self._joined : self._joined + rows] = batch
        self._joined += rows

    def _take_in(self, batch: Any, sample_weight: Any = None) -> None:
        moments, mask = self._result.moments, None
        if isinstance(batch, np.ma.MaskedArray):
            batch, mask = np.asarray(batch.data), ~np.ma.getmaskarray(batch)
        if sample_weight is not None:
            axes = (1,) * (batch.ndim - sample_weight.ndim)
            sample_weight = sample_weight.reshape(sample_weight.shape + axes)
            sample_weight = np.broadcast_to(sample_weight, batch.shape)
        before = moments.nan_count.sum(), moments.inf_count.sum()
        for table, valid, weights in feature_tables(batch, self._kept, mask, sample_weight):
            if self._nan == "ignore" and table.dtype.kind not in "biu":
                missing = np.isnan(table)
                if missing.any():
                    valid = ~missing if valid is None else valid & ~missing
            moments.update(table, valid, weights)
        nans, infs = moments.nan_count.sum() - before[0], moments.inf_count.sum() - before[1]
        if infs or (nans and self._nan == "error"):
            raise ValueError(self._describe_not_finite(batch, mask, nans, infs))
        self._rows += len(batch)

    def _describe_not_finite(self, batch: Array, mask: Any, nans: int, infs: int) -> str:
        bad = np.isinf(batch) if self._nan != "error" else ~np.isfinite(batch)
        if mask is not None:
            bad &= mask
        first = np.argwhere(bad)[0].tolist()
        where = f"row {self._rows + first[0]}"
        if self._kept:
            index = [first[axis] for axis in self._kept]
            where += f", feature {index[0] if len(index) == 1 else tuple(index)}"
            if self._result.names is not None and len(index) == 1:
                where += f" ({self._result.names[index[0]]!r})"
        clip, ignore = "clip them: `np.clip(data, …)`", "pass `nan='ignore'` to leave NaN out"
        return (
            f"{self._label} must be finite. Received: {batch[tuple(first)]} at {where}, the first "
            f"of {nans} NaN and {infs} infinite values in rows {self._rows} to "
            f"{self._rows + len(batch) - 1}. Drop these rows or replace the values first, e.g. "
            f"with `np.nan_to_num(data)`, or {ignore if nans else clip}."
        )

    def _check_features(self, axis: Sequence[int]) -> None:
        shape, axis = self._shape, tuple(axis)
        if 0 in self._kept:
            raise ValueError(
                "`axis` must not be the batch axis. Received: "
                f"axis={axis} for data of shape {shape}: each row would have its own "
                "mean. Use `axis=None` for one mean and variance of all values, or give the "
                "data a feature axis: `np.reshape(data, (-1, 1))`."
            )
        if any(shape[kept] is None for kept in self._kept):
            raise ValueError(
                f"{self._label} must have a known size along axis={axis}. Received: shape="
                f"{shape}. Set it, e.g. with `dataset.map(lambda x: tf.ensure_shape(x, …))`."
            )
        if any(shape[kept] == 0 for kept in self._kept):
            raise ValueError(
                f"{self._label} must have at least one feature along axis={axis}. Received: "
                f"shape={shape}. Check what dropped the columns."
            )


def kept_axes(axis: Sequence[int], shape: Shape) -> tuple[int, ...]:
    """Return the kept axes counted from 0, ascending as Keras has them."""
    rank = len(shape)
    if any(not -rank <= a < rank for a in axis):
        raise ValueError(
            f"`axis` must lie in [{-rank}, {rank}) for data of shape {tuple(shape)}. "
            f"Received: axis={tuple(axis)}. Use the axis or axes of the features."
        )
    return tuple(sorted(a % rank for a in axis))


def feature_tables(
    batch: Array, kept: tuple[int, ...], *beside: Array | None
) -> Iterator[tuple[Any, ...]]:
    """View a batch, and arrays of its shape beside it, as tables of shape `(rows, features)`.

    Where the kept axes are the last ones, it is one view of the whole batch; otherwise pieces are
    transposed one after the other.
    """
    features = math.prod(batch.shape[axis] for axis in kept)
    last = range(batch.ndim - len(kept), batch.ndim)
    moved = [None if a is None else np.moveaxis(a, kept, last) for a in (batch, *beside)]
    step = max(1, len(batch))
    if not all(a is None or a.flags.c_contiguous for a in moved):
        step = max(1, _JOINED_ELEMENTS // max(1, math.prod(batch.shape[1:])))
    for start in range(0, len(batch), step):
        yield tuple(
            None
            if a is None
            else np.ascontiguousarray(a[start : start + step]).reshape(-1, features)
            for a in moved
        )
