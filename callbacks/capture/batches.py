"""The batch of a recorded step: hearing the loss computed, and measuring what it is computed of."""

import contextlib
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.replacing import replaced_methods
from keras_initkit.statistics.batch import (
    MEASURED_OF_PORTS,
    ROLES,
    Profile,
    list_ports,
)
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS
from tensorboard_plugin_initkit.record.layout import Port
from tensorboard_plugin_initkit.record.port_statistics import TARGET_STATISTICS, TargetStatistics

# Numbers of a batch on the device. It is fixed: a compiled step carries them before it is traced.
BATCH_SIZE = 2048
_LOSSES = 2


class BatchPlan(NamedTuple):
    """The order of a batch's numbers: losses, statistics of ports, profiles of targets."""

    ports: tuple[Port, ...] = ()
    profiles: tuple[tuple[int, Profile], ...] = ()  # with the positions of the targets


class BatchListener:
    """Measures the batch of a step where the model computes its loss of it.

    Attributes:
        plan: The order of the numbers of the batch heard last.
    """

    def __init__(
        self, model: Any, store: Callable[[Any], None], measure_port: Callable[[Any], Any]
    ) -> None:
        self.plan = BatchPlan()
        self._model = model
        self._store = store
        self._measure_port = measure_port
        self._targets: dict[Port, TargetStatistics] = {}

    def listening(self, attempt: Callable[..., None]) -> contextlib.AbstractContextManager[None]:
        """Hear the losses computed in steps that are traced or run inside the context.

        `attempt` calls a function with arguments, and keeps its exceptions from the training.
        """
        model = self._model
        if not isinstance(model, keras.Model):
            return contextlib.nullcontext()
        compute = model.compute_loss

        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            loss = compute(x, y, y_pred, *args, **kwargs)
            weight = args[0] if args else kwargs.get("sample_weight")
            attempt(self._hear, loss, x, y, y_pred, weight)
            return loss

        return replaced_methods(model, compute_loss=compute_loss)

    def _hear(self, loss: Any, *structures: Any) -> None:
        """Measure and store a batch."""
        tensors = {
            role: [
                (port, ops.stop_gradient(ops.convert_to_tensor(tensor)))  # it may be an array
                for port, tensor in list_ports(role, structure)
            ]
            for role, structure in zip(ROLES, structures, strict=True)
        }
        penalty = sum(map(_as_number, self._model.losses), ops.zeros((1,), "float32"))
        ports, numbers = [], [_as_number(loss), penalty]
        room = BATCH_SIZE - _LOSSES
        for port, tensor in itertools.chain(*tensors.values()):
            if room >= MEASURED_OF_PORTS:
                room -= MEASURED_OF_PORTS
                ports.append(port)
                numbers.append(self._measure_port(tensor))
        profiles = []
        weights = tensors["sample_weight"] if len(tensors["y"]) == 1 else []
        pairs = list(zip(tensors["y"], tensors["y_pred"], strict=False))
        # Where samples have a weight, the targets of those that count are those of the weight.
        of_weights = [(weight, pairs[0]) for _, weight in weights[:1] if len(weight.shape) == 1]
        places = itertools.count(len(tensors["x"]))
        rows = [(next(places), None, *pair) for pair in pairs]
        rows += [(len(ports) - len(weights), weight, *pair) for weight, pair in of_weights]
        for position, weight, (_, target), (_, prediction) in rows:
            profile = Profile.of(tuple(target.shape), tuple(prediction.shape))
            if profile is not None and profile.length <= room and position < len(ports):
                room -= profile.length
                profiles.append((position, profile))
                numbers.append(profile.measure(target, weight))
        numbers.append(ops.zeros((room,), "float32") * math.nan)
        self.plan = BatchPlan(tuple(ports), tuple(profiles))
        self._store(ops.concatenate(numbers, axis=0))

    def read(self, batches: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Take the numbers of n batches apart: float32 (n, BATCH_SIZE).

        Returns:
            Loss and penalty by name, (n, 1); and the statistics of ports, (n, ports).
        """
        count = len(self.plan.ports)
        end = _LOSSES + count * MEASURED_OF_PORTS
        table = batches[:, _LOSSES:end].reshape(len(batches), count, MEASURED_OF_PORTS)
        names = PORT_STATISTICS[:MEASURED_OF_PORTS]
        values = {name: table[:, :, i] for i, name in enumerate(names)}
        running = np.full((len(batches), count, len(TARGET_STATISTICS)), np.nan, np.float32)
        for port, profile in self.plan.profiles:
            targets = self._targets.setdefault(self.plan.ports[port], TargetStatistics())
            for row, numbers in enumerate(batches[:, end : end + profile.length]):
                if not np.isnan(numbers).any():
                    running[row, port] = targets.add(profile.read(numbers))
            end += profile.length
        for i, name in enumerate(TARGET_STATISTICS):
            values[name] = running[:, :, i]
        return {"batch_loss": batches[:, :1], "penalty": batches[:, 1:2]}, values


def _as_number(loss: Any) -> Any:
    """Return a loss as a number to store: float32 (1,)."""
    total = ops.sum(ops.cast(ops.stop_gradient(ops.convert_to_tensor(loss)), "float32"))
    return ops.reshape(total, (1,))
