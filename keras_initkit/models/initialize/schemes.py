"""The schemes: each says what is wanted of the kernels of an architecture."""

from collections.abc import Callable
from typing import Any

import keras

from keras_initkit.initializers.delta_orthogonal import DeltaOrthogonal
from keras_initkit.initializers.lecun import LecunNormal
from keras_initkit.initializers.orthogonal import Orthogonal
from keras_initkit.models.initialize.aim import Aim
from keras_initkit.models.initialize.architecture import Architecture, Kernel
from keras_initkit.models.initialize.mirrored import find_mirrored
from keras_initkit.models.initialize.point import find_point
from keras_initkit.models.initialize.residual_schemes import (
    aim_deepnorm,
    aim_fixup,
    aim_t_fixup,
    aim_zero,
)

Scheme = Callable[[Architecture], list[Aim]]


def aim_auto(architecture: Architecture) -> list[Aim]:
    """Aim at the critical point in front of each activation, measured; branches are small."""
    return [
        aim._replace(variance=_wanted(aim.kernel, architecture))
        for aim in aim_critical(architecture)
    ]


def aim_critical(architecture: Architecture) -> list[Aim]:
    """Aim at the critical point in front of each activation, by theory; branches are small."""
    aims, kernels = [], architecture.kernels
    points = [find_point(x.part.following, _depth_around(x, architecture)) for x in kernels]
    suited = [x for x, point in zip(kernels, points, strict=True) if point.mirrored]
    mirrored = find_mirrored(architecture, suited)
    for kernel, point in zip(kernels, points, strict=True):
        share = branch_share(kernel, architecture)
        pairs = mirrored.get(id(kernel.part.weight.variable), (False, False))
        # Inputs of the model have a mean square of 1, not that of activations at the point.
        is_first = kernel.is_first and point.variance < 1.0
        own_variance = (pairs[0] and point.mirrored) or point.weight_variance
        weight_variance = share * (point.variance if is_first else own_variance)
        if kernel.is_tied:  # it makes the logits as well
            weight_variance /= kernel.part.weight.variable.shape[-1]
        initializer = draw_scaled(kernel, weight_variance)
        bias_variance = share * point.bias_variance
        aim = Aim(kernel, initializer, None, "rms", bias_variance, point.is_centred, pairs)
        aims.append(aim)
    return aims


def aim_delta_orthogonal(architecture: Architecture) -> list[Aim]:
    """Aim as "auto", with convolutions that are orthogonal at their centre tap and zero elsewhere.

    Reference:
        Xiao et al., 2018, Dynamical Isometry and a Mean Field Theory of CNNs.
    """
    if not any(kernel.is_convolution for kernel in architecture.kernels):
        raise ValueError(
            '`model` must have convolutions for scheme="delta-orthogonal". Received: a model '
            'without one to draw. Use scheme="auto": its matrices are orthogonal.'
        )
    return [
        aim._replace(initializer=DeltaOrthogonal(aim.initializer.gain))
        if aim.kernel.is_convolution and aim.kernel.name == "kernel"
        else aim
        for aim in aim_auto(architecture)
    ]


def aim_lsuv(architecture: Architecture) -> list[Aim]:
    """Aim at orthonormal kernels and outputs of variance 1: layer-sequential unit variance."""
    return [
        Aim(kernel, Orthogonal(), 1.0 if is_measurable(kernel) else None, "std")
        for kernel in architecture.kernels
    ]


def draw_scaled(kernel: Kernel, variance: float) -> keras.initializers.Initializer:
    """Return an initializer for weights of some variance times their fan_in, orthogonal ones."""
    if variance <= 0.0:
        return keras.initializers.Zeros()
    if kernel.is_embedding:  # a look-up is no product
        return LecunNormal(gain=variance**0.5)
    return Orthogonal(variance**0.5, scaled=True)


def branch_share(kernel: Kernel, architecture: Architecture) -> float:
    """Return the share of the variance that a residual branch adds: all together add 1."""
    return 1.0 / architecture.residual.depth if kernel.is_last_of_branch else 1.0


def is_measurable(kernel: Kernel) -> bool:
    """Check if a kernel's scale follows from its layer's output, or a recurrent layer's inputs."""
    if kernel.recurrence is not None:
        cell: Any = getattr(kernel.recurrence, "cell", None)
        return kernel.name == "kernel" and not isinstance(cell, keras.layers.StackedRNNCells)
    return not kernel.is_embedding and kernel.name != "depthwise_kernel"


def _wanted(kernel: Kernel, architecture: Architecture) -> float | None:
    """Return the mean square wanted of a layer's output; `None` if its scale is known better.

    The mean of values over positions, which attention hands on, is small as it should be.
    """
    is_mean = kernel.attention is not None and kernel.part.weight.holder.name == "attention_output"
    if is_mean or not is_measurable(kernel):
        return None
    point = find_point(kernel.part.following, _depth_around(kernel, architecture))
    return branch_share(kernel, architecture) * point.variance


def _depth_around(kernel: Kernel, architecture: Architecture) -> int:
    return architecture.plain_depth if kernel.branch is None else 1


SCHEMES: dict[str, Scheme] = {
    "auto": aim_auto,
    "critical": aim_critical,
    "lsuv": aim_lsuv,
    "delta-orthogonal": aim_delta_orthogonal,
    "fixup": aim_fixup,
    "t-fixup": aim_t_fixup,
    "deepnorm": aim_deepnorm,
    "zero": aim_zero,
}
