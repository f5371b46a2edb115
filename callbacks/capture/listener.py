"""Listening to an optimizer while it updates a model.

Methods of `keras.optimizers.Optimizer`, each called once an update; all but the first internal:

- `apply(grads, trainable_variables)`: is given all that is to be trained, also without a gradient;
- `_clip_gradients(grads)`: an update begins; the weights are as yet untouched, the gradients
  unscaled and accumulated;
- `_all_reduce_sum_gradients(grads_and_vars)`, on TensorFlow alone: is given the clipped
  gradients of a replica and returns the applied ones;
- `_backend_update_step(grads, variables, learning_rate)`: is given the clipped gradients, and
  returns when the update is done.

`MultiOptimizer.build(variables)` chooses its optimizers.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from keras_initkit.anatomy.replacing import replaced_methods
from keras_initkit.callbacks.capture.measure import Update
from keras_initkit.callbacks.capture.model_parts import Leaf, Target
from keras_initkit.callbacks.capture.recorder import UpdateRecorder


@contextlib.contextmanager
def listening(
    target: Target, recorder: UpdateRecorder, attempt: Callable[..., None]
) -> Iterator[None]:
    """Hear the updates of a model's optimizers, traced or run inside the context.

    `attempt` calls a function with arguments, and keeps its exceptions from the training.
    """
    with contextlib.ExitStack() as stack:
        heard: set[int] = set()

        def listen() -> None:
            for leaf in target.leaves:
                if id(leaf.optimizer) not in heard:
                    heard.add(id(leaf.optimizer))
                    stack.enter_context(_listening_to(leaf, recorder, attempt))

        def listening_after(build: Callable[..., None]) -> Callable[..., None]:
            def build_and_listen(variables: Any) -> None:
                build(variables)
                listen()

            return build_and_listen

        for optimizer in target.undecided:
            build = listening_after(optimizer.build)
            stack.enter_context(replaced_methods(optimizer, build=build))
        listen()
        yield


def _listening_to(
    leaf: Leaf, recorder: UpdateRecorder, attempt: Callable[..., None]
) -> contextlib.AbstractContextManager[None]:
    """Hear the updates of one optimizer."""
    optimizer = leaf.optimizer
    apply, clip = optimizer.apply, optimizer._clip_gradients
    update = optimizer._backend_update_step
    reduce = getattr(optimizer, "_all_reduce_sum_gradients", None)
    updates: dict[int, Update] = {}  # replicas on one machine are threads

    def begin(grads: Any) -> None:
        updates[threading.get_ident()] = recorder.begin(leaf, grads)

    def measure(clipped: Any, applied: Any, variables: Any) -> None:
        recorder.measure(updates[threading.get_ident()], clipped, applied, variables)

    def finish(learning_rate: Any) -> None:
        recorder.finish(updates.pop(threading.get_ident()), learning_rate)

    def apply_gradients(grads: Any, trainable_variables: Any = None) -> Any:
        variables = None if trainable_variables is None else list(trainable_variables)
        attempt(recorder.note_given, leaf, variables)
        return apply(grads, variables)

    def clip_gradients(grads: Any) -> Any:
        attempt(begin, grads)
        return clip(grads)

    def all_reduce_sum_gradients(grads_and_vars: Any) -> Any:
        assert reduce is not None
        reduced = reduce(grads_and_vars)
        clipped, _ = zip(*grads_and_vars, strict=True)
        attempt(measure, clipped, *zip(*reduced, strict=True))
        return reduced

    def backend_update_step(grads: Any, variables: Any, learning_rate: Any) -> Any:
        if reduce is None:
            attempt(measure, grads, grads, variables)
        result = update(grads, variables, learning_rate)
        attempt(finish, learning_rate)
        return result

    methods: dict[str, Callable[..., Any]] = {
        "apply": apply_gradients,
        "_clip_gradients": clip_gradients,
        "_backend_update_step": backend_update_step,
    }
    if reduce is not None:
        methods["_all_reduce_sum_gradients"] = all_reduce_sum_gradients
    return replaced_methods(optimizer, **methods)
