"""Running single training steps through an instrumented copy of `model.train_function`.

Steps that are not recorded run the model's own compiled function, untouched: they cost nothing.
A recorded step runs a second function, made by the model's own `make_train_function`, which the
captures listen to while it is traced. It stands in the model's place for one call only, so that
however training ends, the model is left as it was.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

TrainFunction = Callable[..., Any]


class Recorded(NamedTuple):
    """What a capture has heard.

    Attributes:
        steps: int64 array (n,): iterations of the optimizer before each update.
        values: float32 arrays (n, variables) of `schema.RECORDED`.
    """

    steps: np.ndarray
    values: Mapping[str, np.ndarray]


class Capture(Protocol):
    """Listens to the optimizer of one model, on one backend.

    Attributes:
        variables: The trainable `keras.Variable`s that are recorded, in the model's order; empty
            until the model is built.
        batches_per_update: Number of batches whose gradients make one update.
        steady: Whether every batch surely is given to the optimizer once.
        error: The first exception inside the capture; after it the capture is deaf.
        functions: Instrumented training functions, kept so that a second `fit` traces nothing.
    """

    variables: list[Any]
    batches_per_update: int
    steady: bool
    error: Exception | None
    functions: dict[tuple[Any, ...], TrainFunction]

    def instrumenting(self) -> contextlib.AbstractContextManager[None]:
        """Prepare the training function that is made inside the context."""

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Hear the updates that are traced or run inside the context."""

    def read(self) -> Recorded:
        """Take the updates heard since the last read from the device."""

    def batches_done(self) -> int:
        """Number of batches whose gradients the optimizer has been given so far."""


def record_next_step(model: Any, capture: Capture) -> None:
    """Have `capture` listen to the next call of `model.train_function`."""
    if model.train_function is None:
        model.make_train_function()
    if isinstance(model.train_function, _RecordedStep):
        model.train_function.captures.append(capture)
    else:
        model.train_function = _RecordedStep(model, model.train_function, capture)


class _RecordedStep:
    """Stands in for `model.train_function` for one call."""

    def __init__(self, model: Any, plain: TrainFunction, capture: Capture) -> None:
        self.model = model
        self.plain = plain
        self.captures = [capture]

    def __call__(self, *args: Any) -> Any:
        self.model.train_function = self.plain
        function = self._instrumented_function()
        with contextlib.ExitStack() as stack:
            for capture in self.captures:
                stack.enter_context(capture.listening())
            return function(*args)

    def _instrumented_function(self) -> TrainFunction:
        functions = self.captures[0].functions
        # Compiling a model anew makes a new plain function: drop what belongs to the old one.
        for key in [key for key in functions if key[0] is not self.plain]:
            del functions[key]
        key = (self.plain, *self.captures[1:])
        if key not in functions:
            functions[key] = self._make()
        return functions[key]

    def _make(self) -> TrainFunction:
        with contextlib.ExitStack() as stack:
            for capture in self.captures:
                stack.enter_context(capture.instrumenting())
            try:
                self.model.make_train_function(force=True)
                return self.model.train_function
            finally:
                self.model.train_function = self.plain


@contextlib.contextmanager
def replaced_methods(target: Any, **methods: Callable[..., Any]) -> Iterator[None]:
    """Replace methods on one instance for the duration of the context."""
    attributes = vars(target)  # past the tracking that Keras's __setattr__ does
    former = {name: attributes[name] for name in methods if name in attributes}
    attributes.update(methods)
    try:
        yield
    finally:
        for name in methods:
            del attributes[name]
        attributes.update(former)
