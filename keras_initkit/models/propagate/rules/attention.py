"""Attention by softmax of scalar products, with heads and causal masks.

Of T keys, the scores of a query are independent normal numbers but for the part that all keys have
in common, which softmax does not see. So sums over keys of a² and of a a', for the weights a and a'
of two queries, depend on the variance of the scores and their correlation alone; they are means
over drawn scores. The output of values v with the correlation ρ between positions has the square

    E v² (Σ a² + (1 - Σ a²) ρ)
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit.anatomy.layers_inside import children
from keras_initkit.models.propagate.kernel import add_bias, kernel_of, mix, to_array
from keras_initkit.models.propagate.rules.registry import Call, Effect, rule
from keras_initkit.models.propagate.signal import (
    Gradient,
    Signal,
    add_gradients,
    centre,
    pair_weights,
)

layers = keras.layers
Array = npt.NDArray[np.float64]

_ROWS, _LEVELS = 512, np.linspace(0.0, 1.0, 5)


class Weights(NamedTuple):
    """Means over queries of sums over keys of their weights a.

    Attributes:
        sums: Σ a a' of two queries, for `_LEVELS` of the correlation of their scores.
        passed: Σ a² (1 - 2 a + Σ a²): mean square of the gradient at all scores of a query, for
            independent values and gradients of mean square 1.
    """

    sums: Array
    passed: float

    @property
    def own(self) -> float:
        """Mean of Σ a²."""
        return float(self.sums[-1])

    def of_pairs(self, correlation: Any) -> Array:
        """Return the mean of Σ a a' for correlations of scores."""
        return np.interp(np.clip(correlation, 0.0, 1.0), _LEVELS, self.sums)


def attention_weights(variance: float, keys: int, is_causal: bool) -> Weights:
    """Return the sums of products of softmax's weights of normal scores.

    Args:
        variance: Variance of a query's scores.
        keys: Number of keys.
        is_causal: Whether each query sees the keys up to its own place only.
    """
    rng = np.random.default_rng(0)
    counts = np.unique(np.geomspace(1, keys, 8).astype(int)) if is_causal else np.array([keys])
    found = np.empty((len(counts), len(_LEVELS) + 1))
    for i, count in enumerate(counts):
        first, second = rng.normal(size=(2, _ROWS, count)) * np.sqrt(variance)
        weights = _softmax(first)
        squares = weights**2
        passed = squares * (1.0 - 2.0 * weights + squares.sum(axis=1, keepdims=True))
        found[i, -1] = passed.sum(axis=1).mean()
        for j, level in enumerate(_LEVELS):
            other = _softmax(level * first + np.sqrt(1.0 - level**2) * second)
            found[i, j] = (weights * other).sum(axis=1).mean()
    # The mean over queries of what depends on the number of their keys.
    places = np.arange(1, keys + 1) if is_causal else counts
    means = np.array([np.interp(places, counts, sums).mean() for sums in found.T])
    return Weights(means[:-1], float(means[-1]))


@rule(layers.MultiHeadAttention, layers.GroupQueryAttention)
def _heads(call: Call) -> Effect | None:
    layer, bound = call.operation, call.bound()
    masks = ("attention_mask", "return_attention_scores", "query_mask", "value_mask", "key_mask")
    inner = {child.name: child for child in children(layer)}
    names = {"query", "key", "value", "attention_output"}
    if any(bound.get(name) is not None and bound[name] is not False for name in masks):
        return None
    if not names <= set(inner) or len(call.signal.shape) != 2:
        return None
    tensors = [bound["query"], bound.get("key"), bound["value"]]
    tensors[1] = tensors[2] if tensors[1] is None else tensors[1]
    places = [call.place(tensor) for tensor in tensors]
    arrays = [to_array(inner[name].kernel) for name in ("query", "key", "value")]
    kernels = [kernel_of(array.reshape(len(array), -1)) for array in arrays]
    projected = [
        add_bias(mix(kernel, call.signals[place]), inner[name].bias)
        for kernel, place, name in zip(kernels, places, ("query", "key", "value"), strict=True)
    ]
    output_kernel = to_array(inner["attention_output"].kernel)
    out = kernel_of(output_kernel.reshape(-1, output_kernel.shape[-1]))
    attended = _Attention(
        projected[0],
        projected[1],
        projected[2],
        groups=arrays[0].shape[1] / arrays[1].shape[1],
        is_causal=bool(bound.get("use_causal_mask")),
        dropout=float(layer.dropout or 0.0) * call.is_training,
    )
    mixed = mix(out, attended.output)._replace(shape=call.shape)
    output = add_bias(mixed, inner["attention_output"].bias)

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        parts: dict[int, list[Gradient]] = {}
        found = attended.back(gradients[0].scale(out.back))
        for place, kernel, gradient in zip(places, kernels, found, strict=True):
            parts.setdefault(place, []).append(gradient.scale(kernel.back))
        return [_sum(parts.get(place)) for place in range(len(call.signals))]

    return Effect((output,), back)


