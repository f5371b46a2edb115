"""Mirrored weights: units in pairs z and -z, whose rectifiers together pass a signal unbent.

Of a rectifier f, f(z) - f(-z) is linear in z. Units are paired by kernels [V, -V], and taken as
differences by kernels [[V, -V], [-V, V]]: with an orthogonal V a network of any depth starts as an
isometry, forth and back. Training parts the two of a pair, as their slopes differ.

Reference:
    Balduzzi et al., 2017, The Shattered Gradients Problem, section 4: the "looks linear"
    initialization.
"""

from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.following import find_receivers
from keras_initkit.connectivity.fan_formulas import Fans
from keras_initkit.connectivity.kernel_view import KernelView, view_of_shape
from keras_initkit.connectivity.layer_fans import has_rule
from keras_initkit.initializers.base import KernelInitializer
from keras_initkit.models.initialize.architecture import Architecture, Kernel

_LAYERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)

# Whether a kernel takes mirrored inputs, and whether it makes mirrored outputs.
Mirrored = tuple[bool, bool]


def find_mirrored(architecture: Architecture, kernels: list[Kernel]) -> dict[int, Mirrored]:
    """Find the kernels to mirror, by the `id` of the variable.

    Args:
        architecture: The model.
        kernels: Those in front of an activation for which mirrored weights suit.
    """
    found: dict[int, Mirrored] = {}
    paired: dict[int, int] = {}  # layers with pairs as inputs, and the number of units
    for kernel in kernels:
        weight, view, following = kernel.part.weight, kernel.part.view, kernel.part.following
        made = architecture.graph.made.get(id(kernel.caller), [])
        is_plain = kernel.branch is None and not following.adds and not following.joins
        if not isinstance(weight.holder, _LAYERS) or view is None or view.maps_shape[0] != 1:
            continue
        *_, inputs, units = view.maps_shape
        is_paired = is_plain and units % 2 == 0 and len(made) == 1
        found[id(weight.variable)] = paired.get(id(weight.holder)) == inputs, is_paired
        receivers = find_receivers(architecture.graph, weight.layers, has_rule)
        if is_paired and len(receivers) == 1:
            paired[id(receivers[0][0])] = units
    return found


def draw_mirrored(initializer: KernelInitializer, view: KernelView, mirrored: Mirrored) -> Any:
    """Return a kernel in float32; of a mirrored one a half or a quarter is drawn."""
    if not any(mirrored):
        return initializer.draw(view, "float32")
    _, *window, inputs, outputs = view.maps_shape
    inputs, outputs = inputs // (1 + mirrored[0]), outputs // (1 + mirrored[1])
    fans = Fans(float(np.prod(window) * inputs), float(np.prod(window) * outputs))
    maps = initializer.draw(view_of_shape((*window, inputs, outputs), fans), "float32")
    for axis, is_mirrored in zip((-2, -1), mirrored, strict=True):
        maps = keras.ops.concatenate([maps, -maps], axis) if is_mirrored else maps
    return view.to_weight(maps)
