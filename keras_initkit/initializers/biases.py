"""Biases set to prior knowledge: the frequencies of classes, or how long to remember."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.seeds import SeedOfAnother
from keras_initkit.checks import check_choice, check_count, check_number
from keras_initkit.initializers.base import check_call, floating

# Gates of a cell, side by side in its bias.
_GATES = {"lstm": 4, "gru": 3}


@keras.saving.register_keras_serializable(package="keras_initkit")
class PriorBias(keras.initializers.Initializer):
    """Sets the bias of an output layer so that it predicts class frequencies at the start.

    Without it the first epochs of a training on rare classes are spent on learning how rare they
    are. The outputs are p for inputs of zero, and nearly so if the kernel is small.

    | activation | bias | for the losses |
    |---|---|---|
    | `"sigmoid"` | log(p/(1 - p)) | binary crossentropy, and its focal loss |
    | `"softmax"` | log p | categorical crossentropy, and its focal loss |

    Focal losses need it: otherwise the many examples of the frequent class have most of the loss,
    and training begins unstably. Their paper sets p of a rare foreground to .01.

    Examples:
    >>> rare = keras.layers.Dense(1, "sigmoid", bias_initializer=PriorBias(0.01))
    >>> counts = [900, 90, 10]
    >>> layer = keras.layers.Dense(3, "softmax", bias_initializer=PriorBias(counts, "softmax"))

    Args:
        prior: For "sigmoid" the probability of each output's class, in (0, 1): a number for
            all, or a sequence. For "softmax" a sequence of positive numbers, counts or
            frequencies; only their proportions count.
        activation: "sigmoid" or "softmax", the function of the probabilities, be it in the
            layer or in the loss (`from_logits=True`).

    Raises:
        ValueError: If an argument is not as described; or, when called, if the shape is not
            that of `prior`, or `dtype` is no floating type.

    Reference:
        Lin et al., 2017, Focal Loss for Dense Object Detection, section 3.3 for the principle,
        section 4.1 (Initialization) for the bias of "sigmoid".
    """

    def __init__(self, prior: float | Sequence[float], activation: str = "sigmoid") -> None:
        check_choice("activation", activation, ("sigmoid", "softmax"))
        try:
            values = np.asarray(prior, np.float64)
        except (TypeError, ValueError):
            values = np.array([])
        in_range = (values > 0) & (values < (1 if activation == "sigmoid" else np.inf))
        if activation == "sigmoid" and not (values.ndim <= 1 and values.size and in_range.all()):
            raise ValueError(
                '`prior` must be a probability, more than 0 and less than 1, for "sigmoid"; or a '
                f"sequence of one for each output. Received: prior={prior!r}"
            )
        if activation == "softmax" and not (values.ndim == 1 and values.size and in_range.all()):
            raise ValueError(
                '`prior` must be a sequence of a positive number for each class, for "softmax". '
                f"Received: prior={prior!r}. For a class that is not in the data write 1."
            )
        self.prior = values.tolist()
        self.activation = activation

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of biases."""
        check_call(kwargs)
        dtype = floating(dtype)
        prior = np.asarray(self.prior)
        if prior.ndim and tuple(shape) != prior.shape:
            raise ValueError(
                "`prior` must have a number for each output of the layer. Received: "
                f"{len(prior)} numbers, and a bias of shape {tuple(shape)}"
            )
        if self.activation == "sigmoid":
            values = np.log(prior) - np.log1p(-prior)
        else:
            values = np.log(prior / prior.sum())
        values = np.broadcast_to(values, shape).astype(np.float32)
        return keras.ops.cast(keras.ops.convert_to_tensor(values), dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"prior": self.prior, "activation": self.activation}


