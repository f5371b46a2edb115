"""One forward and one backward pass of a model, of which nothing remains in it.

Keras internals: `Model._compile_loss` and its metrics, made by the first batch.
tests/keras_initkit/models/check/test_step.py fails where these change.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import keras
import numpy as np
from keras import ops

from keras_initkit.anatomy.seeds import random_state_kept
from keras_initkit.anatomy.tracing import training_argument
from keras_initkit.models.check.sample import Batch


class Outcome(NamedTuple):
    """A step without an update.

    Attributes:
        y_pred: Predictions in training; `None` if there are none.
        loss: The loss with penalties; NaN if there is none.
        penalty: The part of it by weights and activities.
        gradients: Of each trainable variable, `None` where it has none; empty without a loss.
        error: The exception raised where predictions or the loss were computed.
    """

    y_pred: Any = None
    loss: float = np.nan
    penalty: float = np.nan
    gradients: tuple[np.ndarray | None, ...] = ()
    error: Exception | None = None


def run_step(model: Any, batch: Batch) -> Outcome:
    """Compute the loss of a batch and its gradients, as a training step does.

    Weights, states, seeds, metrics and optimizer stay as they are. A model that is not built is
    built; nothing is known of one without a `call`.
    """
    if type(model).call is keras.Model.call:
        return Outcome()
    x, y, sample_weight = keras.tree.map_structure(_as_tensor, batch)
    try:
        if not model.built:
            model(x)
        with random_state_kept():
            if model.compiled:
                return _run(model, x, y, sample_weight)
            return Outcome(_predict(model, x))
    except Exception as error:
        return Outcome(error=error)


def _run(model: Any, x: Any, y: Any, sample_weight: Any) -> Outcome:
    arguments = {"y": y, "sample_weight": sample_weight} | training_argument(model.compute_loss)

    def compute(values: Sequence[Any]) -> tuple[Any, tuple[Any, Any]]:
        mapping = list(zip(model.trainable_variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            y_pred = model(x, **training_argument(model.call))
            loss = model.compute_loss(x=x, y_pred=y_pred, **arguments)
            penalty = sum((ops.sum(part) for part in model.losses), ops.zeros(()))
        return loss, (y_pred, penalty)

    differentiate = _BACKENDS[keras.backend.backend()]
    try:
        with _compiled_loss_kept(model):
            loss, (y_pred, penalty), gradients = differentiate(
                compute, [variable.value for variable in model.trainable_variables]
            )
    except Exception as error:
        return Outcome(_predict(model, x), error=error)
    loss, penalty = (float(ops.convert_to_numpy(ops.stop_gradient(v))) for v in (loss, penalty))
    arrays = (None if g is None else ops.convert_to_numpy(g) for g in gradients)
    return Outcome(keras.tree.map_structure(_detach, y_pred), loss, penalty, tuple(arrays))


def _predict(model: Any, x: Any) -> Any:
    with keras.StatelessScope():
        y_pred = model(x, **training_argument(model.call))
    return keras.tree.map_structure(_detach, y_pred)


def _as_tensor(array: Any) -> Any:
    return ops.convert_to_tensor(array) if isinstance(array, np.ndarray) else array


def _detach(tensor: Any) -> Any:
    return ops.convert_to_numpy(ops.stop_gradient(tensor))


@contextlib.contextmanager
def _compiled_loss_kept(model: Any) -> Iterator[None]:
    """Keep the compiled loss: the first batch fixes its structure, and makes its metrics."""
    loss = getattr(model, "_compile_loss", None)
    if loss is None:
        yield
        return
    before, metrics = dict(vars(loss)), list(loss.metrics)
    try:
        yield
    finally:
        vars(loss).clear()
        vars(loss).update(before)
        loss.metrics[:] = metrics


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays on JAX, where each operation alone takes longer to compile."""
    if keras.backend.backend() != "jax":
        return function
    return cast(Callable[..., Any], importlib.import_module("jax").jit(function))


def _with_tensorflow(compute: Callable[..., Any], values: Sequence[Any]) -> tuple[Any, ...]:
    tf = importlib.import_module("tensorflow")
    tensors = [tf.identity(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss, rest = compute(tensors)
    gradients = tape.gradient(loss, tensors)
    return loss, rest, [g if g is None else tf.convert_to_tensor(g) for g in gradients]


def _with_jax(compute: Callable[..., Any], values: Sequence[Any]) -> tuple[Any, ...]:
    jax = importlib.import_module("jax")
    differentiate = compiled(jax.value_and_grad(compute, has_aux=True))
    (loss, rest), gradients = differentiate(list(values))
    return loss, rest, gradients


def _with_torch(compute: Callable[..., Any], values: Sequence[Any]) -> tuple[Any, ...]:
    torch = importlib.import_module("torch")
    tensors = [value.detach().clone().requires_grad_() for value in values]
    loss, rest = compute(tensors)
    if not (tensors and loss.requires_grad):  # it depends on no weight
        return loss, rest, [None] * len(tensors)
    return loss, rest, torch.autograd.grad(loss, tensors, allow_unused=True)


_BACKENDS = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}