@rule(layers.Attention)
def _plain(call: Call) -> Effect | None:
    layer, bound = call.operation, call.bound()
    tensors = [bound["inputs"][place] for place in (0, -1, 1)]  # query, key, value
    is_known = type(layer) is layers.Attention and layer.score_mode == "dot"  # others add
    is_known = is_known and bound.get("mask") is None
    is_known = is_known and not bound.get("return_attention_scores")
    # Where a query is its own key, its score is not one of many.
    if not is_known or tensors[0] is tensors[1] or len(call.signal.shape) != 2:
        return None
    places = [call.place(tensor) for tensor in tensors]
    query, key, value = (call.signals[place] for place in places)
    factor = math.sqrt(query.shape[-1])  # scores are not divided by it here
    if layer.scale is not None:
        factor *= float(to_array(layer.scale))
    attended = _Attention(
        query.scale(factor),
        key,
        value,
        groups=1.0,
        is_causal=bool(bound.get("use_causal_mask")),
        dropout=float(layer.dropout) * call.is_training,
    )

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        at_query, at_key, at_value = attended.back(gradients[0])
        parts: dict[int, list[Gradient]] = {}
        for place, gradient in zip(
            places, (at_query.scale(factor**2), at_key, at_value), strict=True
        ):
            parts.setdefault(place, []).append(gradient)
        return [_sum(parts.get(place)) for place in range(len(call.signals))]

    return Effect((attended.output._replace(shape=call.shape),), back)


class _Attention:
    """Attention between projected queries, keys and values, forth and back."""

    def __init__(
        self,
        query: Signal,
        key: Signal,
        value: Signal,
        *,
        groups: float,
        is_causal: bool,
        dropout: float,
    ) -> None:
        self._query, self._key, self._value = query, key, value
        self._groups = groups
        self._queries, self._keys = query.shape[0], key.shape[0]
        self._key_own = _own_part(key)
        self._value_own = _own_part(value)
        # Scores are divided by √units.
        variance = query.second_moment * key.second_moment * self._key_own
        self._weights = attention_weights(variance, self._keys, is_causal)
        self._square = self._weights.own / (1.0 - dropout)

    @property
    def output(self) -> Signal:
        """The sums of values, of heads side by side."""
        value, weights = self._value, self._weights
        shared = 1.0 - self._value_own
        own = self._square + (1.0 - weights.own) * shared
        same = weights.of_pairs(self._query.pairs)
        # Of two examples, scores are alike only as far as keys at one position are.
        far = value.average(1) / max(value.second_moment, 1e-300)
        near = value.correlation
        pairs = np.stack([same[0] * self._value_own + shared, far + same[1] * (near - far)])
        pairs[(0, *centre(pairs.shape[1:]))] = own
        power = np.full([1] * (len(value.shape) - 1), value.second_moment * own)
        shape = (self._queries, value.shape[-1])
        return Signal(shape, value.mean, power, pairs / max(own, 1e-300))

    def back(self, gradient: Gradient) -> tuple[Gradient, Gradient, Gradient]:
        """Return the gradients at queries, keys and values, of that at the output."""
        moment, ratio = gradient.second_moment, self._queries / self._keys
        elsewhere = self._weights.of_pairs(self._query.pairs[0])
        at_values = ratio * moment * self._sum(elsewhere, gradient.pairs)
        # The weights of a query sum to one: what all values have in common moves none of them.
        passed = self._weights.passed / max(self._weights.own, 1e-300)
        at_scores = moment * self._value.second_moment * self._value_own * passed
        at_query = at_scores * self._square * self._key.second_moment * self._key_own
        alike = elsewhere * self._query.pairs[0]
        at_key = at_scores * ratio * self._query.second_moment * self._sum(alike, gradient.pairs)
        total = moment * self._queries**2 * float((gradient.pairs * self._shares).sum())
        count = self._keys
        shared = (total - count * at_values) / max(count * (count - 1), 1) / max(at_values, 1e-300)
        return (
            _flat_gradient(self._query, at_query, 0.0),
            _flat_gradient(self._key, at_key * self._groups, 0.0),
            _flat_gradient(self._value, at_values * self._groups, float(np.clip(shared, 0.0, 1.0))),
        )

    @property
    def _shares(self) -> Array:
        return pair_weights(self._query.shape)

    def _sum(self, products: Array, pairs: Array) -> float:
        """Sum products of weights over all pairs of queries with the gradient's correlation."""
        middle = centre(pairs.shape)
        terms = self._shares * products * pairs * self._queries
        terms[middle] = self._shares[middle] * self._queries * self._square
        return float(terms.sum())


def _own_part(signal: Signal) -> float:
    """Return the share of the second moment that positions have not in common."""
    return float(1.0 - max(signal.spread((2, 1)).pairs[0, 0], 0.0))


def _flat_gradient(signal: Signal, moment: float, correlation: float) -> Gradient:
    pairs = np.full(signal.pairs.shape[1:], correlation)
    pairs[centre(pairs.shape)] = 1.0
    return Gradient(np.full([1] * (len(signal.shape) - 1), moment), pairs)


def _sum(gradients: Sequence[Gradient] | None) -> Gradient | None:
    return add_gradients(gradients) if gradients else None


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
