"""The rules of all families."""

from keras_initkit.models.propagate.rules import (
    activations,
    attention,
    convolutions,
    dense,
    max_pooling,
    merging,
    noise,
    normalization,
    operations,
    pooling,
    recurrent,
    shapes,
)
from keras_initkit.models.propagate.rules.registry import RULES, find_rule

FAMILIES = [
    *(activations, attention, convolutions, dense, max_pooling, merging, noise, normalization),
    *(operations, pooling, recurrent, shapes),
]

__all__ = ["FAMILIES", "RULES", "find_rule"]
