"""Errors about unreadable data."""

from __future__ import annotations

from typing import Any, NoReturn

ACCEPTED = (
    "an array, a tensor, a table (pandas, polars, pyarrow), the path of a Parquet, CSV or "
    "Feather file, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a `DataLoader`, a dict of "
    "arrays, or an iterable of batches (arrays, or tuples `(x, y, sample_weight)`)"
)


def refuse_type(data: Any, *_: Any) -> NoReturn:
    """Refuse data of an unknown type."""
    raise TypeError(
        f"`data` must be {ACCEPTED}. Received: data={data!r} of type {type(data).__name__}. "
        "Convert it to an array first, e.g. with `np.asarray(data)`."
    )


def refuse_batch(value: Any) -> NoReturn:
    """Refuse a batch of another type than an array."""
    raise TypeError(
        f"`data` must be {ACCEPTED}, and batches must be arrays or tensors, with a `.shape`. "
        f"Received: a batch of type {type(value).__name__}. Convert it first, e.g. with "
        "`np.asarray(data)`."
    )


def refuse_symbolic(data: Any, *_: Any) -> NoReturn:
    """Refuse a `keras.Input`."""
    raise TypeError(
        f"`data` must be {ACCEPTED}. Received: a symbolic tensor of shape {data.shape}. Pass "
        "the values themselves, not an `Input`."
    )


def refuse_scalar(*_: Any) -> NoReturn:
    """Refuse a number."""
    raise ValueError(
        "`data` must have a batch axis. Received: a scalar. Pass an array of shape (rows, ...), "
        "e.g. `np.reshape(data, (-1, 1))`; batch a stream of single values."
    )


def refuse_no_arrays(x: Any) -> NoReturn:
    """Refuse an empty dict or tuple."""
    raise ValueError(
        f"`data` must hold at least one array. Received: an empty {type(x).__name__}. Check what "
        "dropped them."
    )


def refuse_function(data: Any, *_: Any) -> NoReturn:
    """Refuse a function in place of its result."""
    name = getattr(data, "__name__", "data")
    raise TypeError(
        f"`data` must be {ACCEPTED}. Received: the function {name}. Call it: pass `{name}()`."
    )


def refuse_torch_dataset(data: Any, *_: Any) -> NoReturn:
    """Refuse a torch dataset without a loader."""
    raise TypeError(
        f"`data` must be {ACCEPTED}. Received: a torch dataset of type {type(data).__name__}, "
        "of single rows. Pass `torch.utils.data.DataLoader(data, batch_size=1024)`."
    )


def refuse_endless(what: str, fix: str) -> NoReturn:
    """Refuse endless data without a limit."""
    raise ValueError(
        f"`data` must be finite, or limited by `steps=`. Received: {what}. Pass `steps=`, the "
        f"number of batches to read, or {fix}."
    )


def refuse_length(name: str, shape: tuple[int, ...], rows: str) -> NoReturn:
    """Refuse a mask or weights of another number of rows than the data."""
    raise ValueError(
        f"`{name}` must have a row for each row of `data`. Received: {name} of shape "
        f"{shape} for {rows} rows. Use the same rows in both."
    )
