"""Whether functions and models of users may change or show something, by their code alone."""

import dis
import types
from collections.abc import Iterator
from typing import Any

from keras_initkit.anatomy.layers_inside import layers_inside
from keras_initkit.anatomy.own_calls import is_own

_PLACES = "ATTR", "GLOBAL", "SUBSCR"
# A function with these may keep or show something whenever it is called.
_WRITES = {f"{verb}_{where}" for verb in ("STORE", "DELETE") for where in _PLACES}
_CALLS = {"append", "assign", "assign_add", "assign_sub", "extend", "next", "print", "update"}

# Methods that Keras keeps wrapped in an object; no call of a built layer calls them.
_WRAPPED = {"build", "quantize"}


def may_write(function: Any) -> bool:
    """Check for a function that may change more than its result; of one without code, say so."""
    code = getattr(function, "__code__", None)
    return code is None or any(map(_writes, _list_codes(code)))


def _list_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """List the code of a function and of those inside it."""
    yield code
    for inner in [c for c in code.co_consts if isinstance(c, types.CodeType)]:
        yield from _list_codes(inner)


def _writes(code: types.CodeType) -> bool:
    outer = set(code.co_freevars)
    return not _CALLS.isdisjoint(code.co_names) or any(
        step.opname in _WRITES or (step.opname == "STORE_DEREF" and step.argval in outer)
        for step in dis.get_instructions(code)
    )


def calls_may_write(model: Any) -> bool:
    """Check for a model that may change more than its result when it, or a layer in it, is called.

    Looked at is the code of users: `call`, what it names of the object, its class, globals and
    closures, and functions given to Keras's layers.
    """
    seen: set[int] = set()
    for layer in layers_inside(model):
        given = [v for name, v in vars(layer).items() if name not in _WRAPPED and _is_users(v)]
        own = [type(layer).call] if is_own(layer) else []
        if any(_reaches_write(function, layer, seen) for function in [*own, *given]):
            return True
    return False


def _reaches_write(function: Any, layer: Any, seen: set[int]) -> bool:
    if id(function) in seen:
        return False
    seen.add(id(function))
    function = getattr(function, "__func__", function)
    if may_write(function):
        return True
    names = {name for code in _list_codes(function.__code__) for name in code.co_names}
    found = [function.__globals__.get(name) for name in names]
    for cell in function.__closure__ or ():
        found.append(cell.cell_contents)
    for name in names:
        for kind in type(layer).__mro__:
            value = vars(kind).get(name)
            found.append(value.fget if isinstance(value, property) else value)
    return any(_reaches_write(value, layer, seen) for value in found if _is_users(value))


def _is_users(value: Any) -> bool:
    """Check for a function written in Python that is no part of Keras or its backends."""
    value = getattr(value, "__func__", value)
    return isinstance(value, types.FunctionType) and not (value.__module__ or "").startswith(
        ("keras.", "tensorflow.", "jax.", "torch.", "numpy.")
    )
