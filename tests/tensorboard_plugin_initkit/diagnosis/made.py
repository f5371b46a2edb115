"""Histories that are made up: healthy ones, and some with one fault each."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, RECORDED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout, Port, Variable
from tensorboard_plugin_initkit.record.setup import HeadSetup, LayerSetup, Setup
from tests.tensorboard_plugin_initkit.record.made import ones

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
    penalty: Any = np.nan
    snr: Any = np.nan
    clip: Any = 1.0  # the part of a gradient's norm that is left
    setup: Setup | None = None
    ports: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def elapsed(self) -> NDArray[np.int64]:
        return self.steps - self.steps[0]

    def history(self, rows: Any = slice(None), max_steps: int | None = None) -> GradientHistory:
        chunk = self.chunk().select(rows)
        history = GradientHistory(max_steps=max_steps)
        history.setup = self.setup
        for begin in range(0, len(chunk.steps), 64):
            history.append(chunk.select(slice(begin, begin + 64)))
        return history

    def chunk(self) -> Chunk:
        variables, columns = [], []
        for i in range(self.bias.shape[1]):
            layer = f"net/dense_{i}"
            is_last = i == self.bias.shape[1] - 1
            receivers = (("", "linear") if is_last else (f"net/dense_{i + 1}", "relu"),)
            variables.append(
                Variable(f"{layer}/kernel", layer, (UNITS, UNITS), receivers=receivers)
            )
            columns.append(self._column(i, self.kernel[:, i], UNITS * UNITS, not self.with_bias))
            if self.with_bias:
                variables.append(Variable(f"{layer}/bias", layer, (UNITS,), receivers=receivers))
                columns.append(self._column(i, self.bias[:, i], UNITS, True))
        values = {
            name: np.stack([column[name] for column in columns], axis=1) for name in columns[0]
        }
        totals = {
            "loss": self.loss[:, None],
            "learning_rate": self.rate[:, None],
            "batch_loss": self.loss[:, None],
            "penalty": self.penalty + 0 * self.loss[:, None],
        }
        missing = dict.fromkeys(set(RECORDED + TOTALS) - values.keys() - totals.keys())
        layout = Layout(
            tuple(variables), ports=tuple(Port(role, "", (1,), "float32") for role in self.ports)
        )
        chunk = ones(layout, self.steps, **values, **totals, **missing)
        ports = {
            name: np.zeros((len(self.steps), len(self.ports)), np.float32)
            + np.stack(np.broadcast_arrays(*(port[name] for port in self.ports.values())), -1)
            for name in (PORT_STATISTICS if self.ports else ())
        }
        return dataclasses.replace(chunk, ports=ports)

    def _column(self, i: int, rms: Any, size: int, shows_units: bool) -> dict[str, NDArray[Any]]:
        norm = np.where(self.nonfinite[:, i] > 0, np.nan, rms * np.sqrt(size))
        dead = np.where(rms == 0, 1.0, self.dead[:, i])
        kernel = size > UNITS  # a bias is zero at first
        return {
            "norm": norm,
            "snr": self.snr + 0 * norm,
            "mean_abs": norm,
            "max_abs": norm,
            "zeros": dead,
            "nonfinite": self.nonfinite[:, i],
            "dead_units": dead if shows_units else dead * np.nan,
            "weight_norm": kernel * self.weight[:, i],
            "clip_ratio": self.clip + 0 * rms,
            "update_norm": self.update[:, i] * (self.weight[:, i] if kernel else 1e-3),
        }


def made(steps: NDArray[np.int64] = EVERY_10, layers: int = 12, seed: int = 0) -> Made:
    """Gradients within a factor of 3 of each other, and a loss that does not fall."""
    rng = np.random.default_rng(seed)
    noise = np.exp(rng.normal(0, 0.4, (2, len(steps), layers)))
    ones = np.ones((len(steps), layers))
    return Made(
        steps,
        bias=noise[0],
        kernel=noise[1],
        dead=0.1 * ones,
        nonfinite=0.0 * ones,
        weight=ones,
        update=1e-3 * ones,
        loss=2.3 + 0.01 * rng.normal(size=len(steps)),
        rate=np.full(len(steps), 1e-3),
    )


BOTH = ("bias", "kernel")
Change = Callable[[Made], None]


def put(value: float, *names: str, steps: Any = slice(None), layers: Any = slice(None)) -> Change:
    """Make a change that sets what is recorded of some layers at some steps."""

    def change(record: Made) -> None:
        for name in names:
            array = getattr(record, name)
            array[(steps, layers)[: array.ndim]] = value

    return change


def times(factor: float, *names: str, layers: Any = slice(None)) -> Change:
    """Make a change that multiplies what is recorded of some layers."""

    def change(record: Made) -> None:
        for name in names:
            getattr(record, name)[:, layers] *= factor

    return change


def falls(factor: float, *names: str) -> Change:
    """Make gradients fall by a factor a layer from output to input."""

    def change(record: Made) -> None:
        for name in names or BOTH:
            array = getattr(record, name)
            array *= factor ** np.arange(array.shape[1] - 1, -1, -1)

    return change


def supervised(loss: str = "binary_crossentropy", level: float = 0.69, **y: Any) -> Change:
    """Make a change to balanced classes 0 and 1 and one output, with a compiled loss."""

    def change(record: Made) -> None:
        layers = [LayerSetup(f"net/dense_{i}", "Dense") for i in range(record.bias.shape[1])]
        head = HeadSetup("", len(layers) - 1, "sigmoid", (-1, 1), loss)
        record.setup = Setup(tuple(layers), (head,), "Adam")
        nothing = dict.fromkeys(PORT_STATISTICS, np.nan) | {"nonfinite": 0.0}
        numbers = {"mean": 0.5, "std": 0.5, "batch_std": 0.5, "min": 0.0, "max": 1.0}
        best = {"entropy": np.log(2), "binary_entropy": np.log(2), "variance": 0.25, "classes": 2.0}
        record.ports = {
            "x": nothing | numbers,
            "y": nothing | numbers | {"integers": 1.0} | best | y,
            "y_pred": nothing | numbers | {"batch_std": 0.1},
        }
        record.loss *= level / 2.3

    return change


def port(role: str, **numbers: Any) -> Change:
    """Make a change that sets what is recorded of a port."""
    return lambda record: record.ports[role].update(numbers)


def both(*changes: Change) -> Change:
    def change(record: Made) -> None:
        for one in changes:
            one(record)

    return change


def learns(record: Made) -> None:
    record.loss = 2.3 * 0.97**record.elapsed


# Healthy.


def zero_head(record: Made) -> None:
    """A head of zeros: nothing comes through at first, then little of it."""
    passed = 1e-3 * record.elapsed[:, None]
    record.bias[:, :-1] *= passed
    record.kernel[:, :-1] *= passed


def converged(record: Made) -> None:
    decay = np.exp(-0.2 * record.elapsed)
    record.bias *= decay[:, None]
    record.kernel *= decay[:, None]
    record.loss = 2.3 * decay


def hinge_reached(record: Made) -> None:
    """A hinge loss that is exactly zero has a gradient of exactly zero."""
    late = record.elapsed >= 50
    record.bias[late] = record.kernel[late] = 0
    record.loss = np.where(late, 0.0, record.loss)


def negative_loss(record: Made) -> None:
    record.loss = -np.linspace(1, 2, len(record.steps))


def mending(record: Made) -> None:
    """A slope of 1e-5 that an adaptive optimizer takes away in 35 steps."""
    left = np.clip(1 - record.elapsed / 35, 0, 1)
    depth = record.bias.shape[1]
    record.bias *= np.exp(np.log(1e-5) * left[:, None] * np.linspace(1, 0, depth))


def scales_like_a_deep_residual_network(record: Made) -> None:
    falls(1 / 1.5)(record)
    record.bias = record.bias[:, ::-1] / record.bias.max()


def warm_up(record: Made) -> None:
    record.rate = 1e-9 * (1.0 + record.elapsed)
    record.update = np.repeat(record.rate[:, None], record.bias.shape[1], axis=1)


def rounded_in_the_end(record: Made) -> None:
    record.update[record.elapsed > 100] = 1e-9


def large_steps(record: Made) -> None:
    record.weight = record.weight * np.minimum(1 + 4.0 * record.elapsed, 30)[:, None]


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


HEALTHY: dict[str, Change] = {
    "nothing": both(),
    "vanishing: tiny gradients": times(1e-12, *BOTH),
    "exploding: huge gradients": times(1e12, *BOTH),
    "vanishing: zero head": zero_head,
    # Residual branches that end in zeros: their layers wait for one update.
    "no_gradient: zero branches": put(0, *BOTH, steps=0, layers=slice(1, -1, 2)),
    # A softmax does not change with them: rounding errors.
    "vanishing: key biases": both(
        times(1e-9, "bias", layers=slice(1, None, 3)),
        put(0, "bias", steps=slice(None, None, 2), layers=slice(4, 5)),
    ),
    "vanishing: biases before normalization": times(1e-8, "bias", layers=slice(0, None, 2)),
    "vanishing: converged": converged,
    "no_gradient: hinge reached": hinge_reached,
    "no_gradient: hinge reached before": put(0, *BOTH, "loss"),
    "no_gradient: two records of zeros": put(0, *BOTH, steps=slice(5, 7)),
    "nonfinite: unknown loss": put(np.nan, "loss"),
    "nonfinite: inputs with gaps, left out by a mask": both(
        supervised(level=2.3), port("x", nonfinite=3.0), learns
    ),
    "negative loss": negative_loss,
    "vanishing: wide and narrow": both(
        times(30, "bias", layers=slice(None, None, 3)),
        times(1 / 30, "kernel", layers=slice(None, None, 2)),
    ),
    "dead_units: half dead": put(0.75, "dead", layers=1),
    # Of a layer without an activation, some outputs have no loss: actions not taken, say.
    "dead_units: few outputs are trained": put(0.95, "dead", layers=-1),
    "vanishing: mild slope": falls(0.71),  # Xavier with 10 ReLU layers: it learns
    "vanishing: mending": mending,
    "vanishing: steep but learning": both(falls(0.3), learns),
    "exploding: scales like a deep residual network": scales_like_a_deep_residual_network,
    "small_updates: warm-up": warm_up,
    "small_updates: the end of a training": both(learns, rounded_in_the_end),
    "large_updates: no weights at first": no_weights_at_first,
    "large_updates: while it learns at once": both(
        large_steps, put(0.23, "loss", steps=slice(1, None))
    ),
    "exploding: gradients grow as the loss falls": gradients_grow_as_the_loss_falls,
    "exploding: a batch of large gradients": a_batch_of_large_gradients,
}


# Faulty, with what is to be said of 12 layers.


def vanishes_without_biases(record: Made) -> None:
    record.with_bias = False
    falls(0.3)(record)


def vanishes_with_a_biased_head(record: Made) -> None:
    """The head fits the skew of the targets, and there it stays."""
    falls(0.3)(record)
    record.loss *= np.where(record.elapsed < 8, 1, 0.13)
    record.loss[0] = 0.5


def explodes(record: Made) -> None:
    falls(4.0, "bias")(record)
    record.kernel[:] = 1e6
    record.loss = 1e9 * 0.8**record.elapsed


def diverges(record: Made) -> None:
    grown = np.exp(np.minimum(0.1 * record.elapsed, 15))
    record.bias *= grown[:, None] ** 2
    record.loss = 2.3 * grown


LATER, INPUT, COLUMNS = slice(4, None), slice(5), ("bias", "kernel", "dead", "nonfinite", "weight")
DEAD = put(0, *BOTH, layers=INPUT)
SMALL_RELU = both(falls(0.3, "bias"), times(1e-6, "kernel"))  # only biases show a slope
FALLS_TO_0 = both(falls(0.1), put(0, *BOTH, steps=LATER, layers=slice(8)))  # it is said once
NO_WEIGHTS = both(put(0, "bias", layers=slice(-1)), put(0, "kernel", "weight"))

# The change, kind and layer of its finding, and the step it is found by.
FAULTY: dict[str, tuple[Change, str, int | None, int]] = {
    "vanishes": (falls(0.3), "vanishing", 0, 40),
    "vanishes in kernels alike": (SMALL_RELU, "vanishing", 0, 40),
    "vanishes without biases": (vanishes_without_biases, "vanishing", 0, 40),
    "vanishes into nothing": (FALLS_TO_0, "vanishing", 0, 40),
    "vanishes with a biased head": (vanishes_with_a_biased_head, "vanishing", 0, 60),
    "explodes": (explodes, "exploding", 0, 40),
    "diverges": (diverges, "exploding", None, 100),
    "forward overflow": (put(8, "nonfinite"), "nonfinite", 11, 0),
    "backward overflow": (put(8, "nonfinite", steps=LATER, layers=slice(7)), "nonfinite", 6, 40),
    # The step that broke them was not recorded.
    "lost weights": (put(np.nan, "weight", steps=LATER, layers=0), "nonfinite", 0, 40),
    "dead layer": (DEAD, "dead_units", 4, 20),
    "dies later": (put(0, *BOTH, steps=slice(8, None), layers=INPUT), "dead_units", 4, 100),
    "dies after a large loss": (both(DEAD, put(1e25, "loss", steps=0)), "dead_units", 4, 60),
    "mostly dead layer": (put(0.95, "dead", layers=4), "dead_units", 4, 20),
    "all weights zero": (NO_WEIGHTS, "no_gradient", 10, 20),
    "nothing at all": (put(0, *BOTH), "no_gradient", None, 20),
    "not connected": (put(np.nan, *COLUMNS, layers=slice(2, 4)), "no_gradient", 2, 20),
    "large steps": (large_steps, "large_updates", None, 20),
    "one step too large": (
        both(put(5.0, "update", steps=slice(0, 8)), put(0, *BOTH, steps=slice(8, None))),
        "large_updates",
        None,
        100,
    ),
    "a few units die of one step too large": (
        both(put(5.0, "update", steps=slice(0, 8)), put(0, *BOTH, steps=slice(8, None), layers=1)),
        "large_updates",
        None,
        100,
    ),
    "most units die of one step too large": (
        both(put(5.0, "update", steps=0), put(0.95, "dead", steps=slice(8, None), layers=4)),
        "large_updates",
        None,
        100,
    ),
    "small steps": (put(1e-9, "update"), "small_updates", None, 20),
}


def faulty_record(name: str, steps: NDArray[np.int64] = EVERY_10) -> Made:
    record = made(steps)
    FAULTY[name][0](record)
    return record
