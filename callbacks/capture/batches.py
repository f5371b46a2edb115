"""The batch of a recorded step: hearing the loss computed, and measuring what it is computed of."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.replacing import replaced_methods
from keras_initkit.callbacks.capture.own_loss import LossCall, OwnLoss, hearing_losses
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
    """Measures the batch of a step where the model, or a step of its own, computes its loss of it.

    Attributes:
        plan: The order of the numbers of the batch heard last.
        own_loss: The loss of Keras's that the user's code computes of it; `None` if it is not
            known, or if there are several.
    """

    def __init__(
        self, model: Any, store: Callable[[Any], None], measure_port: Callable[[Any], Any]
    ) -> None:
        self.plan = BatchPlan()
        self.own_loss: OwnLoss | None = None
        self._model = model
        self._store = store
        self._measure_port = measure_port
        self._targets: dict[Port, TargetStatistics] = {}
        self._called: tuple[Any, list[Any]] = (
            None,
            [],
        )  # inputs and outputs of the model's last call
        self._losses_heard = 0.0  # in a step of its own; infinitely many where none is to be heard

    @contextlib.contextmanager
    def listening(self, attempt: Callable[..., None], in_own_step: bool = False) -> Iterator[None]:
        """Hear the losses computed in steps that are traced or run inside the context.

        `attempt` calls a function with arguments, and keeps its exceptions from the training.
        With `in_own_step`, also losses that a `train_step` of the model's own computes are heard.
        """
        model = self._model
        if not isinstance(model, keras.Model):
            yield
            return
        methods = {"compute_loss": self._hear_model(model.compute_loss, attempt)}
        if in_own_step:
            methods["train_step"] = self._hear_step(model.train_step, attempt)
            methods["call"] = self._hear_call(model.call)
        with replaced_methods(model, **methods):
            yield

    def _hear_model(
        self, compute: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `compute_loss` of the model, with its batch heard."""

        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            calls: list[LossCall] = []
            with hearing_losses(calls.append):
                loss = compute(x, y, y_pred, *args, **kwargs)
            weight = args[0] if args else kwargs.get("sample_weight")
            self._losses_heard = math.inf
            attempt(self._name_loss, loss, calls, y_pred)
            inputs = self._called[0] if x is None else x
            attempt(self._hear, loss, self._model.losses, inputs, y, y_pred, weight)
            return loss

        return compute_loss

    def _name_loss(self, loss: Any, calls: Sequence[LossCall], y_pred: Any) -> None:
        """Keep the only loss that a `compute_loss` of the model's own is made of."""
        self.own_loss = None
        is_own = type(self._model).compute_loss is not keras.Model.compute_loss
        if is_own and len(calls) == 1 and calls[0].value is loss and calls[0].y_pred is y_pred:
            self.own_loss = OwnLoss(calls[0].loss, 0, tuple(y_pred.shape))

    def _hear_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` of the model, with inputs and outputs kept."""

        @functools.wraps(call)
        def heard_call(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            self._called = next(iter(args), None), keras.tree.flatten(outputs)
            return outputs

        return heard_call

    def _hear_step(
        self, train: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `train_step` of the model, with the batch of its only loss heard."""

        def train_step(*args: Any, **kwargs: Any) -> Any:
            self._losses_heard = 0 if math.isfinite(self._losses_heard) else math.inf
            with hearing_losses(functools.partial(attempt, self._hear_own)):
                try:
                    return train(*args, **kwargs)
                finally:
                    self._called = None, []

        return train_step

    def _hear_own(self, call: LossCall) -> None:
        """Measure and store the batch of a loss; of several in one step none is known any more."""
        if math.isinf(self._losses_heard):
            return
        self._losses_heard += 1
        try:
            if self._losses_heard > 1:
                raise ValueError("A step computes several losses.")
            inputs, outputs = self._called
            place = next((i for i, output in enumerate(outputs) if output is call.y_pred), -1)
            x = None if place < 0 else inputs
            self.own_loss = OwnLoss(call.loss, place, tuple(call.y_pred.shape))
            self._hear(ops.mean(call.value), (), x, call.y_true, call.y_pred, call.sample_weight)
        except Exception:  # of tensors that no model is given: training is measured without them
            self._losses_heard, self.own_loss, self.plan = math.inf, None, BatchPlan()

    def _hear(self, loss: Any, penalties: Sequence[Any], *structures: Any) -> None:
        """Measure and store a batch."""
        tensors = {
            role: [
                (port, ops.stop_gradient(ops.convert_to_tensor(tensor)))  # it may be an array
                for port, tensor in list_ports(role, structure)
            ]
            for role, structure in zip(ROLES, structures, strict=True)
        }
        penalty = sum(map(_as_number, penalties), ops.zeros((1,), "float32"))
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
