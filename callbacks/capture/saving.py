"""Hearing of a checkpoint before it is written.

Keras internals: `save_own_variables` of an optimizer is called by every file that Keras saves with
its state but `.h5`, for which its `get_config` is; `_trackable_children` by `tf.train.Checkpoint`,
and `get_state_tree` of a model by Orbax's checkpoints.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from keras_initkit.callbacks.capture.model_parts import Target

_OF_OPTIMIZERS = ("save_own_variables", "get_config", "_trackable_children")
_OF_MODELS = ("get_state_tree",)


@contextlib.contextmanager
def before_saves(target: Target, action: Callable[[], None]) -> Iterator[None]:
    """Call a function each time that the model's state is about to be saved inside the context.

    Such contexts, of several captures, may end in any order.
    """
    owners: list[tuple[Any, tuple[str, ...]]] = []
    owners += [(leaf.optimizer, _OF_OPTIMIZERS) for leaf in target.leaves]
    owners += [(target.model.optimizer, _OF_OPTIMIZERS), (target.model, _OF_MODELS)]
    places = {(id(owner), name): (owner, name) for owner, names in owners for name in names}
    heard = [_hear(*place) for place in places.values() if hasattr(*place)]
    for method in heard:
        method.actions.append(action)
    try:
        yield
    finally:
        for method in heard:
            method.actions.remove(action)
            if not method.actions and method.attributes.get(method.name) is method:
                del method.attributes[method.name]
                method.attributes.update(method.former)


def _hear(owner: Any, name: str) -> "_Heard":
    method = vars(owner).get(name)
    return method if isinstance(method, _Heard) else _Heard(owner, name)


class _Heard:
    """A method of one object that calls functions first, until it is taken out of `attributes`."""

    def __init__(self, owner: Any, name: str) -> None:
        self.actions: list[Callable[[], None]] = []
        self.attributes, self.name = vars(owner), name
        self._method = getattr(owner, name)
        self.former = {key: self.attributes[key] for key in {name} & self.attributes.keys()}
        self.attributes[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for action in self.actions:
            action()
        return self._method(*args, **kwargs)
