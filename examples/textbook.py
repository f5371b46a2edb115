"""The textbook rules of starting a deep network, each shown with numbers on real data.

Trains small and deep networks on scikit-learn's handwritten digits, and a small one on a table
whose columns differ in scale by a factor of 200,000, with a `GradientMonitor` beside each:

    python examples/textbook.py            # about a minute on two cores
    tensorboard --logdir runs/textbook

For every deep network it compares the gradients of the first training step with what mean-field
theory predicts for random weights (`keras_initkit.theory.propagation`): by which factor a gradient
changes per layer on its way back, and how the first layer's compares with the last one's.
"""

import argparse
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_breast_cancer, load_digits

import keras_initkit
from keras_initkit.callbacks import GradientMonitor, GradientWarning
from keras_initkit.initializers import HeNormal, XavierNormal
from keras_initkit.theory.propagation import propagate

DEPTH, WIDTH = 30, 128
RELU_GAIN = math.sqrt(2.0)


class Setting(NamedTuple):
    """The size of the demonstration: the tests run a smaller one."""

    depth: int = DEPTH
    width: int = WIDTH
    epochs: int = 10
    seed: int = 0


class Data(NamedTuple):
    """Inputs and integer classes."""

    x: np.ndarray
    y: np.ndarray
    classes: int


class Run(NamedTuple):
    """A network to train, with the theory of its weights."""

    data: Data
    layers: list[keras.Layer]
    learning_rate: float
    epochs: int
    head: keras.initializers.Initializer
    # Activation and weight variance (gain²) of the hidden layers, for the theory.
    theory: tuple[str, float] | None = None


class Outcome(NamedTuple):
    """Outcome of a training, with the gradients of its first step."""

    loss: float
    accuracy: float
    # ‖∂loss/∂bias‖ of each hidden layer: the gradient with respect to its pre-activations.
    gradients: np.ndarray
    # Predicted ratio of the first to the last of them.
    expected_ratio: float | None
    # Whether all the units of each hidden layer have the same weights.
    symmetric: bool
    # What the monitor found wrong.
    findings: list[keras_initkit.Finding]

    @property
    def ratio(self) -> float:
        """First hidden layer's gradient norm relative to the last one's."""
        return float(self.gradients[0] / self.gradients[-1])

    @property
    def factor(self) -> float:
        """Factor per layer on the way back, fitted over all hidden layers."""
        depths = np.arange(len(self.gradients))
        return float(np.exp(-np.polyfit(depths, np.log(self.gradients), 1)[0]))

    @property
    def expected_factor(self) -> float:
        """Predicted factor per layer."""
        assert self.expected_ratio is not None
        return float(self.expected_ratio ** (1 / (len(self.gradients) - 1)))


def digits() -> Data:
    """1,797 images of handwritten digits, 8x8 pixels of 0 to 16."""
    x, y = load_digits(return_X_y=True)
    return Data(x.astype("float32"), y, 10)


def tumours() -> Data:
    """569 tumours, 30 measures whose means lie between .004 and 880."""
    x, y = load_breast_cancer(return_X_y=True)
    return Data(x.astype("float32"), y, 2)


def normalized(data: Data) -> keras_initkit.layers.Normalization:
    """A Normalization layer adapted to the data."""
    layer = keras_initkit.layers.Normalization()
    with warnings.catch_warnings():  # some pixels are empty in all images: they become zeros
        warnings.filterwarnings("ignore", ".* features are constant")
        layer.adapt(data.x)
    return layer


def runs(setting: Setting) -> dict[str, Callable[[], Run]]:
    """The networks, by name."""
    depth, width, epochs, _ = setting
    images, table = digits(), tumours()

    def hidden(activation: str, initializer: Any, depth: int = depth) -> list[keras.Layer]:
        return [
            keras.layers.Dense(
                width, activation, kernel_initializer=initializer(), name=f"hidden_{i + 1:02d}"
            )
            for i in range(depth)
        ]

    def deep(
        activation: str, weight_variance: float, initializer: Any, depth: int = depth
    ) -> Callable[[], Run]:
        return lambda: Run(
            images,
            [normalized(images), *hidden(activation, initializer, depth)],
            learning_rate=0.002 if activation == "relu" else 0.01,
            epochs=epochs,
            head=XavierNormal(),
            theory=(activation, weight_variance),
        )

    def he(scale: float) -> Callable[[], Run]:
        return deep("relu", 2 * scale**2, lambda: HeNormal(gain=scale * RELU_GAIN))

    def tabular(*preprocessing: keras.Layer) -> Run:
        small = [keras.layers.Dense(32, "relu", kernel_initializer=HeNormal(), name="hidden_01")]
        return Run(table, [*preprocessing, *small], 0.01, epochs, XavierNormal())

    def zeros(*layers: keras.Layer) -> Run:
        zero = keras.initializers.Zeros()
        return Run(images, [normalized(images), *layers], 0.1, epochs, zero)

    return {
        "raw inputs": tabular,
        "normalized inputs": lambda: tabular(normalized(table)),
        "all-zero weights": lambda: zeros(*hidden("tanh", keras.initializers.Zeros, 3)),
        "all-zero, no hidden layer": zeros,
        "He x 0.7, ReLU": he(0.7),
        "He x 1.4, ReLU": he(1.4),
        "He, ReLU": he(1.0),
        "Xavier, ReLU": deep("relu", 1.0, XavierNormal),
        "Xavier, tanh": deep("tanh", 1.0, XavierNormal),
        "Xavier, sigmoid": deep("sigmoid", 1.0, XavierNormal),
        "Xavier, sigmoid, 2 layers": deep("sigmoid", 1.0, XavierNormal, 2),
    }


