"""The loss of recorded steps, from Keras's metric of it."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.measures.gradients import as_float32


def loss_sums(model: Any) -> tuple[Any, Any] | None:
    """Return the variables (total, count) of a model's loss metric, if it has one."""
    for metric in model.metrics:
        if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
            return metric.total, metric.count
    return None


class Losses:
    """Losses of recorded calls, out of the results of the training function.

    Args:
        sums: Variables (total, count) of the model's loss metric, if it has one.
    """

    def __init__(self, sums: tuple[Any, Any] | None) -> None:
        self._sums = sums
        self._calls: list[Call] = []
        self._numbers: list[Any] = []
        self._since_last = LossSinceLast()

    def hear(self, call: Call, logs: Any, metric: Callable[[Any], Any]) -> None:
        """Keep the loss of a call, on the device.

        Args:
            call: The call.
            logs: Its result: means over the epoch up to now.
            metric: Returns the value of a metric's variable now.
        """
        loss = logs.get("loss") if isinstance(logs, dict) else None
        if loss is not None:
            loss = loss if hasattr(loss, "dtype") else np.float32(loss)
            unknown = np.float32("nan")
            self._numbers += [loss, *(map(metric, self._sums) if self._sums else [unknown] * 2)]
            self._calls.append(call)

    def of_calls(
        self, steps: np.ndarray, to_host: Callable[[Sequence[Any]], np.ndarray]
    ) -> np.ndarray:
        """Return the mean loss since the record before: float32 (n,), NaN where it is unknown.

        Args:
            steps: int64 array (n,).
            to_host: Moves arrays of one shape to the host, stacked.
        """
        calls, self._calls = self._calls, []
        numbers, self._numbers = self._numbers, []
        losses = np.full(len(steps), np.nan, np.float32)
        if calls:
            rows = to_host(list(map(as_float32, numbers))).astype(np.float64).reshape(-1, 3)
            for call, row in zip(calls, rows, strict=True):
                losses[call.covers(steps)] = self._since_last(*row)
        return losses

    def of_rows(self, sums: np.ndarray) -> np.ndarray:
        """Return the mean loss since the record before: float32 (n,).

        Args:
            sums: float32 array (n, 2): sum and count of the losses of the epoch so far.
        """
        losses = np.full(len(sums), np.nan, np.float32)
        for i, (total, count) in enumerate(sums.astype(np.float64)):
            losses[i] = self._since_last(total / count if count else np.nan, total, count)
        return losses


class LossSinceLast:
    """Turns means over the epoch up to now into means since the last call."""

    def __init__(self) -> None:
        self._total = self._count = 0.0

    def __call__(self, mean: float, total: float, count: float) -> float:
        """Return the mean since the last call.

        Args:
            mean: The logged mean.
            total: Its numerator.
            count: Its denominator.
        """
        first = self._total, self._count
        if count < first[1] or not np.isfinite(first[0]):  # a new epoch, or nothing to go on from
            first = 0.0, 0.0
        self._total, self._count = total, count
        is_kept = np.isclose(total, mean * count, rtol=1e-3) and count > first[1]
        return (total - first[0]) / (count - first[1]) if is_kept else mean
