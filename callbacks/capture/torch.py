"""Capture on the PyTorch backend: training is eager, so rows are simply kept."""

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from keras import ops

from keras_initkit.callbacks.capture.backend import NOTHING_STORED, Arrays, Storage, Stored
from keras_initkit.callbacks.capture.batches import BATCH_SIZE
from keras_initkit.callbacks.capture.model_parts import Target
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.measures.gradients import Measured
from keras_initkit.callbacks.measures.torch import (
    copy_together,
    measure_on_cpu,
    measure_together,
    subtract_together,
)


class TorchArrays(Arrays):
    """Operations on tensors on a CPU. See `backend.Arrays`."""

    def __init__(self) -> None:
        super().__init__(measure_on_cpu)
        self._places: dict[tuple[Any, ...], Any] = {}

    def weights(self, variables: Sequence[Any], keep: bool = False) -> list[Any]:
        """Return the values of weights; to keep them copies: updates write into the tensors."""
        values = [variable.value for variable in variables]
        return [value.clone() for value in values] if keep else values

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


class CudaArrays(TorchArrays):
    """Operations on tensors on a GPU, where their number is what costs time.

    Each takes many tensors as they are: a stack is a list of them, of any shapes.
    """

    small = 0

    def weights(self, variables: Sequence[Any], keep: bool = False) -> list[Any]:
        """Return the values of weights; to keep them copies: updates write into the tensors."""
        values = super().weights(variables)
        return copy_together(values) if keep else values

    def stack(self, tensors: Sequence[Any]) -> Any:
        """Return the tensors."""
        return tensors

    def measure(self, stacks: Sequence[Any], wanted: Collection[str]) -> Measured:
        """Measure each tensor of all stacks, as `gradient_statistics` does."""
        return measure_together(stacks, wanted)

    def subtract(self, stacks: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        """Return the differences of two lists of stacks."""
        return [subtract_together(list(itertools.chain(*stacks)), list(itertools.chain(*others)))]


class TorchStorage(Storage):
    """A list of rows, each with its step. See `backend.Storage`."""

    def __init__(self, target: Target) -> None:
        super().__init__(target, CudaArrays() if torch.cuda.is_available() else TorchArrays())
        # A compiled step would break apart there, and be compiled otherwise.
        self.hears_batches = not target.model.jit_compile
        self._rows: list[tuple[dict[int, Any], Any, Any]] = []
        self._batch: Any = None
        self._call: Call | None = None  # where several optimizers make a record: until one has

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._call = call

    def store(self, optimizer: int, row: Any, step: Any) -> None:
        """Keep the row of an update."""
        batch, self._batch = self._batch, None
        if not self._target.several:
            self._rows.append(({optimizer: row}, ops.convert_to_tensor(step).clone(), batch))
            return
        if self._call is not None:
            self._rows.append(({}, self._call.last_step, batch))
            self._call = None
        self._rows[-1][0][optimizer] = row

    def store_batch(self, numbers: Any) -> None:
        """Keep the numbers of the batch of the update to come."""
        self._batch = numbers

    def take(self) -> Stored:
        """Return what was stored since the last call."""
        taken, self._rows = self._rows, []
        if not taken:
            return NOTHING_STORED
        stacked = torch.stack([torch.as_tensor(step) for _, step, _ in taken])
        steps = stacked.cpu().numpy().astype(np.int64)
        batches = np.full((len(taken), BATCH_SIZE), np.nan, np.float32)
        heard = [i for i, (_, _, batch) in enumerate(taken) if batch is not None]
        if heard:
            batches[heard] = torch.stack([taken[i][2] for i in heard]).cpu().numpy()
        tables = {}
        for optimizer, layout in self._layouts.items():
            tables[optimizer] = table = np.full((len(taken), layout.size), np.nan, np.float32)
            made = [i for i, (rows, _, _) in enumerate(taken) if optimizer in rows]
            if made:
                table[made] = torch.stack([taken[i][0][optimizer] for i in made]).cpu().numpy()
        return Stored(steps, tables, batches)

    def untraced(self, function: Callable[..., None]) -> Callable[..., None]:
        """Keep a function of the step out of compiled code, and of differentiation."""
        plain = torch.no_grad()(function)
        outside = torch.compiler.disable(plain)
        return lambda *args: (outside if torch.compiler.is_compiling() else plain)(*args)
