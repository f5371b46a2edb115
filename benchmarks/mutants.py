"""Plant one known fault at a time in healthy trainings, and see if the diagnosis finds it.

    python -m benchmarks.mutants [--faults NAME ...] [--programs NAME ...] [--processes 2]
                                [--fix] [--most 100]

Each healthy program is trained for 120 steps as it is, and then with each fault that it can have.
Printed are, for every fault, the share of programs in which something was found, in which the
first finding was of the right kind, and in which it named the right layer; the false alarms on the
healthy programs; and the confusion matrix. What is expected of a fault is written beside it. A
training that Keras refuses is judged by what the monitor tells of it.

With `--fix` the fix of the first finding is made in the model as it was, which is trained four
times as long: a network is mended if it comes within 5 % of a healthy twin's accuracy, or of its
share of the variance. The twin is the healthy program, as deep and with the same optimizer if these
are not the fault. Fixes of the data and of one's own code, which are to be made by hand, count
apart.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits, make_circles

import keras_initkit
from keras_initkit.callbacks import GradientMonitor

STEPS, BATCH = 120, 32
STEPS_MENDED = 4 * STEPS
layers = keras.layers
Array = np.ndarray


@dataclasses.dataclass
class Program:
    """A training with named parts, each of which a fault can replace."""

    name: str
    task: str  # "binary", "classes", "numbers", "labels" (several at once) or "images"
    x: Array
    y: Array
    units: int
    head: str
    loss: Any
    body: Callable[["Program"], list[Any]]
    activation: str = "relu"
    initializer: Any = "he_normal"
    regularizer: Any = None
    depth: int = 2
    width: int = 32
    before_head: Sequence[Callable[[], Any]] = ()
    after_head: Sequence[Callable[[], Any]] = ()
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(3e-3)

    def build(self) -> Any:
        """Build and compile the model."""
        model = keras.Sequential(
            [
                keras.Input(self.x.shape[1:]),
                *self.body(self),
                *(make() for make in self.before_head),
                layers.Dense(self.units, self.head, name="head"),
                *(make() for make in self.after_head),
            ]
        )
        model.compile(self.optimizer(), self.loss, jit_compile=False)
        return model

    def dense(self, i: int) -> Any:
        """Make a hidden layer."""
        return layers.Dense(
            self.width,
            self.activation,
            kernel_initializer=self.initializer,
            kernel_regularizer=self.regularizer,
            name=f"hidden_{i}",
        )


class Residual(keras.layers.Layer):
    """A residual block of two dense layers, the second of which begins at zero."""

    def __init__(self, first: Any, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = first
        self.second = layers.Dense(width, kernel_initializer="zeros")

    def call(self, x: Any) -> Any:
        """Add the block's output to its input."""
        return x + self.second(self.first(x))


def stack(program: Program) -> list[Any]:
    """Make dense layers."""
    return [program.dense(i) for i in range(program.depth)]


def residual(program: Program) -> list[Any]:
    """Make residual blocks behind a first layer."""
    blocks = [Residual(program.dense(i), program.width) for i in range(1, program.depth)]
    return [program.dense(0), *blocks]


def normalized(program: Program) -> list[Any]:
    """Make dense layers with batch normalization."""
    made = []
    for i in range(program.depth):
        dense = program.dense(i)
        activation, dense.activation = dense.activation, keras.activations.linear
        made += [dense, layers.BatchNormalization(), layers.Activation(activation)]
    return made


def convolutional(program: Program) -> list[Any]:
    """Make convolutions on images of 8 by 8 pixels."""
    made = [
        layers.Conv2D(
            16,
            3,
            padding="same",
            activation=program.activation,
            kernel_initializer=program.initializer,
            kernel_regularizer=program.regularizer,
            name=f"hidden_{i}",
        )
        for i in range(program.depth)
    ]
    return [layers.Reshape((8, 8, 1)), *made, layers.GlobalAveragePooling2D()]


