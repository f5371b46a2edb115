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
# Two ways to compute one loss differ by less.
_SAME_LOSS = 1e-3


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
        is_whole: Whether the loss heard is all that the first step reports; `None` before it.
    """

    def __init__(
        self, model: Any, store: Callable[[Any], None], measure_port: Callable[[Any], Any]
    ) -> None:
        self.plan = BatchPlan()
        self.own_loss: OwnLoss | None = None
        self.is_whole: bool | None = None
        self._model = model
        self._store = store
        self._measure_port = measure_port
        self._targets: dict[Port, TargetStatistics] = {}
        # Of a step of its own: the data, and inputs and outputs of the model's last call in it.
        self._data: Any = None
        self._called: tuple[Any, Any] = None, None
        self._losses_heard = 0.0  # in it; infinitely many where none is to be heard

    @contextlib.contextmanager
    def listening(self, attempt: Callable[..., None], in_own_step: bool = False) -> Iterator[None]:
        """Hear the losses computed in steps that are traced or run inside the context.

        `attempt` calls a function with arguments, and keeps its exceptions from the training.
        With `in_own_step`, also what a `train_step` of the model's own computes is heard.
        """
        model = self._model
        if not isinstance(model, keras.Model):
            yield
            return
        with contextlib.ExitStack() as stack:
            compute_loss = self._hear_model(model.compute_loss, attempt)
            stack.enter_context(replaced_methods(model, compute_loss=compute_loss))
            if in_own_step:
                step = self._hear_step(model.train_step, attempt)
                call = self._hear_call(model.call)
                stack.enter_context(replaced_methods(model, train_step=step, call=call))
                if keras.backend.backend() != "jax":  # there it is known in a function of its own
                    apply = self._hear_update(model.optimizer.apply, attempt)
                    stack.enter_context(replaced_methods(model.optimizer, apply=apply))
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
            inputs = self._called[0] if x is None else x
            attempt(self._hear_computed, loss, calls, inputs, y, y_pred, weight)
            return loss

        return compute_loss

    def _hear_computed(
        self, loss: Any, calls: Sequence[LossCall], x: Any, y: Any, y_pred: Any, weight: Any
    ) -> None:
        """Measure and store the batch of `compute_loss`; in one of its own, of its only loss."""
        self._losses_heard, self.own_loss = math.inf, None
        is_own = type(self._model).compute_loss is not keras.Model.compute_loss
        if is_own and len(calls) == 1:
            (call,) = calls
            self.own_loss = OwnLoss(
                call.loss, 0 if call.y_pred is y_pred else -1, tuple(call.y_pred.shape)
            )
            y, y_pred, weight = call.y_true, call.y_pred, call.sample_weight
        self._hear(loss, self._model.losses, x, y, y_pred, weight)

    def _hear_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` of the model, with inputs and outputs kept."""

        @functools.wraps(call)
        def heard_call(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            self._called = next(iter(args), None), outputs
            return outputs

        return heard_call

    def _hear_step(
        self, train: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `train_step` of the model, with the batch of its only loss heard."""

        def train_step(*args: Any) -> Any:
            self._losses_heard = 0 if math.isfinite(self._losses_heard) else math.inf
            self._data = args[-1]
            with hearing_losses(functools.partial(attempt, self._hear_own)):
                try:
                    return train(*args)
                finally:
                    self._data, self._called = None, (None, None)

        return train_step

    def _hear_update(
        self, apply: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `apply` of the optimizer, before which the batch of an unknown loss is heard."""

        @functools.wraps(apply)
        def heard_apply(*args: Any, **kwargs: Any) -> Any:
            if self._losses_heard == 0 and self._called[1] is not None:
                attempt(self._hear_unknown)
            return apply(*args, **kwargs)

        return heard_apply

    def _hear_own(self, call: LossCall) -> None:
        """Measure and store the batch of a loss; of several in one step none is known any more."""
        if math.isinf(self._losses_heard):
            return
        self._losses_heard += 1
        if self._losses_heard > 1:
            self._stop_hearing()
            return
        inputs, outputs = self._called
        outputs = keras.tree.flatten(outputs)
        place = next((i for i, output in enumerate(outputs) if output is call.y_pred), -1)
        x = None if place < 0 else inputs
        with self._stopping():
            self.own_loss = OwnLoss(call.loss, place, tuple(call.y_pred.shape))
            self._hear(ops.mean(call.value), (), x, call.y_true, call.y_pred, call.sample_weight)

    def _hear_unknown(self) -> None:
        """Measure and store the batch of a step, and what the model made of it."""
        with self._stopping():
            _, y, weight = keras.utils.unpack_x_y_sample_weight(self._data)
            inputs, outputs = self._called
            self._hear(math.nan, (), inputs, y, outputs, weight)

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Stop hearing steps with tensors that only they can use; training is still measured."""
        try:
            yield
        except Exception:
            self._stop_hearing()

    def _stop_hearing(self) -> None:
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

    def compare(self, reported: float, heard: float) -> None:
        """Compare the loss that a step reports with the one heard, if it is the first."""
        if self.is_whole is None:
            self.is_whole = bool(np.isclose(reported, heard, rtol=_SAME_LOSS))

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
