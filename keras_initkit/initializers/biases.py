"""Biases that say at the start what is known before training."""

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.anatomy.seeds import SeedOfAnother
from keras_initkit.initializers.base import check_call, check_choice, floating, is_finite_number


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
        activation: "sigmoid" or "softmax", what the probabilities are read with, be it in the
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
                f"Received: prior={prior!r}. For a class that is not in the data count 1."
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
    >>> initializer = ChronoBias(longest=200, seed=0)
    >>> layer = keras.layers.LSTM(
    ...     64, bias_initializer=initializer, unit_forget_bias=False
    ... )
    >>> layer = keras.layers.GRU(64, bias_initializer=ChronoBias(200, cell="gru"))

    Args:
        longest: Number, at least 2, of steps between what depends on each other.
        cell: "lstm" or "gru". An LSTM, or a ConvLSTM, must have `unit_forget_bias=False`.
        seed: As in `VarianceScaling`.

    Raises:
        ValueError: If an argument is not as described; or, when called, if the shape is not that
            of the cell's bias, the layer sets the bias of its forget gate itself, or `dtype` is
            no floating type.

    Reference:
        Tallec & Ollivier, 2018, Can Recurrent Neural Networks Warp Time?, section 2: equation 16
        for an LSTM; for a GRU the bias of gates such as in equation 10, with T_min = 2.
    """

    def __init__(self, longest: float, cell: str = "lstm", seed: Any = None) -> None:
        check_choice("cell", cell, ("lstm", "gru"))
        if not is_finite_number(longest) or longest < 2:
            raise ValueError(
                f"`longest` must be a number of steps, at least 2. Received: longest={longest!r}"
            )
        self.longest = float(longest)
        self.cell = cell
        self.initializer = keras.initializers.RandomUniform(1.0, self.longest - 1.0, seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of biases of shape (4 units,); for GRU (3 units,) or (2, 3 units)."""
        check_call(kwargs)
        dtype = floating(dtype)
        units = _units(shape, self.cell)
        bias = keras.ops.log(self.initializer((units,), dtype="float32"))
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
        return {"longest": self.longest, "cell": self.cell, "seed": seed}


@keras.saving.register_keras_serializable(package="keras_initkit")
class ForgetGateBias(keras.initializers.Initializer):
    """Sets the bias of the gate that lets a recurrent layer remember, and the others to 0.

    In an LSTM this is the forget gate, in a GRU the update gate. With a bias b the gate begins
    near sigmoid(b): a state, and a gradient, lasts for about 1 + exp(b) steps, and for 2 with b 0.
    `unit_forget_bias=True`, Keras's own, is b = 1 for an LSTM; a GRU has nothing of that kind.

    Examples:
    >>> layer = keras.layers.GRU(64, bias_initializer=ForgetGateBias(2.0, cell="gru"))
    >>> layer = keras.layers.LSTM(
    ...     64, bias_initializer=ForgetGateBias(3.0), unit_forget_bias=False
    ... )

    Args:
        value: Number, the bias of the gate.
        cell: "lstm" or "gru". An LSTM, or a ConvLSTM, must have `unit_forget_bias=False`.

    Raises:
        ValueError: As `ChronoBias`.

    Reference:
        Gers, Schmidhuber & Cummins, 2000, Learning to Forget: Continual Prediction with LSTM;
        Jozefowicz, Zaremba & Sutskever, 2015, An Empirical Exploration of Recurrent Network
        Architectures.
    """

    def __init__(self, value: float = 1.0, cell: str = "lstm") -> None:
        check_choice("cell", cell, ("lstm", "gru"))
        if not is_finite_number(value):
            raise ValueError(f"`value` must be a finite number. Received: value={value!r}")
        self.value = float(value)
        self.cell = cell

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a tensor of biases of shape (4 units,); for GRU (3 units,) or (2, 3 units)."""
        check_call(kwargs)
        dtype = floating(dtype)
        units = _units(shape, self.cell)
        first = units if self.cell == "lstm" else 0
        values = np.zeros(shape, np.float32)
        # Of a GRU with two biases, which are added, that of the inputs.
        row = values if len(shape) == 1 else values[0]
        row[first : first + units] = self.value
        return keras.ops.cast(keras.ops.convert_to_tensor(values), dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"value": self.value, "cell": self.cell}


def _units(shape: Sequence[int], cell: str) -> int:
    """Return the units of a cell with a bias of some shape; a ValueError if it has none."""
    if cell == "lstm" and _is_part_of_a_bias():
        raise ValueError(
            "`unit_forget_bias` of the layer must be False for an initializer of the biases of "
            "all gates. Received: unit_forget_bias=True, with which the layer sets that of the "
            "forget gate itself. Write `LSTM(..., bias_initializer=..., unit_forget_bias=False)`."
        )
    gates = {"lstm": 4, "gru": 3}[cell]
    if len(shape) not in (1, 2) or shape[-1] % gates:
        raise ValueError(
            f'`shape` must be that of the bias of an "{cell}" cell, whose last axis is a '
            f"multiple of {gates}. Received: shape={tuple(shape)}"
        )
    return shape[-1] // gates


def _is_part_of_a_bias() -> bool:
    """Whether an LSTM asks for the biases of some of its gates, to set the others itself.

    No shape tells: those of the input gate of 16 units look like those of all gates of 4. So this
    looks for the function in which Keras puts the bias together, by its name.
    """
    frame = sys._getframe(1)
    for _ in range(4):  # from here to the one that called the initializer, or a wrapper of it
        if frame.f_back is None:
            return False
        frame = frame.f_back
        is_kerass = str(frame.f_globals.get("__name__")).startswith("keras.")
        if is_kerass and frame.f_code.co_name == "bias_initializer":
            return True
    return False