def recurrent(program: Program) -> list[Any]:
    """Make a recurrent layer over the rows of images, and dense ones."""
    return [layers.Reshape((8, 8)), layers.LSTM(32), *stack(program)]


def standardized(x: Array) -> Array:
    """Standardize all elements together."""
    return ((x - x.mean()) / x.std()).astype(np.float32)


def programs(seed: int = 0) -> list[Program]:
    """List the healthy programs."""
    rng = np.random.default_rng(seed)
    digits, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(digits))
    raw, labels = digits[order].astype(np.float32), labels[order].astype(np.int64)
    digits = standardized(raw)
    circles, sides = make_circles(1500, noise=0.1, factor=0.4, random_state=seed)
    circles = standardized(circles)
    plane = rng.normal(size=(1500, 6)).astype(np.float32)
    curve = (np.sin(plane[:, :1]) + plane[:, 1:2] * plane[:, 2:3]).astype(np.float32)
    several = (plane[:, :4] + 0.3 * rng.normal(size=(1500, 4)) > 0).astype(np.float32)
    classes, one_hot = "sparse_categorical_crossentropy", keras.utils.to_categorical(labels)
    softmax: dict[str, Any] = {"task": "classes", "units": 10, "head": "softmax", "loss": classes}
    return [
        Program("digits", x=digits, y=labels, body=stack, **softmax),
        Program(
            "digits, one-hot",
            **softmax | {"loss": "categorical_crossentropy"},
            x=digits,
            y=one_hot,
            body=stack,
        ),
        Program("digits, deep", x=digits, y=labels, body=stack, depth=12, **softmax),
        Program("digits, residual", x=digits, y=labels, body=residual, depth=6, **softmax),
        Program("digits, normalized", x=digits, y=labels, body=normalized, depth=4, **softmax),
        Program("digits, convolutions", x=digits, y=labels, body=convolutional, **softmax),
        Program("digits, recurrent", x=digits, y=labels, body=recurrent, depth=1, **softmax),
        Program("circles", "binary", circles, sides, 1, "sigmoid", "binary_crossentropy", stack),
        Program(
            "circles, deep", "binary", circles, sides, 1, "sigmoid", "binary_crossentropy", stack,
            depth=10,
        ),
        Program("curve", "numbers", plane, curve, 1, "linear", "mse", stack),
        Program("curve, residual", "numbers", plane, curve, 1, "linear", "mae", residual, depth=4),
        Program("signs", "labels", plane, several, 4, "sigmoid", "binary_crossentropy", stack),
        Program("pixels", "images", digits, raw / 16, 64, "sigmoid", "mse", stack, width=16),
    ]  # fmt: skip


@dataclasses.dataclass
class Fault:
    """A fault to plant: how, in which programs, and what the diagnosis is to say.

    Attributes:
        name: Its name.
        plant: Changes a program.
        kinds: The kinds of a right first finding.
        fits: Tells the programs that can have it.
        layer: The layer at fault; "" if it has none.
    """

    name: str
    plant: Callable[[Program], Any]
    kinds: tuple[str, ...]
    fits: Callable[[Program], bool] = lambda program: True
    layer: str = ""


def change(**parts: Any) -> Callable[[Program], None]:
    """Make a change of parts; a function of the program gives its value."""

    def plant(program: Program) -> None:
        for name, value in parts.items():
            is_lazy = callable(value) and getattr(value, "__name__", "") == "<lambda>"
            setattr(program, name, value(program) if is_lazy else value)

    return plant


def of_task(*tasks: str) -> Callable[[Program], bool]:
    """Make a check for programs of some tasks."""
    return lambda program: program.task in tasks


def adam(rate: float, **arguments: Any) -> Callable[[], Any]:
    """Make a maker of an optimizer."""

    def make() -> Any:
        return keras.optimizers.Adam(rate, **arguments)

    return make


