"""Capture on the PyTorch backend: training is eager, so rows are simply kept as tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from keras import ops

from keras_initkit.callbacks.capture.listener import Capture, Watch
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.gradient_statistics import Reductions, each_stack


class _EagerReductions(Reductions):
    """What PyTorch has in one operation. Its `vector_norm` is too inexact for large gradients."""

    def largest(self, stacks: Sequence[Any]) -> Any:
        """Largest magnitudes."""
        return each_stack(_largest, stacks)

    def nonzeros(self, stacks: Sequence[Any]) -> Any:
        """Numbers of elements that are not zero."""
        counts = each_stack(lambda stack: torch.count_nonzero(stack, dim=1), stacks)
        return counts.to(torch.float32)


def _largest(stack: Any) -> Any:
    least, most = torch.aminmax(stack, dim=1)
    return torch.maximum(-least, most)


class TorchCapture(Capture):
    """Listens to the optimizers of a model. See `listener.Capture`."""

    _reductions: Reductions = _EagerReductions()

    def __init__(self, model: Any, watch: Watch) -> None:
        self._rows: list[tuple[Any, Any]] = []
        super().__init__(model, watch)

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._step = call.last_step
        self._is_new = True

    @torch.compiler.disable
    def _try(self, action: Callable[..., None], *args: Any) -> None:
        # A compiled step is left around it: what it does in Python is not for a compiler.
        super()._try(action, *args)

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        rows, self._rows = self._rows, []
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, self._row.size), np.float32)
        steps = torch.stack([torch.as_tensor(step) for _, step in rows]).cpu().numpy()
        return steps.astype(np.int64), torch.stack([row for row, _ in rows]).cpu().numpy()

    def _value(self, variable: Any) -> Any:
        # The update writes into the tensor itself.
        return variable.value.detach().clone()

    def _store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        if mine is None:
            self._rows.append((row, ops.convert_to_tensor(step).clone()))
        elif self._is_new:
            self._is_new = False
            self._rows.append((row, self._step))
        else:
            former, _ = self._rows[-1]
            heard = torch.from_numpy(mine).to(row.device)
            self._rows[-1] = (torch.where(heard, row, former), self._step)
