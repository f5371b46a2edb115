"""`name_made_layer`: a layer that a user's `call` makes anew, by its source, which is not run."""

import ast
import contextlib
import functools
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import keras

# What is made in these may be made once: `if self.inner is None: self.inner = Dense(8)`.
_GUARDS = (ast.If, ast.IfExp, ast.BoolOp, ast.Try, ast.Match, ast.Lambda, ast.FunctionDef)


def is_own(layer: Any) -> bool:
    """Check for a layer of a class that is neither Keras's nor of a package around it."""
    return isinstance(layer, keras.layers.Layer) and not type(layer).__module__.startswith("keras")


def name_made_layer(layer: Any) -> str:
    """Name the class of the first layer with weights that a layer's `call` makes; "" for none."""
    kind: Any = type(layer)
    return _name_made(kind) if is_own(layer) else ""


@functools.lru_cache(256)
def _name_made(kind: Any) -> str:
    with contextlib.suppress(Exception):  # of a user's class, or without a source
        return next(filter(_has_weights, _list_made(kind.call, _GUARDS))).__name__
    return ""


def _list_made(function: Any, guards: tuple[type, ...] = ()) -> Iterator[type]:
    """Yield the classes of layers that a function makes, but for what is made in guards."""
    function = inspect.unwrap(function)
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    names = function.__globals__ | {name: cell.cell_contents for name, cell in cells}
    for name in (*code.co_varnames, *code.co_cellvars):
        names.pop(name, None)
    source: Any = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    # What comes behind an early return, `if self.inner is not None: return ...`, may be made once.
    returns = [any(isinstance(x, ast.Return) for x in ast.walk(step)) for step in source.body]
    end = next((i for i, step in enumerate(returns) if step and guards), len(returns)) + 1
    for node in itertools.chain(*(_walk(step, guards) for step in source.body[:end])):
        if not isinstance(node, ast.Call):
            continue
        kind = _find_value(node.func, names)
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer):
            named = {word.arg: getattr(word.value, "value", True) for word in node.keywords}
            if named.get("center", True) or named.get("scale", True):  # else without weights
                yield kind


def _walk(node: ast.AST, guards: tuple[type, ...]) -> Iterator[ast.AST]:
    if not isinstance(node, guards):
        yield node
        for inner in ast.iter_child_nodes(node):
            yield from _walk(inner, guards)


def _find_value(node: ast.AST, names: dict[str, Any]) -> Any:
    """Return the value of a name, or of a module's attribute; `None` of anything else."""
    if isinstance(node, ast.Attribute):
        module = _find_value(node.value, names)
        return getattr(module, node.attr, None) if isinstance(module, types.ModuleType) else None
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _has_weights(kind: type) -> bool:
    """Check for a class of layers with weights: it takes initializers, or adds or makes them."""
    for base in (base for base in kind.__mro__ if issubclass(base, keras.layers.Layer)):
        parts: list[Any] = [
            vars(base)[name] for name in ("__init__", "build") if name in vars(base)
        ]
        if any("_initializer" in str(inspect.signature(part)) for part in parts):
            return True
        for part in [] if base.__module__.startswith("keras") else parts:
            if "add_weight" in part.__code__.co_names or any(map(_has_weights, _list_made(part))):
                return True
    return False