def sgd(rate: float) -> Callable[[], Any]:
    """Make a maker of an optimizer."""

    def make() -> Any:
        return keras.optimizers.SGD(rate)

    return make


def _with_nan(array: Array) -> Array:
    array = array.astype(np.float32).copy()
    array[5::97] = np.nan
    return array


def _is_stack(program: Program) -> bool:
    return program.body is stack


def _is_sparse(program: Program) -> bool:
    return program.task == "classes" and program.y.ndim == 1


def _is_deep(program: Program) -> bool:
    return _is_stack(program) and program.depth >= 10


CLASSES, BINARY, NUMBERS = of_task("classes"), of_task("binary"), of_task("numbers")
NOT_LEARNING = ("no_better_than_guessing", "constant_loss", "not_learning", "constant_output")

FAULTS = [
    # Contracts between output, loss and targets.
    Fault("softmax of one unit", change(head="softmax"), ("single_unit_softmax",), BINARY, "head"),
    Fault(
        "sparse loss of one unit",
        change(units=1, head="sigmoid"),
        ("single_unit_softmax", "label_form", "target_range", "loss_choice"),
        CLASSES,
        "head",
    ),
    Fault(
        "ReLU under cross-entropy",
        change(head="relu"),
        ("logits", "head_activation"),
        BINARY,
        "head",
    ),
    Fault("ReLU on numbers", change(head="relu"), ("target_range",), NUMBERS, "head"),
    Fault("sigmoid on numbers", change(head="sigmoid"), ("target_range",), NUMBERS, "head"),
    Fault("tanh on numbers", change(head="tanh"), ("target_range",), NUMBERS, "head"),
    Fault(
        "softmax on numbers",
        change(head="softmax", units=1),
        ("single_unit_softmax", "target_range"),
        NUMBERS,
        "head",
    ),
    Fault(
        "linear under cross-entropy",
        change(head="linear"),
        ("logits", "head_activation"),
        of_task("binary", "classes", "labels"),
        "head",
    ),
    Fault(
        "sigmoids under categorical cross-entropy",
        change(head="sigmoid"),
        ("loss_choice", "head_activation"),
        CLASSES,
        "head",
    ),
    Fault(
        "binary cross-entropy on a softmax",
        change(
            loss="binary_crossentropy",
            y=lambda p: keras.utils.to_categorical(p.y) if p.y.ndim == 1 else p.y,
        ),
        ("loss_choice", "head_activation"),
        CLASSES,
        "head",
    ),
    Fault(
        "softmax for several labels",
        change(head="softmax"),
        ("loss_choice", "head_activation"),
        of_task("labels"),
        "head",
    ),
    Fault(
        "integers under categorical cross-entropy",
        change(loss="categorical_crossentropy"),
        ("label_form",),
        _is_sparse,
        "head",
    ),
    Fault(
        "labels from 1",
        change(y=lambda p: p.y + 1),
        ("label_form", "target_range"),
        lambda p: _is_sparse(p) or p.task == "binary",
        "head",
    ),
    Fault(
        "labels of -1 and 1",
        change(y=lambda p: 2 * p.y - 1),
        ("label_form", "target_range"),
        of_task("binary", "labels"),
        "head",
    ),
    Fault(
        "classes into one sigmoid",
        change(units=1, head="sigmoid", loss="binary_crossentropy"),
        ("label_form", "target_range", "loss_choice"),
        _is_sparse,
        "head",
    ),
    Fault(
        "pixels up to 255",
        change(y=lambda p: 255 * p.y),
        ("target_range",),
        of_task("images"),
        "head",
    ),
    # Data.
    Fault("inputs of NaN", change(x=lambda p: _with_nan(p.x)), ("nonfinite",)),
    Fault(
        "targets of NaN",
        change(y=lambda p: _with_nan(p.y)),
        ("nonfinite",),
        of_task("numbers", "images", "labels"),
    ),
    Fault(
        "inputs times 3,000",
        change(x=lambda p: 3000 * p.x),
        ("input_scale", "large_updates"),
        lambda p: p.body not in (normalized, recurrent),
    ),
    Fault(
        "inputs plus 300",
        change(x=lambda p: p.x + 300),
        ("input_scale",),
        lambda p: p.body not in (normalized, recurrent),
    ),
    Fault("constant inputs", change(x=lambda p: np.ones_like(p.x)), ("constant_input",)),
    Fault(
        "targets times 1,000",
        change(y=lambda p: 1000 * p.y, optimizer=sgd(0.01)),
        ("target_scale", "nonfinite", "rising_loss", "exploding"),
        NUMBERS,
    ),
    Fault(
        "one class",
        change(y=lambda p: np.zeros_like(p.y)),
        ("one_class", "constant_target"),
        lambda p: _is_sparse(p) or p.task == "binary",
    ),
    Fault(
        "shuffled targets",
        change(y=lambda p: np.random.default_rng(1).permutation(p.y)),
        NOT_LEARNING,
    ),
    # Structure.
    Fault(
        "no activations",
        change(activation="linear", depth=8),
        ("no_activation",),
        lambda p: _is_stack(p) and p.task == "binary",
    ),
    Fault(
        "sigmoids in depth",
        change(activation="sigmoid", depth=10, initializer="glorot_uniform"),
        ("deep_sigmoids", "vanishing"),
        _is_stack,
    ),
    Fault(
        "zeros",
        change(initializer="zeros"),
        ("equal_weights", "no_gradient"),
        lambda p: p.body in (stack, convolutional),
        "hidden",
    ),
    Fault(
        "constant weights",
        change(initializer=lambda p: keras.initializers.Constant(0.1)),
        ("equal_weights",),
        lambda p: p.body in (stack, convolutional),
        "hidden",
    ),
    Fault(
        "large weights",
        change(initializer=lambda p: keras.initializers.RandomNormal(stddev=3.0), depth=12),
        ("bad_start", "exploding", "nonfinite", "large_updates"),
        _is_stack,
        "hidden",
    ),
    Fault(
        "small weights",
        change(initializer=lambda p: keras.initializers.RandomNormal(stddev=0.01), depth=10),
        ("bad_start", "vanishing"),
        _is_stack,
        "hidden",
    ),
    Fault(
        "Xavier's weights for 30 ReLU layers",
        change(initializer="glorot_uniform", depth=30, optimizer=sgd(0.01)),
        ("bad_start", "vanishing"),
        _is_deep,
        "hidden",
    ),
    Fault(
        "two softmaxes",
        change(after_head=(layers.Softmax,), optimizer=sgd(0.01)),
        ("double_activation", "hidden_softmax"),
        _is_sparse,
        "head",
    ),
    Fault(
        "dropout behind the output",
        change(after_head=(lambda: layers.Dropout(0.9),)),
        ("output_dropout",),
        of_task("numbers", "classes"),
    ),
    Fault(
        "a strong penalty",
        change(regularizer=lambda p: keras.regularizers.L2(10.0)),
        ("strong_penalty",),
        lambda p: p.body in (stack, convolutional),
        "hidden",
    ),
    # Dynamics.
    Fault(
        "learning rate of 30",
        change(optimizer=adam(30.0)),
        ("large_updates", "learning_rate", "exploding", "nonfinite", "rising_loss", "dead_units"),
    ),
    Fault(
        "learning rate of 1e-10",
        change(optimizer=adam(1e-10)),
        ("small_updates", "learning_rate", "constant_loss"),
    ),
    Fault(
        "clipped to nothing",
        change(optimizer=lambda p: _clipped),
        ("small_updates", "clipping", "constant_loss"),
    ),
]


