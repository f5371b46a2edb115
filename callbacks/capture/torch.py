"""Capture on the PyTorch backend: training is eager, so rows are simply kept."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from keras import ops

from keras_initkit.callbacks.capture.backend import Arrays, Storage
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.measures.torch import TORCH


class TorchArrays(Arrays):
    """Operations on tensors, where they are. See `backend.Arrays`."""

    def __init__(self) -> None:
        super().__init__(TORCH)
        self._places: dict[tuple[Any, ...], Any] = {}

    def weight(self, variable: Any, keep: bool = False) -> Any:
        """Return the value of a weight; to keep it a copy: updates write into the tensor itself."""
        value = variable.value.detach()
        return value.clone() if keep else value

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
    """A list of rows, each with its step. See `backend.Storage`."""

    def __init__(self, target: Target) -> None:
        super().__init__(target, TorchArrays())
        self._rows: list[tuple[Any, Any]] = []
        self._call: Call | None = None  # where several optimizers make a row: until the first has

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._call = call

    def store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        """Keep the row of an update."""
        if mine is None:
            self._rows.append((row, ops.convert_to_tensor(step).clone()))
        elif self._call is not None:
            self._rows.append((row, self._call.last_step))
            self._call = None
        else:
            former, number = self._rows[-1]
            self._rows[-1] = (ops.where(ops.convert_to_tensor(mine), row, former), number)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return steps and rows stored since the last call."""
        rows, self._rows = self._rows, []
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, self._row.size), np.float32)
        steps = torch.stack([torch.as_tensor(step) for _, step in rows]).cpu().numpy()
        return steps.astype(np.int64), torch.stack([row for row, _ in rows]).cpu().numpy()

    def untraced(self, function: Callable[..., None]) -> Callable[..., None]:
        """Keep a function of the step out of compiled code."""
        outside = torch.compiler.disable(function)
        return lambda *args: (outside if torch.compiler.is_compiling() else function)(*args)
