"""Attention by softmax of scores, scalar products or sums, with heads and masks.

Of T keys, the scores of a query are independent normal numbers but for the part that all keys have
in common, which softmax does not see. So sums over keys of a² and of a a', for the weights a and a'
of two queries, depend on the variance of the scores and their correlation alone; they are means
over drawn scores. The output of values v with the correlation ρ between positions has the square

    E v² (Σ a² + (1 - Σ a²) ρ)

Of a mask only the numbers of keys count that queries see: two queries are taken to see the same
keys, as far as the smaller number goes. Queries that see none, as padding does, are left out.
"""

import functools
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
    window,
)
from keras_initkit.theory.maps import activation_map

layers = keras.layers
Array = npt.NDArray[np.float64]

# Queries that are drawn at least, and their scores in all.
_QUERIES, _SCORES = 512, 2**17
_LEVELS = np.linspace(0.0, 1.0, 5)
# Of masks, so many numbers are looked at.
_NUMBERS = 2**24


class Weights(NamedTuple):
    """Means over queries of sums over keys of their weights a.

    Attributes:
        sums: Array (offsets, levels), Σ a a' of two queries, by their offset and for `_LEVELS` of
            the correlation of their scores.
        passed: Σ a² (1 - 2 a + Σ a²): mean square of the gradient at all scores of a query, for
            independent values and gradients of mean square 1.
        pairs: Number of pairs of queries in an example, by offset.
        keys: Number of keys that are seen.
        queries: Number of queries that see any.
    """

    sums: Array
    passed: float
    pairs: Array
    keys: float
    queries: float

    @property
    def own(self) -> float:
        """Mean of Σ a²."""
        return float(self.sums[len(self.sums) // 2, -1])

    def of_pairs(self, correlation: Array) -> Array:
        """Return the mean of Σ a a' for correlations of scores, by offset along the last axis."""
        last = len(_LEVELS) - 1
        places = np.clip(correlation, 0.0, 1.0) * last
        below = np.minimum(places.astype(int), last - 1)
        low, high = (self.sums[np.arange(len(self.sums)), below + i] for i in (0, 1))
        return np.asarray(low + (places - below) * (high - low))


class Scores(NamedTuple):
    """The statistics of scores.

    Attributes:
        variance: Variance of a query's scores, over keys.
        alike: Correlations of the scores of two queries, by offset, as a signal's pairs.
        at_query: Mean square of the derivative by a number of the query, less its mean over keys.
        at_key: Mean square of the derivative by a number of a key.
        shared: Correlations of these derivatives of two queries' scores, by offset.
    """

    variance: float
    alike: Array
    at_query: float
    at_key: float
    shared: Array


def attention_weights(variance: float, visible: Array) -> Weights:
    """Return the sums of products of softmax's weights of normal scores.

    Args:
        variance: Variance of a query's scores.
        visible: Array (examples, queries, keys), whether a query sees a key.
    """
    rng = np.random.default_rng(0)
    seen = visible.sum(axis=-1)
    fewest, most = int(seen[seen > 0].min(initial=visible.shape[-1])), max(int(seen.max()), 1)
    counts = np.unique(np.geomspace(fewest, most, 8).round().astype(int))
    found = np.empty((len(counts), len(_LEVELS) + 1))
    for i, count in enumerate(counts):
        rows = max(_SCORES // count, _QUERIES)
        first, second = rng.normal(size=(2, rows, count)) * np.sqrt(variance)
        weights = _softmax(first)
        squares = weights**2
        passed = squares * (1.0 - 2.0 * weights + squares.sum(axis=1, keepdims=True))
        found[i, -1] = passed.sum(axis=1).mean()
        for j, level in enumerate(_LEVELS):
            other = _softmax(level * first + np.sqrt(1.0 - level**2) * second)
            found[i, j] = (weights * other).sum(axis=1).mean()
    # Numbers of pairs of queries, by offset and by the larger number of keys.
    size = seen.shape[1]
    pairs = np.zeros((window((size, 1))[0] // 2 + 1, most + 1))
    for offset in range(size):
        first, second = seen[:, offset:], seen[:, : size - offset]
        larger = np.maximum(first, second)[(first > 0) & (second > 0)]
        pairs[min(offset, len(pairs) - 1)] += np.bincount(larger, minlength=most + 1)
    every = np.arange(most + 1)
    means = np.stack([pairs @ np.interp(every, counts, sums) for sums in found.T], axis=1)
    means /= np.maximum(pairs.sum(axis=1, keepdims=True), 1.0)
    both = np.abs(np.arange(1 - len(pairs), len(pairs)))
    return Weights(
        means[both, :-1],
        float(means[0, -1]),
        pairs.sum(axis=1)[both] / len(seen),
        float(visible.any(axis=1).sum(axis=-1).mean()),
        float((seen > 0).sum(axis=1).mean()),
    )


def _see(
    queries: int, keys: int, is_causal: bool, of_query: Any, of_keys: Sequence[Any], own: Any = None
) -> Array:
    """Return an array (examples, queries, keys), whether a query sees a key.

    Args:
        queries: Number of queries.
        keys: Number of keys.
        is_causal: Whether each query sees the keys up to its own place only.
        of_query: Mask (examples, queries), or `None`.
        of_keys: Masks (examples, keys), or `None`.
        own: Mask that can be broadcast to (examples, queries, keys), or `None`.
    """
    parts = [np.ones((1, queries, keys), bool)]
    parts += [np.tri(queries, keys, dtype=bool)[np.newaxis]] * is_causal
    parts += [np.asarray(of_query, bool)[:, :, np.newaxis]] if of_query is not None else []
    parts += [np.asarray(mask, bool)[:, np.newaxis] for mask in of_keys if mask is not None]
    if own is not None:
        parts.append(np.asarray(own, bool).reshape((1,) * (3 - np.ndim(own)) + np.shape(own)))
    # Of many examples of long sequences, some.
    step = max(map(len, parts)) * queries * keys // _NUMBERS + 1
    parts = [part[::step] if len(part) > 1 else part for part in parts]
    return np.asarray(functools.reduce(np.logical_and, parts))


def _multiply(query: Signal, key: Signal, factor: float) -> Scores:
    """Return the statistics of scores that are scalar products times a number."""
    square, own = factor**2, _own_part(key)
    return Scores(
        square * query.shape[-1] * query.second_moment * key.second_moment * own,
        query.pairs,
        square * key.second_moment * own,
        square * query.second_moment,
        query.pairs[0],
    )


def _add(query: Signal, key: Signal, weight: float, scale: float) -> Scores:
    """Return the statistics of sums over units of tanh(scale (q + k)) times weights.

    Args:
        query: The queries q.
        key: The keys k.
        weight: Mean square of the weights.
        scale: The scale.
    """
    total = max(query.variance + key.variance, 1e-300)
    mapped = activation_map(
        lambda x: keras.ops.tanh(x * scale), query.mean + key.mean, query.variance + key.variance
    )
    # Products of two keys of one query, of two queries of one key, and of others.
    elsewhere = (1.0 - _own_part(key)) * key.second_moment - key.mean**2
    queries = query.centred * query.variance
    keys = (query.variance + elsewhere) / total
    alike, others = (queries + key.variance) / total, (queries + elsewhere) / total
    own = max(mapped.second_moment - float(mapped.product(keys)), 1e-300)
    return Scores(
        query.shape[-1] * weight * own,
        (mapped.product(alike) - mapped.product(others)) / own,
        weight * (mapped.slope - float(mapped.slope_product(keys))),
        weight * mapped.slope,
        mapped.slope_product(alike[0]) / max(mapped.slope, 1e-300),
    )


@rule(layers.MultiHeadAttention, layers.GroupQueryAttention)
def _heads(call: Call) -> Effect | None:
    layer, bound = call.operation, call.bound()
    inner = {child.name: child for child in children(layer)}
    names = ("query", "key", "value")
    is_known = {*names, "attention_output"} <= set(inner) and not bound.get(
        "return_attention_scores"
    )
    # From Keras 3.15 on.
    is_known = is_known and not getattr(layer, "_use_gate", False)
    is_known = is_known and getattr(layer, "_sliding_window", None) is None
    if (
        not is_known
        or len(call.signal.shape) != 2
        or np.ndim(call.masks.get("attention_mask", 0)) > 3
    ):
        return None
    tensors = [bound["query"], bound.get("key"), bound["value"]]
    tensors[1] = tensors[2] if tensors[1] is None else tensors[1]
    places = [call.place(tensor) for tensor in tensors]
    arrays = [to_array(inner[name].kernel) for name in names]
    kernels = [kernel_of(array.reshape(len(array), -1)) for array in arrays]
    projected = [
        add_bias(mix(kernel, call.signals[place]), inner[name].bias)._replace(
            shape=(call.signals[place].shape[0], array.shape[-1])
        )
        for kernel, array, place, name in zip(kernels, arrays, places, names, strict=True)
    ]
    output_kernel = to_array(inner["attention_output"].kernel)
    out = kernel_of(output_kernel.reshape(-1, output_kernel.shape[-1]))
    of_keys = (call.masks.get("key_mask"), call.masks.get("value_mask"))
    visible = _see(
        projected[0].shape[0],
        projected[1].shape[0],
        bool(bound.get("use_causal_mask")),
        call.masks.get("query_mask"),
        of_keys,
        call.masks.get("attention_mask"),
    )
    attended = _Attention(
        projected[0],
        projected[1],
        projected[2],
        _multiply(projected[0], projected[1], arrays[1].shape[-1] ** -0.5),
        visible,
        groups=arrays[0].shape[1] / arrays[1].shape[1],
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


@rule(layers.Attention, layers.AdditiveAttention)
def _plain(call: Call) -> Effect | None:
    layer, bound = call.operation, call.bound()
    tensors = [bound["inputs"][place] for place in (0, -1, 1)]  # query, key, value
    is_known = len(call.signal.shape) == 2 and not bound.get("return_attention_scores")
    # Where a query is its own key, its score is not one of many.
    if not is_known or tensors[0] is tensors[1]:
        return None
    places = [call.place(tensor) for tensor in tensors]
    query, key, value = (call.signals[place] for place in places)
    scale = 1.0 if layer.scale is None else to_array(layer.scale)
    square = float(np.mean(np.square(scale)))
    if isinstance(layer, layers.AdditiveAttention):
        scores = _add(query, key, square, 1.0)
    elif layer.score_mode == "concat":
        weight = float(to_array(layer.concat_score_weight)) ** 2
        scores = _add(query, key, weight, math.sqrt(square))
    else:
        scores = _multiply(query, key, math.sqrt(square))
    masks = call.masks.get("mask") or [None, None]
    causal = bool(bound.get("use_causal_mask"))
    visible = _see(query.shape[0], key.shape[0], causal, masks[0], [masks[1]])
    dropout = float(layer.dropout) * call.is_training
    attended = _Attention(query, key, value, scores, visible, groups=1.0, dropout=dropout)

    def back(gradients: Sequence[Gradient]) -> list[Gradient | None]:
        parts: dict[int, list[Gradient]] = {}
        for place, gradient in zip(places, attended.back(gradients[0]), strict=True):
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
        scores: Scores,
        visible: Array,
        *,
        groups: float,
        dropout: float,
    ) -> None:
        self._query, self._key, self._value, self._scores = query, key, value, scores
        self._groups = groups
        self._value_own = _own_part(value)
        self._weights = attention_weights(scores.variance, visible)
        self._square = self._weights.own / (1.0 - dropout)

    @property
    def output(self) -> Signal:
        """The sums of values, of heads side by side."""
        value, weights = self._value, self._weights
        shared = 1.0 - self._value_own
        own = self._square + (1.0 - weights.own) * shared
        same = weights.of_pairs(self._scores.alike)
        # Of two examples, scores are alike only as far as keys at one position are.
        far = value.average(1) / max(value.second_moment, 1e-300)
        near = value.correlation
        pairs = np.stack([same[0] * self._value_own + shared, far + same[1] * (near - far)])
        pairs[(0, *centre(pairs.shape[1:]))] = own
        power = np.full([1] * (len(value.shape) - 1), value.second_moment * own)
        shape = (self._query.shape[0], value.shape[-1])
        return Signal(shape, value.mean, power, pairs / max(own, 1e-300))

    def back(self, gradient: Gradient) -> tuple[Gradient, Gradient, Gradient]:
        """Return the gradients at queries, keys and values, of that at the output."""
        moment, weights = gradient.second_moment, self._weights
        elsewhere = weights.of_pairs(self._scores.alike[0])
        at_values = moment * self._sum(elsewhere, gradient.pairs)
        # The weights of a query sum to one: what all values have in common moves none of them.
        at_scores = moment * self._value.shape[-1] * self._value.second_moment * self._value_own
        at_scores *= weights.passed / max(weights.own, 1e-300)
        at_query = at_scores * self._square * self._scores.at_query
        at_key = at_scores * self._sum(elsewhere * self._scores.shared, gradient.pairs)
        at_key *= self._scores.at_key
        total, count = moment * float((gradient.pairs * weights.pairs).sum()), weights.keys
        shared = (total - count * at_values) / max(count * (count - 1), 1) / max(at_values, 1e-300)
        return (
            _flat_gradient(self._query, at_query, 0.0),
            _flat_gradient(self._key, at_key * self._groups, 0.0),
            _flat_gradient(self._value, at_values * self._groups, float(np.clip(shared, 0.0, 1.0))),
        )

    def _sum(self, products: Array, pairs: Array) -> float:
        """Sum products of weights over pairs of queries with the gradient's correlation, a key."""
        weights, middle = self._weights, centre(pairs.shape)
        terms = weights.pairs * products * pairs
        terms[middle] = weights.queries * self._square
        return float(terms.sum()) / max(weights.keys, 1.0)


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
