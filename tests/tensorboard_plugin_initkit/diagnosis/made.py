"""Histories that are made up: healthy ones, and some with one fault each."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorboard_plugin_initkit.record.chunk import Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Variable

EVERY_10 = np.arange(0, 130, 10)
EVERY_STEP = np.arange(0, 130)
UNITS = 8


@dataclasses.dataclass
class Made:
    """A record of dense layers that is made up: healthy, until something is changed.

    All arrays but `loss` are (steps, layers).
    """

    steps: NDArray[np.int64]
    bias: NDArray[Any]  # RMS of the gradients
    kernel: NDArray[Any]
    dead: NDArray[Any]  # fraction of units
    nonfinite: NDArray[Any]
    weight: NDArray[Any]
    update: NDArray[Any]
    loss: NDArray[Any]
    rate: NDArray[Any]
    with_bias: bool = True

    @property
    def elapsed(self) -> NDArray[np.int64]:
        return self.steps - self.steps[0]

    def history(self, rows: Any = slice(None), max_steps: int | None = None) -> GradientHistory:
        variables, columns = [], []
        for i in range(self.bias.shape[1]):
            layer = f"net/dense_{i}"
            variables.append(Variable(f"{layer}/kernel", layer, (UNITS, UNITS)))
            columns.append(self._kernel(i))
            if self.with_bias:
                variables.append(Variable(f"{layer}/bias", layer, (UNITS,)))
                columns.append(self._bias(i))
        values = {
            name: np.stack([column[name] for column in columns], axis=1).astype(np.float32)
            for name in columns[0]
        }
        totals = {"loss": self.loss[:, None], "learning_rate": self.rate[:, None]}
        chunk = Chunk(Layout(tuple(variables)), self.steps, values, totals).select(rows)
        history = GradientHistory(max_steps=max_steps)
        for begin in range(0, len(chunk.steps), 64):
            history.append(chunk.select(slice(begin, begin + 64)))
        return history

    def _kernel(self, i: int) -> dict[str, NDArray[Any]]:
        dead = np.where(self.kernel[:, i] == 0, 1.0, self.dead[:, i])
        return self._column(i, self.kernel[:, i], UNITS * UNITS, dead) | {
            "dead_units": dead * np.nan if self.with_bias else dead,
            "weight_norm": self.weight[:, i],
            "update_norm": self.weight[:, i] * self.update[:, i],
        }

    def _bias(self, i: int) -> dict[str, NDArray[Any]]:
        dead = np.where(self.bias[:, i] == 0, 1.0, self.dead[:, i])
        return self._column(i, self.bias[:, i], UNITS, dead) | {
            "dead_units": dead,
            "weight_norm": np.zeros(len(self.steps)),
            "update_norm": self.update[:, i] * 1e-3,
        }

    def _column(
        self, i: int, rms: NDArray[Any], size: int, zeros: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        norm = np.where(self.nonfinite[:, i] > 0, np.nan, rms * np.sqrt(size))
        return {
            "norm": norm,
            "mean_abs": norm,
            "max_abs": norm,
            "zeros": zeros,
            "nonfinite": self.nonfinite[:, i],
        }


def made(steps: NDArray[np.int64] = EVERY_10, layers: int = 12, seed: int = 0) -> Made:
    """Gradients within a factor of 3 of each other, and a loss that does not fall."""
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.4, (2, len(steps), layers)))
    ones = np.ones((len(steps), layers))
    return Made(
        steps,
        bias=noise[0],
        kernel=noise[1],
        dead=0.1 * ones,
        nonfinite=0.0 * ones,
        weight=ones,
        update=1e-3 * ones,
        loss=np.full(len(steps), 2.3),
        rate=np.full(len(steps), 1e-3),
    )


def falls(record: Made, factor: float) -> None:
    """Gradients fall by a factor a layer from output to input."""
    depth = record.bias.shape[1]
    record.bias *= factor ** np.arange(depth - 1, -1, -1)
    record.kernel *= factor ** np.arange(depth - 1, -1, -1)


def learns(record: Made) -> None:
    record.loss = 2.3 * 0.97**record.elapsed


# Healthy.


def nothing(record: Made) -> None:
    pass


def scale(factor: float) -> Callable[[Made], None]:
    def change(record: Made) -> None:
        record.bias *= factor
        record.kernel *= factor

    return change


def zero_head(record: Made) -> None:
    """A head of zeros: nothing comes through at first, then little of it."""
    passed = 1e-3 * record.elapsed[:, None]
    record.bias[:, :-1] *= passed
    record.kernel[:, :-1] *= passed


def zero_branches(record: Made) -> None:
    """Residual branches that end in zeros: their layers wait for one update."""
    record.bias[0, 1:-1:2] = record.kernel[0, 1:-1:2] = 0


def key_biases(record: Made) -> None:
    """A softmax does not change with them: rounding errors."""
    record.bias[:, 1::3] *= 1e-9
    record.bias[::2, 4:5] = 0


def biases_before_normalization(record: Made) -> None:
    record.bias[:, 0::2] *= 1e-8


def converged(record: Made) -> None:
    decay = np.exp(-0.2 * record.elapsed)
    record.bias *= decay[:, None]
    record.kernel *= decay[:, None]
    record.loss = 2.3 * decay


def hinge_reached(record: Made) -> None:
    """A hinge loss that is exactly zero has a gradient of exactly zero."""
    late = record.elapsed >= 50
    record.bias[late] = record.kernel[late] = 0
    record.loss = np.where(late, 0.0, 2.3)


def hinge_reached_before(record: Made) -> None:
    record.bias[:] = record.kernel[:] = 0
    record.loss[:] = 0


def two_records_of_zeros(record: Made) -> None:
    record.bias[5:7] = record.kernel[5:7] = 0


def unknown_loss(record: Made) -> None:
    record.loss[:] = np.nan


def negative_loss(record: Made) -> None:
    record.loss = -np.linspace(1, 2, len(record.steps))


def wide_and_narrow(record: Made) -> None:
    record.bias[:, ::3] *= 30
    record.kernel[:, ::2] /= 30


def half_dead(record: Made) -> None:
    record.dead[:, 1] = 0.75


def mild_slope(record: Made) -> None:
    """Xavier with 10 ReLU layers: it learns."""
    falls(record, 0.71)


def mending(record: Made) -> None:
    """A slope of 1e-5 that an adaptive optimizer takes away in 35 steps."""
    left = np.clip(1 - record.elapsed / 35, 0, 1)
    depth = record.bias.shape[1]
    record.bias *= np.exp(np.log(1e-5) * left[:, None] * np.linspace(1, 0, depth))


def steep_but_learning(record: Made) -> None:
    falls(record, 0.3)
    learns(record)


def scales_like_a_deep_residual_network(record: Made) -> None:
    falls(record, 1 / 1.5)
    record.bias = record.bias[:, ::-1] / record.bias.max()


def warm_up(record: Made) -> None:
    record.rate = 1e-9 * (1.0 + record.elapsed)
    record.update = np.repeat(record.rate[:, None], record.bias.shape[1], axis=1)


def no_weights_at_first(record: Made) -> None:
    """A logistic regression from zeros, say: its weights grow beyond any factor."""
    record.weight *= record.elapsed[:, None]


def gradients_grow_as_the_loss_falls(record: Made) -> None:
    record.bias *= np.exp(np.minimum(0.1 * record.elapsed, 20))[:, None]
    learns(record)


def a_batch_of_large_gradients(record: Made) -> None:
    record.bias[6] *= 1e6
    record.kernel[6] *= 1e6
    record.loss[6] = 1e3


HEALTHY = [
    nothing,
    scale(1e-12),
    scale(1e12),
    zero_head,
    zero_branches,
    key_biases,
    biases_before_normalization,
    converged,
    hinge_reached,
    hinge_reached_before,
    two_records_of_zeros,
    unknown_loss,
    negative_loss,
    wide_and_narrow,
    half_dead,
    mild_slope,
    mending,
    steep_but_learning,
    scales_like_a_deep_residual_network,
    warm_up,
    no_weights_at_first,
    gradients_grow_as_the_loss_falls,
    a_batch_of_large_gradients,
]


# Faulty, with what is to be said of 12 layers.


def vanishes(record: Made) -> None:
    falls(record, 0.3)


def vanishes_in_kernels_alike(record: Made) -> None:
    """Weights of ReLU layers too small: only biases show a slope."""
    record.bias *= 0.3 ** np.arange(record.bias.shape[1] - 1, -1, -1)
    record.kernel *= 1e-6


def vanishes_without_biases(record: Made) -> None:
    record.with_bias = False
    falls(record, 0.3)


def vanishes_into_nothing(record: Made) -> None:
    """ReLU units that are hardly reached die: it is said once."""
    falls(record, 0.1)
    record.bias[3:, :8] = record.kernel[3:, :8] = 0


def vanishes_with_a_biased_head(record: Made) -> None:
    """The head fits the skew of the targets, and there it stays."""
    falls(record, 0.3)
    record.loss = np.where(record.elapsed < 8, 2.3, 0.3)
    record.loss[0] = 0.5


def explodes(record: Made) -> None:
    falls(record, 1 / 4)
    record.bias = record.bias[:, ::-1]
    record.kernel[:] = 1e6
    record.loss = 1e9 * 0.8**record.elapsed


def diverges(record: Made) -> None:
    grown = np.exp(np.minimum(0.1 * record.elapsed, 15))
    record.bias *= grown[:, None] ** 2
    record.loss = 2.3 * grown


def forward_overflow(record: Made) -> None:
    record.nonfinite[:] = 8


def backward_overflow(record: Made) -> None:
    record.nonfinite[4:, :7] = 8


def lost_weights(record: Made) -> None:
    """The step that broke them was not recorded."""
    record.weight[4:, :1] = np.nan


def dead_layer(record: Made) -> None:
    record.bias[:, :5] = record.kernel[:, :5] = 0


def dies_later(record: Made) -> None:
    record.bias[8:, :5] = record.kernel[8:, :5] = 0


def dies_after_a_large_loss(record: Made) -> None:
    dead_layer(record)
    record.loss[0] = 1e25


def mostly_dead_layer(record: Made) -> None:
    record.dead[:, 4] = 0.95


def all_zero_weights(record: Made) -> None:
    record.bias[:, :-1] = record.kernel[:, :] = 0
    record.weight[:] = 0


def nothing_at_all(record: Made) -> None:
    record.bias[:] = record.kernel[:] = 0


def not_connected(record: Made) -> None:
    for array in (record.bias, record.kernel, record.dead, record.nonfinite, record.weight):
        array[:, 2:4] = np.nan


def large_steps(record: Made) -> None:
    record.weight = record.weight * np.minimum(1 + 4.0 * record.elapsed, 30)[:, None]


def small_steps(record: Made) -> None:
    record.update[:] = 1e-9


FAULTY: list[tuple[Callable[[Made], None], list[tuple[str, str]], int]] = [
    (vanishes, [("vanishing", "net/dense_0")], 40),
    (vanishes_in_kernels_alike, [("vanishing", "net/dense_0")], 40),
    (vanishes_without_biases, [("vanishing", "net/dense_0")], 40),
    (vanishes_into_nothing, [("vanishing", "net/dense_0")], 20),
    (vanishes_with_a_biased_head, [("vanishing", "net/dense_0")], 60),
    (explodes, [("exploding", "net/dense_0")], 40),
    (diverges, [("exploding", "")], 100),
    (forward_overflow, [("nonfinite", "net/dense_11")], 0),
    (backward_overflow, [("nonfinite", "net/dense_6")], 40),
    (lost_weights, [("nonfinite", "net/dense_0")], 40),
    (dead_layer, [("dead_units", "net/dense_4")], 20),
    (dies_later, [("dead_units", "net/dense_4")], 100),
    (dies_after_a_large_loss, [("dead_units", "net/dense_4")], 60),
    (mostly_dead_layer, [("dead_units", "net/dense_4")], 20),
    (all_zero_weights, [("no_gradient", "net/dense_10")], 20),
    (nothing_at_all, [("no_gradient", "")], 20),
    (not_connected, [("no_gradient", "net/dense_2")], 20),
    (large_steps, [("large_updates", "")], 20),
    (small_steps, [("small_updates", "")], 20),
]


def faulty_record(change: Callable[[Made], None], steps: NDArray[np.int64] = EVERY_10) -> Made:
    record = made(steps)
    change(record)
    return record
