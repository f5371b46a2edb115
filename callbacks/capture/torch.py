"""Capture on the PyTorch backend: training is eager, so rows are simply kept."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from keras import ops

from keras_initkit.callbacks.capture.backend import Arrays, Storage
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.capture.row import RowLayout
from keras_initkit.callbacks.measures.torch import TorchReductions


def open_backend(target: Target) -> tuple[Arrays, Storage]:
    """Make the operations and the storage for a model."""
    return TorchArrays(), TorchStorage(target)


class TorchArrays(Arrays):
    """Operations on tensors, where they are. See `backend.Arrays`."""

    def __init__(self) -> None:
        super().__init__(TorchReductions())
        self._places: dict[tuple[Any, ...], Any] = {}

    def weight(self, variable: Any) -> Any:
        """Return the value of a weight now."""
        return variable.value.detach()

    def kept_weight(self, variable: Any) -> Any:
        """Return a copy of a weight: the update writes into the tensor itself."""
        return variable.value.detach().clone()

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Flatten k tensors of one size into an array (k, size)."""
        whole = tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))
        return whole.reshape(len(tensors), -1)

    def elements(self, array: Any, places: np.ndarray) -> Any:
        """Take elements out of an array, flattened: (places,)."""
        key = places.tobytes(), array.device
        if key not in self._places:
            self._places[key] = torch.from_numpy(places).to(array.device)
        return array.reshape(-1).index_select(0, self._places[key])


class TorchStorage(Storage):
    """A list of rows. See `backend.Storage`."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._rows: list[tuple[Any, Any]] = []
        self._row: RowLayout | None = None
        self._step = 0
        self._is_new = True

    def allocate(self, row: RowLayout, capacity: int) -> None:
        """Remember the layout of rows."""
        self._row = row

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._step = call.last_step
        self._is_new = True

    def store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        """Keep the row of an update."""
        if mine is None:
            self._rows.append((row, ops.convert_to_tensor(step).clone()))
        elif self._is_new:
            self._is_new = False
            self._rows.append((row, self._step))
        else:
            former, _ = self._rows[-1]
            heard = ops.convert_to_tensor(mine)
            self._rows[-1] = (ops.where(heard, row, former), self._step)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return steps and rows stored since the last call."""
        assert self._row is not None
        rows, self._rows = self._rows, []
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, self._row.size), np.float32)
        steps = torch.stack([torch.as_tensor(step) for _, step in rows]).cpu().numpy()
        table = torch.stack([row for row, _ in rows]).cpu().numpy()
        return steps.astype(np.int64), table

    def untraced(self, function: Callable[..., None]) -> Callable[..., None]:
        """Keep a function of the step out of compiled code."""
        outside = torch.compiler.disable(function)

        def call(*args: Any) -> None:
            (outside if torch.compiler.is_compiling() else function)(*args)

        return call
