"""Capture on the PyTorch backend: training is eager, so rows are simply kept.

Eager operations cost more than what they compute here. So of a model on the CPU all is measured
with NumPy, on the tensors' own memory; elsewhere with PyTorch, where the tensors are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from keras import ops

from keras_initkit.callbacks.capture.listener import Capture, Watch
from keras_initkit.callbacks.capture.recorded_step import Call
from keras_initkit.callbacks.measures.reductions import EagerReductions, HostReductions, each_stack


class _DeviceReductions(EagerReductions):
    """One operation each, without a copy."""

    def squares(self, stacks: Sequence[Any]) -> Any:
        """Sums of squares."""
        return self._norms(2, stacks).square_()

    def largest(self, stacks: Sequence[Any]) -> Any:
        """Largest magnitudes."""
        return self._norms(float("inf"), stacks)

    def magnitudes(self, stacks: Sequence[Any]) -> Any:
        """Sums of magnitudes."""
        return self._norms(1, stacks)

    def nonzeros(self, stacks: Sequence[Any]) -> Any:
        """Numbers of elements that are not zero."""
        return self._norms(0, stacks)

    def _norms(self, order: float, stacks: Sequence[Any]) -> Any:
        return each_stack(lambda x: torch.linalg.vector_norm(x, order, dim=1), stacks)


class TorchCapture(Capture):
    """Listens to the optimizers of a model. See `listener.Capture`."""

    _on_host = True

    def __init__(self, model: Any, watch: Watch) -> None:
        self._rows: list[tuple[Any, Any]] = []
        self._places: dict[tuple[Any, ...], Any] = {}
        super().__init__(model, watch)

    def begin_call(self, call: Call) -> None:
        """Prepare for a call of the instrumented training function."""
        self._step = call.last_step
        self._is_new = True

    def _try(self, action: Callable[..., None], *args: Any) -> None:
        # A compiled step is left around it: what it does in Python is not for a compiler.
        if torch.compiler.is_compiling():
            self._try_outside(action, *args)
        else:
            self._try_eagerly(action, *args)

    @torch.compiler.disable
    def _try_outside(self, action: Callable[..., None], *args: Any) -> None:
        self._try_eagerly(action, *args)

    def _try_eagerly(self, action: Callable[..., None], *args: Any) -> None:
        with np.errstate(all="ignore"):
            super()._try(action, *args)

    def _make_buffer(self) -> None:
        self._on_host = all(map(_is_on_host, self.variables))
        self._reductions = HostReductions() if self._on_host else _DeviceReductions()

    def _take(self) -> tuple[np.ndarray, np.ndarray]:
        rows, self._rows = self._rows, []
        if not rows:
            return np.zeros(0, np.int64), np.zeros((0, self._row.size), np.float32)
        steps = torch.stack([torch.as_tensor(step) for _, step in rows]).cpu().numpy()
        arrays = [row for row, _ in rows]
        table = np.stack(arrays) if self._on_host else torch.stack(arrays).cpu().numpy()
        return steps.astype(np.int64), table

    def _array(self, gradient: Any) -> Any:
        return _host_array(gradient) if self._on_host else gradient

    def _numbers(self, scalars: Sequence[Any]) -> Any:
        if self._on_host:
            return np.array([float(getattr(x, "value", x)) for x in scalars], np.float32)
        return super()._numbers(scalars)

    def _value(self, variable: Any) -> Any:
        return variable.value.detach()

    def _kept(self, variable: Any) -> Any:
        # The update writes into the tensor itself.
        return variable.value.detach().clone()

    def _stack(self, tensors: Sequence[Any]) -> Any:
        whole = tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))
        if self._on_host:
            # In the order that it has in memory: no statistic depends on it.
            whole = _host_array(whole).ravel(order="K")
        return whole.reshape(len(tensors), -1)

    def _elements(self, array: Any, places: np.ndarray) -> Any:
        if self._on_host:
            return array.reshape(-1)[places]
        key = places.tobytes(), array.device
        if key not in self._places:
            self._places[key] = torch.from_numpy(places).to(array.device)
        return array.reshape(-1).index_select(0, self._places[key])

    def _store(self, row: Any, mine: np.ndarray | None, step: Any) -> None:
        if mine is None:
            self._rows.append((row, ops.convert_to_tensor(step).clone()))
        elif self._is_new:
            self._is_new = False
            self._rows.append((row, self._step))
        else:
            former, _ = self._rows[-1]
            heard = self._ops.convert_to_tensor(mine)
            self._rows[-1] = (self._ops.where(heard, row, former), self._step)


def _is_on_host(variable: Any) -> bool:
    return variable.value.device.type == "cpu"


def _host_array(tensor: Any) -> np.ndarray:
    """The memory of a float32 tensor on the CPU, or its values in float32."""
    tensor = tensor.detach()
    return (tensor if tensor.dtype is torch.float32 else tensor.float()).numpy()
