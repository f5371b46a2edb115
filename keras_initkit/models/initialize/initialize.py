"""`initialize`: a model started where signal and gradient pass its whole depth."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.layers_inside import set_value
from keras_initkit.anatomy.seeds import derive_seed, random_state_kept, with_seed
from keras_initkit.anatomy.selectors import Selection, Selector
from keras_initkit.anatomy.weights import check_built, weights_of
from keras_initkit.checks import check_choice, list_few
from keras_initkit.connectivity.layer_fans import has_rule
from keras_initkit.initializers.base import KernelInitializer
from keras_initkit.initializers.orthogonal import Orthogonal
from keras_initkit.models.audit.audit import audit
from keras_initkit.models.audit.parts import Part
from keras_initkit.models.audit.report import Audit
from keras_initkit.models.initialize.aim import Aim
from keras_initkit.models.initialize.architecture import architecture_of
from keras_initkit.models.initialize.batches import Data, make_noise, read_data
from keras_initkit.models.initialize.measured import measure
from keras_initkit.models.initialize.mirrored import draw_mirrored
from keras_initkit.models.initialize.schemes import SCHEMES
from keras_initkit.models.initialize.targets import Head, heads_of
from keras_initkit.models.reinitialize.reinitialize import check_seed, derive_seeds


def initialize(
    model: Any,
    data: Any = None,
    scheme: str = "auto",
    seed: int | None = None,
    *,
    targets: Any = None,
    only: Selector | None = None,
    exclude: Selector | None = None,
) -> Audit:
    """Start a built model where signal and gradient pass its whole depth, in place.

    The model stays the same object, compiled and traced. Its kernels are drawn anew for what
    follows them, from their true fans, orthogonal where they are multiplied; then one forward pass
    over a batch corrects each layer's scale for what theory misses: borders, pooling, inputs of
    another scale, and activations such as gelu and silu, with which deviations grow from layer to
    layer. `reinitialize` instead resets each weight by itself, by rules: use it to choose
    initializers, or for another seed.

    With the scheme "auto",

    - before an activation weights and biases are at its critical point
      (`keras_initkit.theory.critical`): pre-activations keep their variance, 1, and gradients their
      norm. The more layers without skip connections or normalization there are, the smaller the
      variance of tanh and the like, so that the signal lasts; from 30 layers on, ReLU and its like
      get mirrored weights, units in pairs z and -z, as f(z) - f(-z) is linear;
    - residual branches add little: all branches in a row together add as much as there was before;
    - with `targets`, the bias of the output layer is the best prediction without inputs: the
      frequencies of the classes, or the mean.

    It leaves alone frozen and excluded weights, LoRA factors, scales, gates, states, kernels and
    biases that their layer starts without random numbers (other than biases of zeros), and weights
    of layers of unknown classes, unless `register_fans` adds them. Pretrained layers must be frozen
    or excluded.

    Other schemes:

    | name | weights |
    |---|---|
    | "critical" | as "auto", by theory alone: no pass |
    | "lsuv" | orthonormal; each layer's output has variance 1 |
    | "delta-orthogonal" | as "auto"; convolutions are orthogonal, at their centre tap |
    | "fixup" | He's, smaller in residual branches, which end with zeros |
    | "zero" | zeros and ones, identities and Hadamard matrices (ZerO) |
    | "t-fixup" | Xavier's, smaller in branches: transformers without normalization |
    | "deepnorm" | the same for post-norm transformers with multiplied skip connections |

    Examples:
    ```python
    print(keras_initkit.initialize(model, x_train, seed=0))
    keras_initkit.initialize(model, x_train, targets=y_train, exclude="backbone")
    ```

    Args:
        model: A built `keras.Model`, or a layer.
        data: Inputs of the model, of which 32 rows are taken; or a stream of batches as for `fit`,
            with the targets. `None` for noise: normal numbers, or integers for embeddings.
        scheme: Name of a scheme.
        seed: As in `reinitialize`.
        targets: Targets as for `fit`; for several output layers a dict by their names.
        only: A selector of the weights to change, as in `reinitialize`. `None` for all.
        exclude: A selector of weights to leave alone. `None` for none.

    Returns:
        The `Audit` of the model as it is now: printed, it is a table.

    Raises:
        ValueError: If the model is not built, an argument is not as described, a selector selects
            nothing, or the model lacks what a scheme needs. Then no weight has changed.
    """
    check_built(model)
    check_choice("scheme", scheme, SCHEMES)
    weights = weights_of(model, has_rule)
    seeds, noise_seed = derive_seeds(weights, check_seed(seed)), derive_seed(seed or 0, "noise")
    selects = _make_selection(weights, only, exclude)
    found = Data(None, targets) if data is None else read_data(data, targets)
    with random_state_kept():
        with architecture_of(model, selects) as architecture:
            if not architecture.kernels:
                raise ValueError(
                    "`model` must have a kernel to draw. Received: "
                    f"{model.name!r}, whose kernels are frozen, excluded, or started without "
                    "random numbers on purpose. `keras_initkit.reinitialize` draws any weight by "
                    "a rule."
                )
            aims = SCHEMES[scheme](architecture)
            heads = {} if found.targets is None else heads_of(model, aims, found.targets)
            aims = [_aim_at_head(aim, heads.get(id(aim.variable))) for aim in aims]
            values = _draw(aims, seeds)
            waiting: list[Aim] = []
            if any(aim.variance is not None for aim in aims):
                if found.inputs is None:
                    found = Data(make_noise(model, architecture.graph, noise_seed))
                values, waiting = measure(model, found.inputs, aims, values)
        _assign(aims, values, heads)
        if waiting:
            _warn(waiting)
        return audit(model)


def _assign(aims: Sequence[Aim], values: dict[int, Any], heads: dict[int, Head]) -> None:
    """Give kernels and biases their values."""
    for aim in aims:
        if head := heads.get(id(aim.variable)):
            values[id(aim.bias)] = keras.ops.convert_to_tensor(head.bias)
        for variable in (aim.variable, aim.bias):
            if variable is not None:
                value = keras.ops.cast(values[id(variable)], variable.dtype)
                set_value(variable, lambda value=value: value)  # type: ignore[misc]


def _warn(waiting: Sequence[Aim]) -> None:
    warnings.warn(
        "The outputs of some layers could not be measured, so their kernels have the scale from "
        f"theory: {list_few((aim.kernel.part.weight.path for aim in waiting), 8, str)}. The "
        "outputs were zero, not finite, or computed inside a loop; give other `data`.",
        stacklevel=3,
    )


def _make_selection(
    weights: Sequence[Any], only: Selector | None, exclude: Selector | None
) -> Callable[[Part], bool]:
    """Return a function to tell if a weight may be changed."""
    wanted, unwanted = Selection("only", only), Selection("exclude", exclude)
    for name, selection in (("only", wanted), ("exclude", unwanted)):
        given = only if name == "only" else exclude
        if given is not None and not any(selection(w.places, w.name) for w in weights):
            raise ValueError(
                f"`{name}` must select a weight. Received: {name}={given!r}. The weights are "
                f"{list_few((weight.path for weight in weights), 8, str)}."
            )

    def selects(part: Part) -> bool:
        weight = part.weight
        if not weight.variable.trainable or not wanted(weight.places, weight.name):
            return False
        return exclude is None or not unwanted(weight.places, weight.name)

    return selects


def _aim_at_head(aim: Aim, head: Head | None) -> Aim:
    """Give an output layer outputs that are small beside its bias."""
    if head is None or not hasattr(aim.initializer, "gain"):
        return aim
    if aim.variance is not None:
        return aim._replace(variance=head.variance)
    gain = head.variance**0.5
    return aim._replace(initializer=Orthogonal(gain, scaled=True))


def _draw(aims: Sequence[Aim], seeds: dict[str, int]) -> dict[int, Any]:
    """Return float32 tensors of new kernels and biases, by the `id` of the variable."""
    values = {}
    for aim in aims:
        weight, view = aim.kernel.part.weight, aim.kernel.part.view
        initializer = with_seed(aim.initializer, seeds[weight.stream])
        if isinstance(initializer, KernelInitializer) and view is not None:
            values[id(aim.variable)] = draw_mirrored(initializer, view, aim.mirrored)
        else:
            values[id(aim.variable)] = initializer(tuple(aim.variable.shape), dtype="float32")
        if aim.bias is not None and aim.kernel.bias is not None:
            bias_seed = seeds[aim.kernel.bias.weight.stream]
            normal = np.random.default_rng(bias_seed).standard_normal(tuple(aim.bias.shape))
            scaled = (aim.bias_variance**0.5 * normal).astype("float32")
            values[id(aim.bias)] = keras.ops.convert_to_tensor(scaled)
    return values
