"""A warning names the user's line, however much lies between."""

import threading
import warnings
from typing import Any

import pytest

from keras_initkit.user_warnings import warn_user

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")


def function_of(module):
    """Make a function of a module by that name that calls what it is given."""
    namespace: dict[str, Any] = {"__name__": module}
    exec("def call(function, *args):\n    return function(*args)", namespace)
    return namespace["call"]


def through(modules):
    """Warn through functions of modules, the outermost first, on this very line."""
    first, *others = [function_of(module) for module in modules] + [warn_user]
    first(*others, "look here")  # the user's line


LINE = through.__code__.co_firstlineno + 3


@pytest.mark.parametrize(
    "modules",
    [
        [],
        ["keras.src.trainers.trainer", "keras_initkit.callbacks.gradient_monitor"],
        ["tensorflow.python.eager", "contextlib", "jax._src.api", "torch.nn", "keras_initkit"],
    ],
    ids=str,
)
def test_the_line_is_the_users(modules):
    with pytest.warns(UserWarning, match="look here") as caught:
        through(modules)
    [warning] = caught
    assert (warning.filename, warning.lineno) == (__file__, LINE)


@pytest.mark.parametrize("module", ["kerastools", "__main__", "tests.mine"])
def test_packages_are_told_by_their_whole_name(module):
    with pytest.warns(UserWarning, match="look here") as caught:
        through(["keras", module, "keras_initkit"])
    assert caught[0].filename == "<string>"


def test_a_warning_can_be_an_error_of_its_category():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning, match="look here"):
            warn_user("look here", DeprecationWarning)


def test_a_line_warns_once_by_default():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            through(["keras"])
        through([])
    assert len(caught) == 1


def test_a_thread_without_a_line_of_the_user_warns_all_the_same():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=warn_user, args=("look here",))
        thread.start()
        thread.join()
    assert [str(warning.message) for warning in caught] == ["look here"]