def train(run: Run, name: str, log_dir: Path | None = None) -> Outcome:
    """Train a network with a monitor beside it.

    All networks have the same name, so that TensorBoard shows their layers in the same charts.
    """
    head = keras.layers.Dense(run.data.classes, kernel_initializer=run.head, name="output")
    model = keras.Sequential(
        [keras.Input(run.data.x.shape[1:]), *run.layers, head], name="textbook"
    )
    model.compile(
        keras.optimizers.SGD(run.learning_rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    directory = None if log_dir is None else log_dir / name.replace(" ", "_").replace(",", "")
    monitor = GradientMonitor(directory, every_n_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # they are shown at the end
        fitted = model.fit(
            *(run.data.x, run.data.y), 64, epochs=run.epochs, verbose=0, callbacks=[monitor]
        )
    names = monitor.history.variables
    biases = [i for i, name in enumerate(names) if name.endswith("bias") and "output" not in name]
    kernels = [
        layer.kernel.numpy() for layer in run.layers if isinstance(layer, keras.layers.Dense)
    ]
    return Outcome(
        loss=fitted.history["loss"][-1],
        accuracy=fitted.history["accuracy"][-1],
        gradients=monitor.history.per_variable("norm")[0, biases],
        expected_ratio=expected_ratio(run),
        symmetric=bool(kernels) and all(np.ptp(kernel, axis=1).max() == 0 for kernel in kernels),
        findings=monitor.findings,
    )


def expected_ratio(run: Run) -> float | None:
    """First-to-last ratio of the gradient norms that theory predicts for random weights."""
    if run.theory is None:
        return None
    activation, weight_variance = run.theory
    inputs = np.asarray(run.layers[0](run.data.x))
    depth = len(run.layers) - 1
    prediction = propagate(
        activation, depth, weight_variance, input_second_moment=float(np.mean(inputs**2))
    )
    return prediction.gradient_norm_ratio


class Rule(NamedTuple):
    """A textbook rule, and whether the outcomes bear it out."""

    text: str
    holds: Callable[[Mapping[str, Outcome]], bool]
    numbers: Callable[[Mapping[str, Outcome]], str]


def learns(outcome: Outcome) -> bool:
    """Check that a network has learned something: chance is 10 %."""
    return math.isfinite(outcome.loss) and outcome.accuracy > 0.5


def as_predicted(outcome: Outcome) -> bool:
    """Check that the factor per layer is within 10 % of the prediction."""
    return abs(math.log(outcome.factor / outcome.expected_factor)) < 0.1


def factors(*names: str) -> Callable[[Mapping[str, Outcome]], str]:
    """Say the measured and the predicted factor per layer of some runs."""
    return lambda outcomes: "; ".join(
        f"×{o.factor:.3f} per layer, predicted ×{o.expected_factor:.3f}; accuracy {o.accuracy:.0%}"
        for o in map(outcomes.__getitem__, names)
    )


def accuracies(*names: str) -> Callable[[Mapping[str, Outcome]], str]:
    """Say the accuracies of some runs."""
    return lambda outcomes: "; ".join(f"{name}: {outcomes[name].accuracy:.0%}" for name in names)


def times_larger(one: Outcome, other: Outcome) -> str:
    """Compare the first layers' gradients."""
    return f"{one.gradients[0] / other.gradients[0]:,.0f} times larger"


RULES = [
    Rule(
        "Standardised inputs train faster",
        lambda o: o["normalized inputs"].loss < o["raw inputs"].loss / 2,
        lambda o: f"loss {o['normalized inputs'].loss:.3f} against {o['raw inputs'].loss:.3f}",
    ),
    Rule(
        "All-zero weights: all units of a layer stay the same, nothing is learned",
        lambda o: o["all-zero weights"].symmetric and not learns(o["all-zero weights"]),
        lambda o: f"loss {o['all-zero weights'].loss:.3f}, guessing gives {math.log(10):.3f}",
    ),
    Rule(
        "... but a logistic regression learns from zeros",
        lambda o: learns(o["all-zero, no hidden layer"]),
        accuracies("all-zero, no hidden layer"),
    ),
    Rule(
        "Weights a little too small: gradients vanish exponentially with depth",
        lambda o: as_predicted(o["He x 0.7, ReLU"]) and not learns(o["He x 0.7, ReLU"]),
        factors("He x 0.7, ReLU"),
    ),
    Rule(
        "Weights a little too large: gradients explode exponentially with depth",
        lambda o: as_predicted(o["He x 1.4, ReLU"]) and not learns(o["He x 1.4, ReLU"]),
        factors("He x 1.4, ReLU"),
    ),
    Rule(
        "He suits ReLU",
        lambda o: as_predicted(o["He, ReLU"]) and learns(o["He, ReLU"]),
        factors("He, ReLU"),
    ),
    Rule(
        "Xavier does not suit ReLU: it halves the variance at every layer",
        lambda o: as_predicted(o["Xavier, ReLU"]) and not learns(o["Xavier, ReLU"]),
        lambda o: (
            f"first layer's gradient {times_larger(o['He, ReLU'], o['Xavier, ReLU'])} with He; "
            f"accuracy {o['Xavier, ReLU'].accuracy:.0%}"
        ),
    ),
    Rule(
        "Xavier suits tanh",
        lambda o: as_predicted(o["Xavier, tanh"]) and learns(o["Xavier, tanh"]),
        factors("Xavier, tanh"),
    ),
    Rule(
        "Xavier suits sigmoid, in a deep network",
        lambda o: learns(o["Xavier, sigmoid"]),
        lambda o: factors("Xavier, sigmoid")(o) + "; the slope of a sigmoid is at most 1/4",
    ),
    Rule(
        "Xavier suits sigmoid, in a shallow network",
        lambda o: learns(o["Xavier, sigmoid, 2 layers"]),
        accuracies("Xavier, sigmoid, 2 layers"),
    ),
]


def outcome_table(outcomes: Mapping[str, Outcome]) -> Table:
    """Every run: how it ended, and its first gradients, measured and expected."""
    table = Table(
        title="Where training ended, and the gradients of its first step",
        caption="Gradients with respect to the pre-activations (those of the biases); theory: "
        "mean-field theory of random weights.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("run", no_wrap=True)
    gradients = ("first/last\nlayer", "\ntheory", "factor\na layer", "\ntheory")
    for title in ("final\nloss", "\nacc.", *gradients):
        table.add_column(title, justify="right", no_wrap=True)
    for name, outcome in outcomes.items():
        cells = []
        if outcome.expected_ratio is not None:
            cells = [
                f"{outcome.ratio:.1e}",
                f"{outcome.expected_ratio:.1e}",
                f"{outcome.factor:.3f}",
                f"{outcome.expected_factor:.3f}",
            ]
        table.add_row(name, f"{outcome.loss:.3g}", f"{outcome.accuracy:.0%}", *cells)
    return table


def rule_table(outcomes: Mapping[str, Outcome]) -> Table:
    """Every rule, whether it held here, and the numbers."""
    table = Table(title="The rules", box=box.SIMPLE_HEAD)
    for title in ("rule", "here", "numbers"):
        table.add_column(title)
    for rule in RULES:
        verdict = "[green]holds[/]" if rule.holds(outcomes) else "[red]does not hold[/]"
        table.add_row(rule.text, verdict, rule.numbers(outcomes))
    return table


def finding_table(outcomes: Mapping[str, Outcome]) -> Table:
    """List the warnings of the monitors while the networks trained."""
    table = Table(title="What the monitor said", box=box.SIMPLE_HEAD)
    for title in ("run", "finding"):
        table.add_column(title)
    for name, outcome in outcomes.items():
        for finding in outcome.findings:
            table.add_row(name, finding.message)
    return table


def run_all(
    setting: Setting,
    log_dir: Path | None = None,
    started: Callable[[int, str], None] = lambda done, name: None,
) -> dict[str, Outcome]:
    """Train all the networks, each from the same seed."""
    outcomes: dict[str, Outcome] = {}
    for name, make in runs(setting).items():
        started(len(outcomes), name)
        keras.utils.set_random_seed(setting.seed)
        outcomes[name] = train(make(), name, log_dir)
        keras.backend.clear_session()
    return outcomes


def main() -> None:
    """Run the demonstration and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--log-dir", type=Path, default=Path("runs/textbook"))
    parser.add_argument("--depth", type=int, default=Setting().depth)
    parser.add_argument("--epochs", type=int, default=Setting().epochs)
    parser.add_argument("--seed", type=int, default=Setting().seed)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.log_dir, ignore_errors=True)
    setting = Setting(depth=arguments.depth, epochs=arguments.epochs, seed=arguments.seed)
    console, start = Console(), time.monotonic()

    columns = (SpinnerColumn(), "{task.description}", MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(runs(setting)))

        def started(done: int, name: str) -> None:
            progress.update(task, completed=done, description=f"Training: {name}")
            if not console.is_terminal:
                console.print(f"Training: {name}")

        outcomes = run_all(setting, arguments.log_dir, started)
        progress.update(task, completed=len(outcomes), description="Trained")

    console.print(outcome_table(outcomes))
    console.print(rule_table(outcomes))
    console.print(finding_table(outcomes))
    tensorboard = Path(sys.executable).with_name("tensorboard")
    console.print(f"\n{time.monotonic() - start:.0f} s. Now look at the gradients themselves,")
    console.print("in TensorBoard's tab Gradient Flow:\n")
    console.print(f"    {_shortest(tensorboard)} --logdir {arguments.log_dir}\n", style="bold")


def _shortest(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


if __name__ == "__main__":
    main()
