"""Running single training steps through an instrumented copy of `model.train_function`.

All other steps run the model's own compiled function, untouched: they cost nothing. A recorded
step runs a second function, made by the model's own `make_train_function`; the captures listen
while it is traced. It stands in the model's place for one call only: however training ends, the
model is left as it was.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

TrainFunction = Callable[..., Any]
Capture = Any  # `capture.Capture`, which imports this file


class Call(NamedTuple):
    """A recorded call of the training function."""

    first_step: int  # number of updates before it
    last_step: int  # the same, before its last update
    skipped: int  # number of updates skipped by a loss scale before it

    def covers(self, steps: Any) -> Any:
        """Check for each of an array of steps whether the call makes it."""
        return (self.first_step <= steps) & (steps <= self.last_step)


def record_next_step(model: Any, capture: Capture, call: Call) -> None:
    """Have `capture` listen to the next call of `model.train_function`."""
    if model.train_function is None:
        model.make_train_function()
    if not isinstance(model.train_function, _RecordedStep):
        model.train_function = _RecordedStep(model, model.train_function)
    model.train_function.captures.append((capture, call))


def plain_function(model: Any) -> TrainFunction | None:
    """Return a model's own training function, also while another one stands in for it."""
    function = model.train_function
    return function.plain if isinstance(function, _RecordedStep) else function


class _RecordedStep:
    """Stands in for `model.train_function` for one call."""

    def __init__(self, model: Any, plain: TrainFunction) -> None:
        self.model = model
        self.plain = plain
        self.captures: list[tuple[Capture, Call]] = []

    def __call__(self, *args: Any) -> Any:
        self.model.train_function = self.plain
        with contextlib.ExitStack() as locks:
            with contextlib.ExitStack() as listening:
                try:
                    function = self._listen(args, locks, listening)
                except Exception as error:
                    for capture, _ in self.captures:
                        capture.error = capture.error or error
                    self.captures.clear()
                    function = self.plain
                result = function(*args)
            for capture, call in self.captures:
                try:
                    capture.end_call(call, result)
                except Exception as error:
                    capture.error = capture.error or error
        return result

    def _listen(self, args: Sequence[Any], locks: Any, listening: Any) -> TrainFunction:
        """Have the captures listen; return the function to call."""
        with contextlib.ExitStack() as entered:
            for capture, _ in self.captures:
                locks.callback(setattr, capture, "step_of", 0)
                capture.step_of = threading.get_ident()
                locks.enter_context(capture.lock)
            function = self._instrumented_function(args)
            for capture, _ in self.captures:
                entered.enter_context(capture.listening())
            for capture, call in self.captures:
                capture.begin_call(call)
            listening.push(entered.pop_all())
        return function

    def _instrumented_function(self, args: Sequence[Any]) -> TrainFunction:
        captures = [capture for capture, _ in self.captures]
        functions = captures[0].functions
        # Compiling a model anew makes a new plain function: drop what belongs to the old one.
        for key in [key for key in functions if key[0] is not self.plain]:
            del functions[key]
        key = (self.plain, *captures[1:])
        if key not in functions:
            functions[key] = self._make(captures, args)
        return functions[key]

    def _make(self, captures: list[Capture], args: Sequence[Any]) -> TrainFunction:
        captures[0].build(*args)  # once, and unheard
        with contextlib.ExitStack() as stack:
            for capture in captures:
                stack.enter_context(capture.instrumenting())
            try:
                self.model.make_train_function(force=True)
                return self.model.train_function
            finally:
                self.model.train_function = self.plain
