"""Capture on the PyTorch backend: training is eager, so rows are simply kept as tensors."""

from typing import Any

import numpy as np
import torch
from keras import ops

from keras_initkit.callbacks.capture.listener import OptimizerListener
from keras_initkit.callbacks.capture.recorded_step import Recorded
from tensorboard_plugin_initkit.schema import RECORDED


class TorchCapture(OptimizerListener):
    """Listens to the optimizer of a model. See `recorded_step.Capture`."""

    def __init__(self, model: Any) -> None:
        self._rows: list[tuple[Any, Any]] = []
        super().__init__(model)

    def read(self) -> Recorded:
        """Take the updates heard since the last read from the device."""
        rows, self._rows = self._rows, []
        steps = np.array([int(step) for _, step in rows], np.int64)
        shape = (len(rows), len(self.variables), len(RECORDED))
        table = np.array([row.cpu().numpy() for row, _ in rows], np.float32).reshape(shape)
        return Recorded(steps, {name: table[:, :, i] for i, name in enumerate(RECORDED)})

    def _value(self, variable: Any) -> Any:
        # The update writes into the tensor itself.
        return variable.value.detach().clone()

    def _keep(self, columns: list[int], measured: Any) -> None:
        device = None if measured is None else measured.device
        rows = torch.full((len(self.variables), len(RECORDED)), torch.nan, device=device)
        if columns:
            rows[columns] = measured
        step = ops.convert_to_tensor(self._optimizer.iterations)
        self._rows.append((rows, step.clone()))
