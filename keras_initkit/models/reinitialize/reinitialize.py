"""Drawing the weights of a built model anew, in place."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.anatomy.initializers import own_initializer
from keras_initkit.anatomy.layers_inside import set_value
from keras_initkit.anatomy.seeds import derive_seed, with_seed
from keras_initkit.anatomy.selectors import Match, Selection, Selector, check_selector, match
from keras_initkit.anatomy.weights import Weight, check_built, weights_of
from keras_initkit.checks import is_integer, list_few
from keras_initkit.connectivity.kernel_view import KernelView
from keras_initkit.connectivity.layer_fans import has_rule, view_of_weight
from keras_initkit.initializers.base import KernelInitializer
from keras_initkit.user_warnings import warn_user

Rules = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


class Drawing(NamedTuple):
    """A weight to be drawn, and its initializer with a seed of its own."""

    weight: Weight
    initializer: Any

    def draw(self) -> Any:
        """Return new values."""
        variable = self.weight.variable
        if isinstance(self.initializer, KernelInitializer) and (view := _view_of(self.weight)):
            return self.initializer.draw(view, variable.dtype)
        return self.initializer(tuple(variable.shape), dtype=variable.dtype)


def reinitialize(
    model: Any,
    rules: Rules | None = None,
    seed: int | None = None,
    only: Selector | None = None,
    trainable_only: bool = False,
    reset_optimizer: bool = False,
) -> dict[str, Any]:
    """Draw the weights of a built model anew, in place, by rules.

    Each weight is drawn by itself: to choose initializers, or for another seed. `initialize`
    chooses them for you, so that signal and gradient pass the whole depth of a model.

    The model stays the same object, compiled and traced. Each weight is drawn with the initializer
    of the first rule to select it, otherwise with its layer's own one. Initializers of this package
    know the layer: they take its true fans, and draw gates, heads, groups and channels one by one.
    Others see only the shape, as at construction; and so do ours in layers of unknown classes,
    unless `register_fans` adds them.

    Every weight has random numbers of its own, derived from `seed` and the weight's path: they are
    the same in whatever order the model is built, and no two weights share them, even if they
    share an initializer. Seeds of initializers are not used. The numbers are those of the
    backend's generator: other backends draw others.

    Weights without random numbers are also reset: biases, scales, moving averages; and so are LoRA
    factors, as `enable_lora` does by default, unless a rule names them. Weights that are not
    floating point, such as seeds and quantised kernels (for which there is a warning), and the
    statistics learned by a `Normalization` layer are left alone.

    Examples:
    ```python
    keras_initkit.reinitialize(model, seed=0)
    keras_initkit.reinitialize(
        model,
        {
            keras.layers.Conv2D: HeNormal(),                   # the kernels of these layers
            (keras.layers.LSTM, "recurrent_kernel"): Orthogonal(),
            re.compile("head.*/bias"): PriorBias(0.01),
            lambda layer: layer.name.startswith("block"): HeNormal(),
        },
        seed=0,
    )
    ```

    Args:
        model: A built `keras.Model`, or a layer.
        rules: Mapping of selectors to initializers, or sequence of such pairs; the first rule to
            select a weight holds. A selector is a class of layers (for the layers inside them,
            too), the name of a layer or a weight or a part of its path, a compiled regular
            expression to be searched for in the path, a function of the layer with the weight to
            a bool, a list of selectors (any may hold), or a tuple (all must). A selector of layers
            alone is for their kernels: the weights for the inputs, without scales. An initializer
            is anything for `keras.initializers.get`; `None` leaves the weights as they are.
        seed: Integer, or `None` for one drawn at random, determined by
            `keras.utils.set_random_seed`.
        only: A selector of the weights to draw. `None` for all.
        trainable_only: Whether to leave weights alone if they are not trained: those of frozen
            layers, and moving averages.
        reset_optimizer: Whether to reset the optimizer of a compiled model, except for its learning
            rate: moments, averages and number of steps.

    Returns:
        A dict: for the path of each weight drawn, the initializer, with its seed.

    Raises:
        ValueError: If the model is not built, an argument is not as described, or a rule or
            `only` selects nothing; and as initializers do. Then no weight has changed.
    """
    check_built(model)
    weights = weights_of(model, has_rule)
    selects = Selection("only", only)
    selected = [weight for weight in weights if selects(weight.places, weight.name)]
    if not selected:
        raise ValueError(
            f"`only` must select a weight. Received: only={only!r}. The weights are "
            f"{_list_paths(weights)}."
        )
    if trainable_only:
        selected = [weight for weight in selected if weight.variable.trainable]
    pairs, seeds = _as_pairs(rules), derive_seeds(weights, check_seed(seed))
    drawings = plan(selected, pairs, seeds)
    # What fails, fails before a weight has changed.
    if reset_optimizer:
        _new_optimizer(model)
    values = [drawing.draw() for drawing in drawings]
    for drawing, value in zip(drawings, values, strict=True):
        set_value(drawing.weight.variable, lambda value=value: value)  # type: ignore[misc]
    if reset_optimizer and model.optimizer.built:
        new = _new_optimizer(model)
        for variable, start in zip(model.optimizer.variables, new.variables, strict=True):
            if variable.name != "learning_rate":
                variable.assign(start)
    return {drawing.weight.path: drawing.initializer for drawing in drawings}


def plan(
    weights: Sequence[Weight], rules: Sequence[tuple[Any, Any]], seeds: Mapping[str, int]
) -> list[Drawing]:
    """Choose the initializer of each weight, by the first rule to select it or its layer."""
    used: set[int] = set()
    unknown, quantised, drawings = [], [], []
    for weight in weights:
        if not weight.is_float and _view_of(weight) is None:
            continue  # such as a seed
        matching = [i for i, (selector, _) in enumerate(rules) if _selects(selector, weight)]
        used.update(matching)
        initializer = None
        if not weight.is_float:
            quantised.append(weight)
        elif matching:
            initializer = rules[matching[0]][1]
        else:
            initializer = own_initializer(weight.holder, weight.variable)
            if initializer is None and weight.variable.trainable:
                unknown.append(weight)
        if initializer is not None:
            drawings.append(Drawing(weight, with_seed(initializer, seeds[weight.stream])))
    for i, (selector, _) in enumerate(rules):
        if i not in used:
            raise ValueError(
                "`rules` must each select a weight. Received a rule that selects none: "
                f"{selector!r}. A layer's class or path selects its kernels; for other weights "
                "write their name as well, as in (keras.layers.Dense, 'bias'). "
                f"The weights are {_list_paths(weights)}."
            )
    if quantised:
        warn_user(
            f"Quantised kernels stay as they are: {_list_paths(quantised)}. Draw the weights anew "
            "before `quantize` is called."
        )
    if unknown:
        warn_user(
            "Weights whose layer does not say how it initializes them stay as they are: "
            f"{_list_paths(unknown)}. Give them a rule: "
            f"`rules={{'{unknown[0].path}': 'zeros'}}`."
        )
    return drawings


def derive_seeds(weights: Sequence[Weight], seed: int) -> dict[str, int]:
    """Derive a seed for each weight of a model, by its stream; no two are the same."""
    seeds: dict[int, str] = {}
    for stream in sorted(weight.stream for weight in weights):
        own, tries = derive_seed(seed, stream), 0
        while own in seeds:
            tries += 1
            own = derive_seed(seed, stream, tries)
        seeds[own] = stream
    return {stream: own for own, stream in seeds.items()}


def check_seed(seed: int | None) -> int:
    """Return a seed; one drawn at random for `None`."""
    if seed is None:
        return random.randrange(2**32)
    if not is_integer(seed):
        raise ValueError(f"`seed` must be an integer or None. Received: seed={seed!r}")
    return int(seed)


def _list_paths(weights: Iterable[Weight]) -> str:
    return list_few((weight.path for weight in weights), 8, str)


def _view_of(weight: Weight) -> KernelView | None:
    """View a weight as its layer uses it; `None` for a bias, or if unknown."""
    return view_of_weight(weight.owner, weight.variable) if has_rule(weight.owner) else None


def _selects(selector: Selector, weight: Weight) -> bool:
    """Check if a selector selects a weight: by its name, or a kernel by its layer."""
    how = match(selector, weight.places, weight.name)
    if how != Match.LAYER:
        return how == Match.WEIGHT
    if weight.name.startswith("lora_"):
        return False  # one factor starts at zeros, so that their product does
    if not has_rule(weight.owner):
        return bool(weight.variable.name.endswith("kernel"))
    view = _view_of(weight)
    return view is not None and not view.is_elementwise


def _as_pairs(rules: Rules | None) -> list[tuple[Any, Any]]:
    if rules is None:
        return []
    items = rules.items() if isinstance(rules, Mapping) else rules
    pairs = []
    for item in items:
        if not isinstance(item, tuple) or len(item) != 2:
            raise ValueError(
                "`rules` must be a mapping of selectors to initializers, or a sequence of such "
                f"pairs. Received: {item!r}"
            )
        selector, identifier = item
        check_selector("rules", selector)
        try:
            pairs.append((selector, keras.initializers.get(identifier)))
        except (ValueError, TypeError) as error:
            raise ValueError(
                "`rules` must have initializers, or what `keras.initializers.get` takes for one. "
                f"Received: {identifier!r}. {error}"
            ) from None
    return pairs


def _new_optimizer(model: Any) -> Any:
    """Return an optimizer like the model's, before its first step."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "`reset_optimizer` must be False for a model without an optimizer. Received: "
            "reset_optimizer=True. Call `model.compile` first."
        )
    new = type(optimizer).from_config(optimizer.get_config())
    new.build(model.trainable_variables)
    if optimizer.built and len(new.variables) != len(optimizer.variables):
        raise ValueError(
            "`reset_optimizer` must be False if other weights are trained than those that the "
            "optimizer was built for. Received: reset_optimizer=True. Call `model.compile` "
            "with a new optimizer."
        )
    return new
