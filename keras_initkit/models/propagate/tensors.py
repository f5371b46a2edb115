"""Tensors on the walk through a model: signals, gradients, layout, and the data at them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_initkit.models.propagate.rules.registry import spatial_rank
from keras_initkit.models.propagate.sampling import measure
from keras_initkit.models.propagate.signal import (
    Gradient,
    Signal,
    add_gradients,
    white_gradient,
)


class Tensor:
    """A tensor on the walk: its signal, and the gradients that arrive at it.

    Args:
        signal: The statistics of its values, with the units as last axis.
        units: The tensor's own axis of units, counted from the end: with channels first -3 in a
            map of two axes.
        values: The values for a batch of data, if they are known.
        mask: Array (examples, steps), false at steps that are padding; `None` if there are none.
    """

    def __init__(
        self, signal: Signal, units: int = -1, values: Any = None, mask: Any = None
    ) -> None:
        self.signal, self.values, self.mask = signal, values, mask
        self.units = self._limit(units)
        self.gradients: list[Gradient] = []

    @property
    def gradient(self) -> Gradient | None:
        """The sum of all gradients; `None` if there are none."""
        return add_gradients(self.gradients) if self.gradients else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its own shape without the batch."""
        shape = list(self.signal.shape)
        if shape:
            shape.insert(len(shape) + self.units, shape.pop())
        return tuple(shape)

    def average(self, power: Any) -> float:
        """Return the mean of second moments at positions, without steps that the mask hides."""
        if self.mask is None or not power.ndim or len(power) != self.mask.shape[1]:
            return float(power.mean())
        return float(
            np.average(
                power.reshape(len(power), -1).mean(axis=1), weights=self.mask.mean(axis=0) + 1e-9
            )
        )

    def view(self, units: int) -> Signal:
        """Return the signal as a layer sees it that has its units along an axis."""
        units = self._limit(units)
        if units == self.units:
            return self.signal
        if self.values is not None:
            return measure(np.moveaxis(self.values, units, -1))
        return self.signal.spread(move_last(self.shape, units))

    def arrive(self, gradient: Gradient, units: int) -> None:
        """Take a gradient at that view."""
        if self._limit(units) != self.units:
            gradient = white_gradient(self.signal.shape, gradient.second_moment)
        self.gradients.append(gradient)

    def _limit(self, units: int) -> int:
        """Return the last axis in place of one that a tensor without positions has not."""
        return units if len(self.signal.shape) >= -units else -1


def move_last(shape: Sequence[int], units: int) -> tuple[int, ...]:
    """Return a shape with its axis of units behind the others; one without that axis as it is."""
    sizes = list(shape)
    if len(sizes) >= -units:
        sizes.append(sizes.pop(units))
    return tuple(sizes)


def find_units(operation: Any, inputs: Sequence[Tensor], is_free: bool) -> int:
    """Return the axis of units of a call: its layer's, or the one that its inputs have.

    Args:
        operation: The layer or operation.
        inputs: Its inputs.
        is_free: Whether it does the same to any layout.
    """
    if getattr(operation, "data_format", None) == "channels_first":
        rank = spatial_rank(operation)
        return -len(inputs[0].signal.shape) if rank is None else -1 - rank
    alike = len({len(tensor.signal.shape) for tensor in inputs}) == 1
    return min(tensor.units for tensor in inputs) if is_free and alike else -1
