"""Initializers that know the layer from the start: of a layer, or of all that are made."""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from keras_initkit.anatomy.initializers import argument_names
from keras_initkit.anatomy.layers_inside import layers_inside, set_value
from keras_initkit.anatomy.seeds import derived_seed
from keras_initkit.anatomy.weights import Weight, weights_of
from keras_initkit.models.reinitialize.reinitialize import as_initializer, check_seed, plan

# Arguments that an initializer is for where only the layer's class is named.
_KERNELS = (
    "kernel_initializer",
    "depthwise_initializer",
    "pointwise_initializer",
    "embeddings_initializer",
)


def layer_aware(layer: Any, seed: int | None = None) -> Any:
    """Have a layer's initializers know the layer, whose shape alone Keras tells them.

    As soon as the layer is built its weights are drawn with its own initializers, as
    `reinitialize` does: with the true fans, and gates, heads, groups and channels each for
    itself. So are those of layers inside it that are built later, at their first call. Afterwards
    nothing is left on the layers. A layer that is made from the config of this one, as by
    `keras.models.clone_model`, is not layer-aware.

    Examples:
    ```python
    layer = layer_aware(keras.layers.DepthwiseConv2D(3, depthwise_initializer=HeNormal()))
    layer = layer_aware(keras.layers.LSTM(64, recurrent_initializer=Orthogonal()), seed=0)
    ```

    Args:
        layer: A `keras.layers.Layer`, built or not, with all layers inside it.
        seed: Integer, or `None` for one drawn at random.

    Returns:
        The same layer.

    Raises:
        ValueError: If an argument is not as described.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"`layer` must be a keras.layers.Layer. Received: layer={layer!r}. For initializers "
            "alone there is nothing to know: give them to a layer."
        )
    _draw_when_built(layer, check_seed(seed), lambda weight: True)
    return layer


@contextlib.contextmanager
def defaults(
    layers: Mapping[type, Any] | None = None, seed: int | None = None, **by_name: Any
) -> Iterator[None]:
    """Make layers that are constructed in the context use other initializers by default.

    They hold for layers that are not given an initializer, as in models that a function of
    someone else makes. The layers know them as their own: they are in the config of a saved
    model. They are drawn as `layer_aware` does, and no two layers share random numbers.

    Examples:
    ```python
    with keras_initkit.defaults(
        Dense=HeNormal(),
        LSTM={"kernel_initializer": XavierUniform(), "recurrent_initializer": Orthogonal()},
        seed=0,
    ):
        model = build_model()
    ```

    Args:
        layers: Mapping of classes of layers to defaults, for classes that are not in
            `keras.layers`. A default is an initializer, or anything that
            `keras.initializers.get` takes, for the kernel; or a mapping of names of the class's
            arguments to initializers.
        seed: Integer, or `None` for one drawn at random. Each layer's random numbers follow from
            it and from how many layers with defaults were made before.
        **by_name: The same for classes in `keras.layers`, by their names.

    Raises:
        ValueError: If there is no such class or argument, or no default is given.
    """
    base = check_seed(seed)
    classes = {**(layers or {}), **{_layer_class(name): by_name[name] for name in by_name}}
    if not classes:
        raise ValueError("`defaults` must be given an initializer, as in `defaults(Dense=...)`.")
    arguments = {cls: _arguments(cls, default) for cls, default in classes.items()}
    made = iter(range(2**63))
    # Other threads construct their layers as ever.
    is_here = contextvars.ContextVar("is_here", default=False)
    token = is_here.set(True)
    try:
        with contextlib.ExitStack() as stack:
            for cls, initializers in arguments.items():
                next_seed = functools.partial(lambda: derived_seed(base, next(made)))
                stack.enter_context(_constructed_with(cls, initializers, next_seed, is_here))
            yield
    finally:
        is_here.reset(token)


@contextlib.contextmanager
def _constructed_with(
    cls: type,
    initializers: Mapping[str, Any],
    next_seed: Callable[[], int],
    is_active: "contextvars.ContextVar[bool]",
) -> Iterator[None]:
    """Replace the constructor of a class by one with other defaults."""
    original = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(original)
    is_own = "__init__" in vars(cls)

    @functools.wraps(original)
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        missing = {
            name: initializer for name, initializer in initializers.items() if name not in given
        }
        if not is_active.get() or not missing:
            original(self, *args, **kwargs)
            return
        original(self, *args, **kwargs, **missing)
        _draw_when_built(
            self,
            next_seed(),
            lambda weight: not set(missing).isdisjoint(argument_names(weight.variable.name)),
        )

    # What Keras reads the arguments from.
    construct.__signature__ = signature  # type: ignore[attr-defined]
    cls.__init__ = construct  # type: ignore[misc]
    try:
        yield
    finally:
        if is_own:
            cls.__init__ = original  # type: ignore[misc]
        else:
            del cls.__init__  # type: ignore[misc]


def _draw_when_built(layer: Any, seed: int, is_meant: Callable[[Weight], bool]) -> None:
    """Draw the weights that a layer has now, and others as soon as it has them."""
    drawn: set[int] = set()
    awaited: set[int] = set()
    depth = 0

    def draw() -> None:
        weights = [weight for weight in weights_of(layer) if id(weight.variable) not in drawn]
        drawn.update(id(weight.variable) for weight in weights)
        for drawing in plan(layer, [weight for weight in weights if is_meant(weight)], [], seed):
            set_value(drawing.weight.variable, drawing.draw)
        for inner in layers_inside(layer):
            if not inner.built and id(inner) not in awaited:
                awaited.add(id(inner))
                draw_after_build(inner)

    def draw_after_build(inner: Any) -> None:
        build = inner.build

        @functools.wraps(build)
        def build_and_draw(*args: Any, **kwargs: Any) -> None:
            nonlocal depth
            inner.build = build
            depth += 1
            try:
                build(*args, **kwargs)
            except BaseException:
                inner.build = build_and_draw
                raise
            finally:
                depth -= 1
            # Layers that another one builds are drawn with it.
            if not depth:
                draw()

        inner.build = build_and_draw

    draw()


def _layer_class(name: str) -> type:
    cls = getattr(keras.layers, name, None)
    if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)):
        raise ValueError(
            f"Keywords must be names of classes in keras.layers. Received: {name}=... For other "
            "classes pass a mapping: `defaults({MyLayer: HeNormal()})`."
        )
    return cls


def _arguments(cls: type, default: Any) -> dict[str, Any]:
    """The initializers of a default by the names of a class's arguments."""
    known = [
        name
        for base in cls.__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(base.__init__).parameters  # type: ignore[misc]
        if name.endswith("_initializer")
    ]
    if isinstance(default, Mapping) and "class_name" not in default:
        chosen = dict(default)
    else:
        chosen = {name: default for name in _KERNELS if name in known}
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(
            f"Defaults of {cls.__name__} must be initializers for its arguments. Received: "
            f"{default!r}. Its arguments are {', '.join(dict.fromkeys(known)) or 'none'}."
        )
    return {name: as_initializer("defaults", value) for name, value in chosen.items()}
