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
from keras_initkit.callbacks.capture.own_loss import UNKNOWN, LossCall, OwnLoss, hearing_losses
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
# Two ways to compute one loss differ by less, also if one is taken from running sums.
_SAME_LOSS = 0.01


class BatchPlan(NamedTuple):
    """The order of a batch's numbers: losses, statistics of ports, profiles of targets."""

    ports: tuple[Port, ...] = ()
    profiles: tuple[tuple[int, Profile], ...] = ()  # with the positions of the targets

    @property
    def order(self) -> tuple[Any, ...]:
        """Return all that must stay the same, for the numbers of steps to be taken apart."""
        return [(port.role, port.name) for port in self.ports], self.profiles


class _Step(NamedTuple):
    """A step of the model's own: its data, and the arguments and results of the model's call."""

    is_begun: bool = False
    data: Any = None
    trace: Any = None
    inputs: Any = None
    outputs: Any = None
    is_computed: bool = False  # whether its loss is, by `compute_loss`
    is_heard: bool = False  # whether its batch has been, or is to be, heard there


class BatchListener:
    """Measures the batch of a step where the model, or a step of its own, computes its loss of it.

    Args:
        model: The model.
        store: Keeps the numbers of a batch.
        measure_port: Measures a tensor.
        find_trace: Returns the graph of the operations made now. A function compiled by the user
            has one of its own, in which nothing is measured.

    Attributes:
        plan: The order of the numbers of the batch heard last.
        own_loss: The loss of Keras's that the user's code computes of an output, as long as it is
            all that steps report; `UNKNOWN` for a step of its own with another one; `None` for a
            loss as compiled, or if nothing is heard.
    """

    def __init__(
        self,
        model: Any,
        store: Callable[[Any], None],
        measure_port: Callable[[Any], Any],
        find_trace: Callable[[], Any] = lambda: None,
    ) -> None:
        self.plan = BatchPlan()
        self.own_loss: OwnLoss | None = None
        self._model = model
        self._store = store
        self._measure_port = measure_port
        self._find_trace = find_trace
        self._targets: dict[Port, TargetStatistics] = {}
        self._step = _Step()  # the one of the model's own under way
        self._hears_steps = True  # whether those of its own can be heard
        self._is_known = True  # whether their loss can be

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
                apply = self._hear_update(model.optimizer.apply, attempt)
                stack.enter_context(replaced_methods(model.optimizer, apply=apply))
            yield

    def _hear_model(
        self, compute: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `compute_loss` of the model, with its batch heard."""
        is_own = type(self._model).compute_loss is not keras.Model.compute_loss

        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            calls: list[LossCall] = []
            self._step = self._step._replace(is_computed=True, is_heard=True)
            with hearing_losses(calls.append) if is_own else contextlib.nullcontext():
                loss = compute(x, y, y_pred, *args, **kwargs)
            weight = args[0] if args else kwargs.get("sample_weight")
            attempt(self._hear_computed, calls, loss, x, y, y_pred, weight)
            return loss

        return compute_loss

    def _hear_computed(
        self, calls: Sequence[LossCall], loss: Any, x: Any, y: Any, y_pred: Any, weight: Any
    ) -> None:
        """Measure and store the batch of `compute_loss`."""
        step = self._step
        if step.trace is not None and step.trace is not self._find_trace():
            return
        for call in calls:  # in one of the model's own: it is known if it is the only one
            is_all = call.value is loss and call.y_true is y and call.y_pred is y_pred
            self._name(call, 0 if is_all and len(calls) == 1 else -1)
        self._hear(loss, self._model.losses, step.inputs if x is None else x, y, y_pred, weight)

    def _hear_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` of the model, with inputs and outputs kept while a step is under way."""

        @functools.wraps(call)
        def heard_call(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            if self._step.is_begun:
                self._step = self._step._replace(inputs=next(iter(args), None), outputs=outputs)
            return outputs

        return heard_call

    def _hear_step(
        self, train: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `train_step` of the model, with the batch of its only loss heard."""

        def train_step(*args: Any, **kwargs: Any) -> Any:
            data = next(reversed([*args, *kwargs.values()]), None)
            self._step = _Step(self._hears_steps, data, self._find_trace())
            try:
                with hearing_losses(functools.partial(attempt, self._hear_own)):
                    return train(*args, **kwargs)
            finally:
                self._step = _Step()

        return train_step

    def _hear_update(
        self, apply: Callable[..., Any], attempt: Callable[..., None]
    ) -> Callable[..., Any]:
        """Return `apply` of the optimizer, before which the batch of an unknown loss is heard."""

        @functools.wraps(apply)
        def heard_apply(*args: Any, **kwargs: Any) -> Any:
            step = self._step
            if step.is_begun and not step.is_heard and step.outputs is not None:
                attempt(self._hear_unknown)
            return apply(*args, **kwargs)

        return heard_apply

    def _hear_own(self, call: LossCall) -> None:
        """Measure and store the batch of a loss of an output; of several none is known any more."""
        step = self._step
        if step.is_computed or not step.is_begun:
            return
        outputs = keras.tree.flatten(step.outputs)
        place = next((i for i, output in enumerate(outputs) if output is call.y_pred), -1)
        self._hears_steps &= place >= 0 and not step.is_heard
        self._name(call, place)
        self.own_loss = self.own_loss or UNKNOWN
        self._hear_in_step(call.value, call.y_true, call.y_pred, call.sample_weight)

    def _hear_unknown(self) -> None:
        """Measure and store the batch of a step, and what the model made of it."""
        self.own_loss = UNKNOWN
        y, weight = None, None  # data of a step of one's own may have any form
        with contextlib.suppress(ValueError):
            _, y, weight = keras.utils.unpack_x_y_sample_weight(self._step.data)
        self._hear_in_step(math.nan, y, self._step.outputs, weight)

    def _hear_in_step(self, loss: Any, *structures: Any) -> None:
        """Measure a batch, if all are alike; else no more are, and training is measured without."""
        former, step = self.plan, self._step
        self._step = step._replace(is_heard=True)
        try:
            self._hears_steps &= step.trace is self._find_trace()
            if self._hears_steps:
                self._hear(ops.mean(loss), (), step.inputs, *structures)
                self._hears_steps = not former.ports or former.order == self.plan.order
        except Exception:  # of data that only the user's code understands
            self._hears_steps = False
        if not self._hears_steps:
            self._is_known, self.own_loss = False, None
            self.plan, self._step = BatchPlan(), _Step()

    def _name(self, call: LossCall, place: int) -> None:
        """Keep the only loss that the user's code computes, at its output's place, or forget it."""
        self._is_known &= place >= 0 and hasattr(call.y_pred, "shape")  # it may be a structure
        if self._is_known:
            self.own_loss = OwnLoss(call.loss, place, (None, *call.y_pred.shape[1:]))
        else:
            self.own_loss = None

    def compare(self, reported: np.ndarray, heard: np.ndarray) -> None:
        """Compare the losses that steps report with those heard: float32 (n,), NaN if unknown."""
        if (
            self._is_known
            and self.own_loss is not None
            and not np.allclose(reported, heard, _SAME_LOSS, 0, equal_nan=True)
        ):
            self._is_known, self.own_loss = False, UNKNOWN

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