@keras.saving.register_keras_serializable(package="keras_initkit")
class ChronoBias(SeedOfAnother, keras.initializers.Initializer):
    """Sets the biases of a gated recurrent layer so that it remembers for up to `longest` steps.

    A unit with the bias b in its forget gate forgets within about 1 + exp(b) steps. With
    b = log U, U uniform in [1, longest - 1], these times are spread from 2 to `longest` steps. In
    an LSTM the input gate has -b, and the other gates 0; in a GRU the update gate has b.

    Examples:
    >>> initializer = ChronoBias(units=64, longest=200, seed=0)
    >>> layer = keras.layers.LSTM(
    ...     64, bias_initializer=initializer, unit_forget_bias=False
    ... )
    >>> layer = keras.layers.GRU(64, bias_initializer=ChronoBias(64, 200, cell="gru"))

    Args:
        units: Positive integer, the units of the layer; of a ConvLSTM, its filters.
        longest: Number, at least 2, of steps between two events that depend on each other.
        cell: "lstm" or "gru". An LSTM, or a ConvLSTM, must have `unit_forget_bias=False`.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: If an argument is not as described; or, when called, if the shape is not that
            of the cell's bias, as where the layer sets the bias of its forget gate itself, or
            `dtype` is no floating type.

    Reference:
        Tallec & Ollivier, 2018, Can Recurrent Neural Networks Warp Time?, section 2: equation 16
        for an LSTM; for a GRU the bias of gates such as in equation 10, with T_min = 2.
    """

    def __init__(self, units: int, longest: float, cell: str = "lstm", seed: Any = None) -> None:
        self.units = check_count("units", units, "those of the layer")
        self.longest = check_number("longest", longest, "a number of steps", least=2)
        self.cell = check_choice("cell", cell, _GATES)
        self.initializer = keras.initializers.RandomUniform(1.0, self.longest - 1.0, seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of biases of shape (4 units,); for GRU (3 units,) or (2, 3 units)."""
        check_call(kwargs)
        dtype = floating(dtype)
        _check_shape(shape, self.units, self.cell)
        bias = keras.ops.log(self.initializer((self.units,), dtype="float32"))
        zeros = keras.ops.zeros_like(bias)
        # Keras's order: input, forget, candidate, output; and update, reset, candidate.
        parts = [-bias, bias, zeros, zeros] if self.cell == "lstm" else [bias, zeros, zeros]
        values = keras.ops.concatenate(parts)
        if len(shape) == 2:
            # A GRU that resets after the product has biases of the inputs and of the state.
            rest = keras.ops.zeros((shape[0] - 1, shape[1]))
            values = keras.ops.concatenate([values[None], rest])
        return keras.ops.cast(values, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        seed = self.initializer.get_config()["seed"]
        return {"units": self.units, "longest": self.longest, "cell": self.cell, "seed": seed}


@keras.saving.register_keras_serializable(package="keras_initkit")
class ForgetGateBias(keras.initializers.Initializer):
    """Sets the bias of the gate for remembering in a recurrent layer, and the others to 0.

    In an LSTM this is the forget gate, in a GRU the update gate. With a bias b the gate begins
    near sigmoid(b): a state, and a gradient, lasts for about 1 + exp(b) steps, and for 2 with b 0.
    `unit_forget_bias=True`, Keras's own, is b = 1 for an LSTM; a GRU has no such argument.

    Examples:
    >>> layer = keras.layers.GRU(64, bias_initializer=ForgetGateBias(64, 2.0, cell="gru"))
    >>> layer = keras.layers.LSTM(
    ...     64, bias_initializer=ForgetGateBias(64, 3.0), unit_forget_bias=False
    ... )

    Args:
        units: As in `ChronoBias`.
        value: Number, the bias of the gate.
        cell: "lstm" or "gru". An LSTM, or a ConvLSTM, must have `unit_forget_bias=False`.

    Raises:
        ValueError: As `ChronoBias`.

    Reference:
        Gers, Schmidhuber & Cummins, 2000, Learning to Forget: Continual Prediction with LSTM;
        Jozefowicz, Zaremba & Sutskever, 2015, An Empirical Exploration of Recurrent Network
        Architectures.
    """

    def __init__(self, units: int, value: float = 1.0, cell: str = "lstm") -> None:
        self.units = check_count("units", units, "those of the layer")
        self.value = check_number("value", value, "the bias of the gate")
        self.cell = check_choice("cell", cell, _GATES)

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of biases of shape (4 units,); for GRU (3 units,) or (2, 3 units)."""
        check_call(kwargs)
        dtype = floating(dtype)
        _check_shape(shape, self.units, self.cell)
        first = self.units if self.cell == "lstm" else 0
        values = np.zeros(shape, np.float32)
        # Of a GRU with two biases, which are added, that of the inputs.
        row = values if len(shape) == 1 else values[0]
        row[first : first + self.units] = self.value
        return keras.ops.cast(keras.ops.convert_to_tensor(values), dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"units": self.units, "value": self.value, "cell": self.cell}


def _check_shape(shape: Sequence[int], units: int, cell: str) -> None:
    """Raise a ValueError unless a cell of so many units has a bias of some shape."""
    whole = _GATES[cell] * units
    shapes = [(whole,)] if cell == "lstm" else [(whole,), (2, whole)]
    if tuple(shape) in shapes:
        return
    fix = "Pass the number of units of the layer, or of filters of a ConvLSTM, as `units`."
    if cell == "lstm" and tuple(shape) in [(units,), (2 * units,)]:
        fix = (
            "It is a part of the bias of an LSTM with `unit_forget_bias=True`, which sets the "
            "bias of the forget gate itself: pass `unit_forget_bias=False` to the layer."
        )
    raise ValueError(
        f"`shape` must be that of the bias of an {cell!r} cell of {units} units, "
        f"{' or '.join(map(str, shapes))}. Received: shape={tuple(shape)}. {fix}"
    )
