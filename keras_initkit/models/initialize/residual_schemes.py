"""Schemes of the literature for residual networks and transformers."""

import math
from typing import Any

import keras

from keras_initkit.initializers.hadamard import ZerO
from keras_initkit.initializers.he import HeNormal
from keras_initkit.initializers.lecun import LecunNormal
from keras_initkit.initializers.xavier import XavierNormal
from keras_initkit.models.initialize.aim import Aim
from keras_initkit.models.initialize.architecture import Architecture, Kernel

_ZEROS = keras.initializers.Zeros()


def aim_fixup(architecture: Architecture) -> list[Aim]:
    """Aim as Fixup: He's kernels, branches scaled by their number, their last kernels zero.

    Of L branches, each of m kernels, all kernels but the last are multiplied by L^(-1/(2m - 2)).
    The scalar biases and the multiplier of each branch are layers of the model, not weights of it.

    Reference:
        Zhang, Dauphin & Ma, 2019, Fixup Initialization: Residual Learning Without Normalization.
    """
    _check_branches(architecture, "fixup", is_normalized=False)
    count = len(architecture.residual.branches)
    aims = []
    for kernel in architecture.kernels:
        size = len(kernel.branch.inside) if kernel.branch else 0
        if kernel.part.following.is_last or (kernel.is_last_of_branch and size > 1):
            aims.append(Aim(kernel, _ZEROS))
        else:
            gain = math.sqrt(2.0)
            if kernel.branch:
                gain *= count ** (-0.5 / (size - 1)) if size > 1 else count**-0.5
            aims.append(Aim(kernel, HeNormal(gain=gain)))
    return aims


def aim_zero(architecture: Architecture) -> list[Aim]:
    """Aim at zeros and ones alone: identities, Hadamard matrices, and zeros at the end of branches.

    Reference:
        Zhao, Schäfer & Anandkumar, 2021, ZerO Initialization, algorithms 1 and 2.
    """
    _check_branches(architecture, "zero")
    return [
        Aim(kernel, _ZEROS if kernel.is_last_of_branch else ZerO())
        for kernel in architecture.kernels
    ]


def aim_t_fixup(architecture: Architecture) -> list[Aim]:
    """Aim as T-Fixup: a transformer without normalization and without warm-up.

    Xavier's kernels; embeddings of variance 1/width; of N layers of the encoder the embeddings,
    values, outputs of attention and feed-forward kernels are multiplied by .67 N^(-1/4), of N
    layers of the decoder by (9N)^(-1/4).

    Reference:
        Huang et al., 2020, Improving Transformer Optimization Through Better Initialization.
    """
    _check_transformer(architecture, "t-fixup")
    _check_branches(architecture, "t-fixup", is_normalized=False)
    encoder, decoder = _count_layers(architecture)
    in_encoder = _encoder_calls(architecture)
    aims = []
    for kernel in architecture.kernels:
        is_decoder = decoder and id(kernel.caller) not in in_encoder
        factor = (9 * decoder) ** -0.25 if is_decoder else 0.67 * max(1, encoder) ** -0.25
        if kernel.is_embedding:
            width = kernel.part.weight.variable.shape[-1]
            aims.append(Aim(kernel, LecunNormal(gain=factor * width**-0.5)))
        else:
            is_scaled = kernel.branch is not None and not _makes_scores(kernel)
            aims.append(Aim(kernel, XavierNormal(gain=factor if is_scaled else 1.0)))
    return aims


