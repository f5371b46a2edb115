"""The loss of recorded steps, from Keras's metric of it."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from keras import ops

from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.measures.gradients import as_float32


class Losses:
    """Mean losses since the record before, NaN where they are unknown: float32 (n,).

    Args:
        sums: Variables (total, count) of the model's loss metric; empty if it has none.

    Attributes:
        epoch: Number of epochs begun up to now.
    """

    def __init__(self, sums: tuple[Any, ...]) -> None:
        self.epoch = 0
        self._sums = sums
        self._calls: list[Call] = []
        self._numbers: list[Any] = []
        self._total = self._count = self._epoch = 0.0

    def hear(self, call: Call, logs: Any, metric: Callable[[Any], Any]) -> None:
        """Keep the loss in a call's logs, means over the epoch up to now, on the device.

        `metric` returns the value of a metric's variable now.
        """
        loss = _as_number(logs.get("loss") if isinstance(logs, dict) else None)
        if loss is not None:
            unknown = [np.array(np.nan, np.float32)] * 2
            self._numbers += [loss, *(map(metric, self._sums) if self._sums else unknown)]
            self._calls.append(call)

    def of_calls(
        self,
        steps: np.ndarray,
        epochs: np.ndarray,
        to_host: Callable[[Sequence[Any]], np.ndarray],
    ) -> np.ndarray:
        """Return the losses of steps, int64 (n,), in epochs, (n,), out of the calls heard."""
        calls, self._calls = self._calls, []
        numbers, self._numbers = self._numbers, []
        losses = np.full(len(steps), np.nan, np.float32)
        if calls:
            rows = to_host(list(map(as_float32, numbers))).astype(np.float64).reshape(-1, 3)
            for call, row in zip(calls, rows, strict=True):
                covered = call.covers(steps)
                losses[covered] = self._since_last(float(epochs[covered].max(initial=0)), *row)
        return losses

    def of_rows(self, epochs: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Return the losses of rows with sum and count of the epoch so far: float32 (n, 2)."""
        rows = [(total, count) for total, count in sums.astype(np.float64)]
        means = [total / count if count else np.nan for total, count in rows]
        losses = [
            self._since_last(float(epoch), mean, *row)
            for epoch, mean, row in zip(epochs, means, rows, strict=True)
        ]
        return np.array(losses, np.float32)

    def _since_last(self, epoch: float, mean: float, total: float, count: float) -> float:
        """Return the mean since the last call, of the mean total / count over the epoch so far."""
        first = self._total, self._count
        # A new epoch, or nothing to go on from. Loops of one's own may not tell their epochs.
        if epoch != self._epoch or count < first[1] or not np.isfinite(first[0]):
            first = 0.0, 0.0
        self._total, self._count, self._epoch = total, count, epoch
        is_kept = np.isclose(total, mean * count, rtol=1e-3) and count > first[1]
        return (total - first[0]) / (count - first[1]) if is_kept else mean


def _as_number(loss: Any) -> Any:
    """Return a loss as an array of shape (); None if it is not one number."""
    if isinstance(loss, Real):
        return np.array(loss, np.float32)
    if not hasattr(loss, "dtype") or math.prod(loss.shape) != 1:
        return None
    return ops.reshape(loss, ()) if len(loss.shape) else loss