FAULT_BY_NAME = {fault.name: fault for fault in FAULTS}


def _clipped() -> Any:
    return keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1e-9)


def make_mutant(name: str, fault: str) -> tuple[Program, Program]:
    """Return a healthy program, and the same with a fault; without one a copy."""
    program = next(p for p in programs() if p.name == name)
    mutant = dataclasses.replace(program)
    if fault:
        FAULT_BY_NAME[fault].plant(mutant)
    return program, mutant


def train(
    program: Program,
    fix: Any = None,
    steps: int = STEPS,
    others: Sequence[Any] = (),
    most: int = 0,
) -> tuple[GradientMonitor, Any]:
    """Train a program, with a fix made before; return its monitor and model.

    Other callbacks come after the monitor. Trained are whole epochs: for `steps` or more, or for
    `most` steps or fewer.

    Raises:
        ValueError: If the fix is to be made by hand.
    """
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    monitor, model = GradientMonitor(), program.build()
    batches = -(-len(program.x) // BATCH)
    epochs = max(1, most // batches) if most else -(-steps * BATCH // len(program.x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if fix is not None:
            model = fix.apply(model, program.x, program.y)
        with contextlib.suppress(Exception):  # Keras itself refuses it
            callbacks = [monitor, *others]
            model.fit(program.x, program.y, BATCH, epochs, verbose=0, callbacks=callbacks)
    return monitor, model


def score(model: Any, program: Program, healthy: Program) -> float:
    """Return the accuracy of a model for the labels of the healthy program, or its R²."""
    y = np.asarray(program.y if healthy.task in ("numbers", "images") else healthy.y)
    predicted = model.predict(program.x, verbose=0).reshape(len(y), -1)
    if healthy.task == "classes":
        return float(np.mean(predicted.argmax(1) == (y.argmax(1) if y.ndim > 1 else y)))
    y = y.reshape(len(y), -1)
    if healthy.task in ("binary", "labels"):
        limit = 0.5 if predicted.min() >= 0 else 0.0  # of logits
        return float(np.mean((predicted > limit) == (y > 0.5)))
    return 1 - float(np.mean(np.square(predicted - y)) / np.var(y))


def make_twin(mutant: Program, healthy: Program) -> Program:
    """Return the healthy program, with what a fault sets beside itself: depth and optimizer."""
    names = [field.name for field in dataclasses.fields(Program)]
    changed = {name for name in names if getattr(mutant, name) is not getattr(healthy, name)}
    beside = changed & {"depth", "optimizer"}
    if beside == changed:
        return healthy
    return dataclasses.replace(healthy, **{name: getattr(mutant, name) for name in beside})


def mend(first: Any, mutant: Program, healthy: Program) -> str:
    """Make a fix and train again; return "mended", "not mended" or "by hand"."""
    try:
        _, model = train(mutant, first.fix, STEPS_MENDED)
    except (ValueError, NotImplementedError):  # or a layer that Keras cannot copy
        return "by hand"
    twin = make_twin(mutant, healthy)
    best = score(train(twin, steps=STEPS_MENDED)[1], twin, healthy)
    try:
        return "mended" if score(model, mutant, healthy) >= 0.95 * best else "not mended"
    except ValueError:  # other shapes
        return "not mended"


def look(monitor: Any) -> list[Any]:
    """Return the findings of a training, the worst first, without mere notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [f for f in keras_initkit.diagnose(monitor) if f.severity != "note"]


@dataclasses.dataclass
class Verdict:
    """What became of one training: of a mutant, or of a healthy program."""

    program: str
    fault: str = ""
    kind: str = ""  # of the first finding; none without one
    layer: str = ""
    told: Sequence[str] = ()
    after: str = ""  # the fix: "mended", "not mended" or "by hand"

    @property
    def is_right(self) -> bool:
        """True where the first finding is of a kind that is expected of the fault."""
        return self.kind in FAULT_BY_NAME[self.fault].kinds


def judge_program(name: str, fault: str = "", fix: bool = False, most: int = 0) -> Verdict:
    """Train a program, healthy or with a fault, and judge it; with `fix`, make the fix, too."""
    program, mutant = make_mutant(name, fault)
    found = look(train(mutant, most=most)[0])
    verdict = Verdict(name, fault, told=[finding.text for finding in found])
    if found:
        verdict.kind, verdict.layer = found[0].kind, found[0].layer
        verdict.after = mend(found[0], mutant, program) if fix and fault else ""
    return verdict


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", nargs="*", default=[])
    parser.add_argument("--programs", nargs="*", default=[])
    parser.add_argument("--fix", action="store_true", help="make the fixes and train again")
    parser.add_argument("--most", type=int, default=0, help="steps of a training, at most")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    chosen = [p for p in programs() if not options.programs or p.name in options.programs]
    faults = [f for f in FAULTS if not options.faults or f.name in options.faults]
    pairs = [(fault, p) for fault in faults for p in chosen if fault.fits(p)]
    sys.stdout.write(f"{len(chosen)} programs, {len(faults)} faults, {len(pairs)} mutants\n")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, spawn) as pool:
        if not options.faults:
            judge_healthy = functools.partial(judge_program, most=options.most)
            healthy = list(pool.map(judge_healthy, [p.name for p in chosen]))
            for told in (verdict for verdict in healthy if verdict.told):
                sys.stdout.write(f"FALSE ALARM on {told.program}: {told.told[0]}\n")
            alarms = sum(bool(verdict.told) for verdict in healthy)
            sys.stdout.write(f"false alarms: {alarms} of {len(chosen)}\n")
        names, planted = [p.name for _, p in pairs], [fault.name for fault, _ in pairs]
        verdicts = []
        judge = functools.partial(judge_program, fix=options.fix, most=options.most)
        for verdict in pool.map(judge, names, planted):
            verdicts.append(verdict)
            if not verdict.is_right or verdict.after == "not mended":
                text = verdict.told[0] if verdict.told else "nothing"
                sys.stdout.write(f"{verdict.fault} | {verdict.program} | {verdict.after}: {text}\n")
                sys.stdout.flush()
    report(verdicts)
    return 0


def report(verdicts: Sequence[Verdict]) -> None:
    """Print the table of faults, with the first findings of each."""
    numbers = ("programs", "found", "right kind", "right layer", "mended", "not mended", "by hand")
    titles = ("fault", *numbers, "first finding")
    sys.stdout.write(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n")
    total: collections.Counter[str] = collections.Counter()
    for fault in FAULTS:
        own = [verdict for verdict in verdicts if verdict.fault == fault.name]
        if not own:
            continue
        count = collections.Counter(verdict.after for verdict in own)
        count |= {
            "programs": len(own),
            "found": sum(bool(verdict.kind) for verdict in own),
            "right kind": sum(verdict.is_right for verdict in own),
        }
        if fault.layer:
            count["right layer"] = sum(v.is_right and fault.layer in v.layer for v in own)
            count["with layer"] = len(own)
        total.update(count)
        kinds = collections.Counter(verdict.kind or "nothing" for verdict in own).most_common()
        cells = ["" if n == "right layer" and not fault.layer else str(count[n]) for n in numbers]
        first = ", ".join(f"{kind} {n}" for kind, n in kinds)
        sys.stdout.write(f"| {' | '.join([fault.name, *cells, first])} |\n")
    shares = [
        f"{name} {total[name]} of {total[of]}"
        for name, of in (
            ("found", "programs"),
            ("right kind", "programs"),
            ("right layer", "with layer"),
        )
    ]
    if made := total["mended"] + total["not mended"]:
        shares.append(f"mended {total['mended']} of {made}, by hand {total['by hand']}")
    sys.stdout.write(f"{', '.join(shares)}\n")


if __name__ == "__main__":
    sys.exit(main())
