"""Listening to an optimizer while it updates a model.

Keras internals, methods of `keras.optimizers.Optimizer`, each called once an update:

- `_clip_gradients(grads)`: an update begins; the weights are as yet untouched, the gradients
  unscaled and accumulated;
- `_all_reduce_sum_gradients(grads_and_vars)`, on TensorFlow alone: is given the clipped
  gradients of a replica and returns the applied ones;
- `_backend_update_step(grads, variables, learning_rate)`: is given the clipped gradients, and
  returns when the update is done.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from keras_initkit.callbacks.capture.measure import Gradients, Measured
from keras_initkit.callbacks.capture.recorded_step import replaced_methods


class Recorder(Protocol):
    """Receiver of an update: its methods are called in this order."""

    def begin(self) -> list[Any]:
        """Return values of the weights before the update."""

    def measure(self, leaf: int, gradients: Gradients, variables: Sequence[Any]) -> Measured:
        """Measure the gradients."""

    def finish(self, leaf: int, before: list[Any], measured: Measured, learning_rate: Any) -> None:
        """Finish an update."""


class _Begun(NamedTuple):
    """An unfinished update."""

    given: Sequence[Any]
    before: list[Any]
    measured: Measured


class Listener:
    """Hears the updates of one optimizer.

    Args:
        leaf: Number of the optimizer.
        optimizer: The optimizer.
        recorder: The receiver.
        attempt: Calls a function with arguments, and keeps its exceptions from the training.
    """

    def __init__(
        self, leaf: int, optimizer: Any, recorder: Recorder, attempt: Callable[..., None]
    ) -> None:
        self._leaf = leaf
        self._optimizer = optimizer
        self._recorder = recorder
        self._attempt = attempt
        self._begun: dict[int, _Begun] = {}

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Hear the updates traced or run inside the context."""
        attempt, optimizer = self._attempt, self._optimizer
        clip, update = optimizer._clip_gradients, optimizer._backend_update_step
        reduce = getattr(optimizer, "_all_reduce_sum_gradients", None)

        def clip_gradients(grads: Any) -> Any:
            attempt(self._begin, grads)
            return clip(grads)

        def all_reduce_sum_gradients(grads_and_vars: Any) -> Any:
            assert reduce is not None
            reduced = reduce(grads_and_vars)
            clipped, _ = zip(*grads_and_vars, strict=True)
            attempt(self._measure, clipped, *zip(*reduced, strict=True))
            return reduced

        def backend_update_step(grads: Any, variables: Any, learning_rate: Any) -> Any:
            if reduce is None:
                attempt(self._measure, grads, grads, variables)
            result = update(grads, variables, learning_rate)
            attempt(self._finish, learning_rate)
            return result

        methods: dict[str, Callable[..., Any]] = {
            "_clip_gradients": clip_gradients,
            "_backend_update_step": backend_update_step,
        }
        if reduce is not None:
            methods["_all_reduce_sum_gradients"] = all_reduce_sum_gradients
        return replaced_methods(optimizer, **methods)

    # Replicas on one machine are threads.

    def _begin(self, grads: Sequence[Any]) -> None:
        before = self._recorder.begin()
        self._begun[threading.get_ident()] = _Begun(list(grads), before, Measured())

    def _measure(self, clipped: Any, applied: Any, variables: Sequence[Any]) -> None:
        begun = self._begun[threading.get_ident()]
        gradients = Gradients(begun.given, clipped, applied)
        measured = self._recorder.measure(self._leaf, gradients, variables)
        self._begun[threading.get_ident()] = begun._replace(measured=measured)

    def _finish(self, learning_rate: Any) -> None:
        begun = self._begun.pop(threading.get_ident())
        self._recorder.finish(self._leaf, begun.before, begun.measured, learning_rate)