def aim_deepnorm(architecture: Architecture) -> list[Aim]:
    """Aim as DeepNorm: a post-norm transformer whose skip connections are multiplied by α.

    Xavier's kernels; values, outputs of attention and feed-forward kernels are multiplied by β. Of
    an encoder or a decoder of N layers alone α = (2N)^(1/4) and β = (8N)^(-1/4); of N and M layers
    of both α is .81 (N⁴M)^(1/16) and (3M)^(1/4), β .87 (N⁴M)^(-1/16) and (12M)^(-1/4).

    Reference:
        Wang et al., 2022, DeepNet: Scaling Transformers to 1,000 Layers.
    """
    _check_transformer(architecture, "deepnorm")
    _check_branches(architecture, "deepnorm")
    encoder, decoder = _count_layers(architecture)
    product = float(encoder**4 * decoder)
    if encoder and decoder:
        alphas = {0.81 * product**0.0625, (3 * decoder) ** 0.25}
        betas = 0.87 * product**-0.0625, (12 * decoder) ** -0.25
    else:
        count = max(encoder, decoder)
        alphas, betas = {(2 * count) ** 0.25}, ((8 * count) ** -0.25,) * 2
    _check_alphas(architecture, alphas)
    in_encoder = _encoder_calls(architecture)
    aims = []
    for kernel in architecture.kernels:
        beta = betas[0] if id(kernel.caller) in in_encoder else betas[1]
        is_scaled = kernel.branch is not None and not _makes_scores(kernel)
        if kernel.is_embedding:
            aims.append(Aim(kernel, kernel.part.initializer))
        else:
            aims.append(Aim(kernel, XavierNormal(gain=beta if is_scaled else 1.0)))
    return aims


def _makes_scores(kernel: Kernel) -> bool:
    """Check for the kernel of queries or keys."""
    return kernel.attention is not None and kernel.part.weight.holder.name in ("query", "key")


def _cross_attentions(architecture: Architecture) -> list[Any]:
    """List the calls of attention on another signal than that of its queries."""
    attentions = {id(kernel.attention) for kernel in architecture.kernels if kernel.attention}
    calls = architecture.graph.calls_before(architecture.graph.outputs)
    return [c for c in calls if id(c.operation) in attentions and len(set(c.inputs[:2])) > 1]


def _encoder_calls(architecture: Architecture) -> set[int]:
    """Return the `id`s of what comes before the signals that a decoder attends to."""
    crossing = _cross_attentions(architecture)
    before = architecture.graph.calls_before(c.inputs[1] for c in crossing)
    return {id(call.operation) for call in before}


def _count_layers(architecture: Architecture) -> tuple[int, int]:
    """Return the numbers of layers of the encoder and of the decoder."""
    found = {id(kernel.attention): kernel for kernel in architecture.kernels if kernel.attention}
    crossing = len(_cross_attentions(architecture))
    return (len(found) - 2 * crossing, crossing) if crossing else (len(found), 0)


def _check_transformer(architecture: Architecture, scheme: str) -> None:
    if not any(kernel.attention for kernel in architecture.kernels):
        raise ValueError(
            f'`model` must have attention layers for scheme="{scheme}". Received: a model without '
            'a MultiHeadAttention or GroupQueryAttention to draw. Use scheme="auto", which takes '
            "any model."
        )


def _check_branches(
    architecture: Architecture, scheme: str, is_normalized: bool | None = None
) -> None:
    """Raise a ValueError for a model without residual branches, or with normalization in them."""
    branches = architecture.residual.branches
    if not branches:
        raise ValueError(
            f'`model` must have residual branches for scheme="{scheme}". Received: a model whose '
            "graph has no sum x + f(x). Build it as a Functional model with keras.layers.Add, or "
            'use scheme="auto".'
        )
    if is_normalized is False and architecture.has_normalization:
        raise ValueError(
            f'`model` must have no normalization layers for scheme="{scheme}", which stands in '
            "for them. Received: a model with some. Build it without, or use "
            'scheme="auto".'
        )


def _check_alphas(architecture: Architecture, alphas: set[float]) -> None:
    """Raise a ValueError unless each skip connection is multiplied by one of some numbers."""
    for branch in architecture.residual.branches:
        makers = architecture.graph.makers.get(branch.skip, [])
        scale = next((getattr(c.operation, "scale", None) for c in makers), None)
        is_set = any(type(call.operation).__name__ == "Multiply" for call in makers)
        if isinstance(scale, int | float):
            is_set = any(math.isclose(scale, alpha, rel_tol=0.01) for alpha in alphas)
        if not is_set:
            shown = " or ".join(f"{alpha:.4g}" for alpha in sorted(alphas))
            raise ValueError(
                f'`model` must multiply its skip connections by {shown} for scheme="deepnorm": '
                "no weight can do that. Received: a sum without this factor, after "
                f"{', '.join(layer.name for layer in branch.last)}. Build it with "
                f"x = Add()([Rescaling({min(alphas):.4g})(x), branch]) before each normalization."
            )
