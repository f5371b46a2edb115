"""Networks far deeper than usual, trained from `keras_initkit.initialize` and from common starts.

    KERAS_BACKEND=torch python examples/deep.py mlp --seeds 3

Each experiment trains one network on scikit-learn's handwritten digits from several starts, with
the same data, optimizer and number of steps, and prints the accuracy on digits it has not seen:

    mlp          1,000 fully connected layers of tanh, no skip connections, no normalization
    cnn          500 convolutions of tanh, likewise
    resnet       101 convolutions in 50 residual blocks, no normalization
    transformer  50 layers of a post-norm encoder, without warm-up
    deepest      10,000 convolutions of tanh, for `--seconds` on a GPU, from `initialize` alone
    variance     100 layers of several activations: no training, signal and gradient over depth

PyTorch is the quickest here: TensorFlow and JAX take minutes to trace a thousand layers.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_initkit
from keras_initkit.initializers import HeNormal, XavierNormal

layers = keras.layers
Start = Callable[[keras.Model, np.ndarray, int], Any]


class Experiment(NamedTuple):
    """A network, its inputs' shape, its optimizer, and how long it is trained."""

    build: Callable[[int], keras.Model]
    depth: int
    shape: tuple[int, ...]
    optimizer: Callable[[], keras.optimizers.Optimizer]
    steps: int
    scheme: str = "auto"


class Digits(NamedTuple):
    """1,400 digits to train on and 397 to test."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(shape: tuple[int, ...]) -> Digits:
    """Return the digits in random order, pixels of about mean 0 and variance 1."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = ((x[order] - 5) / 6).astype("float32"), y[order]
    if shape == (4, 4, 4):  # squares of 2x2 pixels
        x = x.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4)
    x = x.reshape(-1, *shape)
    return Digits(x[:1400], y[:1400], x[1400:], y[1400:])


def build_mlp(depth: int, width: int = 64, activation: str = "tanh") -> keras.Model:
    """Build fully connected layers in a row."""
    hidden = [layers.Dense(width, activation) for _ in range(depth - 1)]
    return keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])


def build_cnn(depth: int) -> keras.Model:
    """Build convolutions in a row, on maps of 4x4."""
    convolutions = [
        layers.Conv2D(16, 3, padding="same", activation="tanh") for _ in range(depth - 1)
    ]
    return keras.Sequential(
        [keras.Input((4, 4, 4)), *convolutions, layers.Flatten(), layers.Dense(10)]
    )


def build_resnet(depth: int) -> keras.Model:
    """Build residual blocks of two convolutions and ReLU, without normalization."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(32, 3, strides=2, padding="same")(inputs)
    for _ in range((depth - 1) // 2):
        y = layers.Conv2D(32, 3, padding="same")(layers.ReLU()(x))
        y = layers.Conv2D(32, 3, padding="same")(layers.ReLU()(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def build_transformer(depth: int) -> keras.Model:
    """Build a post-norm encoder of the rows of pixels: sums are normalized."""
    inputs = keras.Input((8, 8))
    rows = keras.ops.concatenate([inputs, keras.ops.zeros_like(inputs) + keras.ops.eye(8)], -1)
    x = layers.LayerNormalization()(layers.Dense(64)(rows))
    for _ in range(depth):
        y = layers.MultiHeadAttention(4, 16)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, y]))
        y = layers.Dense(64)(layers.Dense(128, "relu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


EXPERIMENTS = {
    "mlp": Experiment(build_mlp, 1000, (64,), lambda: keras.optimizers.Adam(5e-5), 200),
    "cnn": Experiment(
        build_cnn, 500, (4, 4, 4), lambda: keras.optimizers.Adam(5e-5), 98, "delta-orthogonal"
    ),
    "resnet": Experiment(build_resnet, 101, (8, 8, 1), lambda: keras.optimizers.Adam(1e-3), 200),
    "transformer": Experiment(
        build_transformer, 50, (8, 8), lambda: keras.optimizers.Adam(2e-4), 84
    ),
}


def starts(scheme: str) -> dict[str, Start]:
    """Return the starts to compare, by name."""

    def redraw(initializer: Any) -> Start:
        return lambda model, x, seed: keras_initkit.reinitialize(
            model, {keras.layers.Layer: initializer}, seed=seed
        )

    return {
        "initialize": lambda model, x, seed: keras_initkit.initialize(model, x, scheme, seed),
        "Xavier": redraw(XavierNormal()),
        "He": redraw(HeNormal()),
    }


def train(experiment: Experiment, start: Start, seed: int) -> tuple[float, float]:
    """Train from a start, and return the test accuracy and the seconds of the start."""
    digits = load(experiment.shape)
    keras.utils.set_random_seed(seed)
    model = experiment.build(experiment.depth)
    begin = time.perf_counter()
    start(model, digits.x, seed)
    seconds = time.perf_counter() - begin
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(experiment.optimizer(), loss, metrics=["accuracy"], jit_compile=False)
    epochs = experiment.steps // 14
    model.fit(digits.x, digits.y, 100, epochs, verbose=0)
    accuracy = model.evaluate(digits.x_test, digits.y_test, 397, verbose=0)[1]
    keras.backend.clear_session()
    return float(accuracy), seconds


def train_deepest(depth: int, seconds: float, rate: float, seed: int) -> None:
    """Train convolutions in a row for some seconds, and print their accuracy as it goes.

    Steps are of PyTorch's own operations on the weights of the Keras model: Keras takes longer to
    call a layer than a GPU to compute it. The last accuracy is that of the Keras model.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    digits, begin = load((4, 4, 4)), time.perf_counter()
    keras.utils.set_random_seed(seed)
    model = build_cnn(depth)
    print(f"{depth} layers on {device}, built in {time.perf_counter() - begin:.0f} s", flush=True)
    begin = time.perf_counter()
    keras_initkit.initialize(model, digits.x, "delta-orthogonal", seed)
    print(f"initialized in {time.perf_counter() - begin:.0f} s", flush=True)

    *convolutions, head = [layer for layer in model.layers if layer.weights]
    tensors = [
        layer.kernel.value.detach().permute(3, 2, 0, 1).contiguous() for layer in convolutions
    ]
    tensors += [layer.bias.value.detach().clone() for layer in convolutions]
    tensors += [head.kernel.value.detach().clone(), head.bias.value.detach().clone()]
    for tensor in tensors:
        tensor.requires_grad_()

    def call(x: Any) -> Any:
        for kernel, bias in zip(tensors[: depth - 1], tensors[depth - 1 : -2], strict=True):
            x = torch.tanh(torch.nn.functional.conv2d(x, kernel, bias, padding=1))
        return x.permute(0, 2, 3, 1).flatten(1) @ tensors[-2] + tensors[-1]

    x, x_test = (
        torch.tensor(part, device=device).permute(0, 3, 1, 2) for part in (digits.x, digits.x_test)
    )
    y, y_test = (torch.tensor(part, device=device) for part in (digits.y, digits.y_test))
    optimizer = torch.optim.Adam(tensors, rate, foreach=True)
    step, begin, told = 0, time.perf_counter(), 0.0
    while (passed := time.perf_counter() - begin) < seconds:
        rows = torch.randint(len(x), (256,), device=device)
        loss = torch.nn.functional.cross_entropy(call(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if passed - told > seconds / 20 or step == 1:
            told = passed
            with torch.no_grad():
                accuracy = float((call(x_test).argmax(1) == y_test).float().mean())
            print(
                f"{passed:5.0f} s, {step} updates: loss {loss.item():.3f}, {accuracy:.1%}",
                flush=True,
            )
    for layer, kernel in zip(convolutions, tensors[: depth - 1], strict=True):
        layer.kernel.assign(kernel.detach().permute(2, 3, 1, 0))
    for layer, bias in zip(convolutions, tensors[depth - 1 : -2], strict=True):
        layer.bias.assign(bias.detach())
    head.kernel.assign(tensors[-2].detach())
    head.bias.assign(tensors[-1].detach())
    right = keras.ops.convert_to_numpy(model(digits.x_test)).argmax(1) == digits.y_test
    print(f"| deepest | {depth} | seed {seed} | {step} updates | {right.mean():.1%} |", flush=True)


def run(name: str, experiment: Experiment, seeds: int, only: list[str]) -> None:
    """Train an experiment's network from each start and seed, and print a row for each start."""
    for title, start in starts(experiment.scheme).items():
        if only and title not in only:
            continue
        found, begin = [], time.perf_counter()
        for seed in range(seeds):
            found.append(train(experiment, start, seed))
        accuracies = " ".join(f"{accuracy:.1%}" for accuracy, _ in found)
        minutes = (time.perf_counter() - begin) / 60
        print(
            f"| {name} | {experiment.depth} | {title} | {accuracies} | {found[0][1]:.0f} s | "
            f"{minutes:.1f} min |",
            flush=True,
        )


def follow(model: keras.Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each hidden layer's mean square of pre-activations, and norm of their gradient."""
    function = keras.activations.get(model.layers[0].activation)
    weights = [
        (keras.ops.convert_to_numpy(layer.kernel), keras.ops.convert_to_numpy(layer.bias))
        for layer in model.layers
    ]

    def apply(z: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(z))))

    signal, squares, slopes = x, [], []
    for kernel, bias in weights[:-1]:
        z = signal @ kernel + bias
        signal = apply(z)
        slopes.append((apply(z + 1e-3) - apply(z - 1e-3)) / 2e-3)
        squares.append((z**2).mean())
    gradient = np.random.default_rng(0).standard_normal((len(x), 10)) @ weights[-1][0].T
    norms = []
    for (kernel, _), slope in zip(weights[-2::-1], slopes[::-1], strict=True):
        norms.append(np.linalg.norm(gradient * slope))
        gradient = (gradient * slope) @ kernel.T
    return np.array(squares), np.array(norms[::-1])


def run_variance(seeds: int, only: list[str], width: int) -> None:
    """Print how far signal and gradient change over 100 layers: the worst of all seeds."""
    digits = load((64,))
    for activation in ("gelu", "silu", "mish", "selu", "leaky_relu"):
        for title, start in starts("auto").items():
            if only and title not in only:
                continue
            lowest, highest, ratios = np.inf, 0.0, []
            for seed in range(seeds):
                keras.utils.set_random_seed(seed)
                model = build_mlp(101, width, activation)
                start(model, digits.x, seed)
                squares, norms = follow(model, digits.x_test)
                relative = squares / squares[0]
                lowest, highest = min(lowest, relative.min()), max(highest, relative.max())
                ratios.append(norms[0] / norms[-1])
                keras.backend.clear_session()
            print(
                f"| {activation} | {title} | {lowest:.3g} to {highest:.3g} | "
                f"{min(ratios):.3g} to {max(ratios):.3g} |",
                flush=True,
            )


def main() -> None:
    """Run the experiments that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("experiments", nargs="+", choices=[*EXPERIMENTS, "variance", "deepest"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of starts")
    parser.add_argument("--depth", type=int, help="layers, instead of the experiment's")
    parser.add_argument("--width", type=int, default=128, help="units, of the variance")
    parser.add_argument("--steps", type=int, help="updates, 14 an epoch")
    parser.add_argument("--seconds", type=float, default=150, help="to train, of the deepest")
    arguments = parser.parse_args()
    sys.setrecursionlimit(500_000)  # Keras walks from layer to layer
    for name in arguments.experiments:
        if name == "variance":
            run_variance(arguments.seeds, arguments.only, arguments.width)
        elif name == "deepest":
            depth = arguments.depth or 10_000
            train_deepest(depth, arguments.seconds, 2.5e-2 / depth, 0)
        else:
            given = {"depth": arguments.depth, "steps": arguments.steps}
            chosen = {key: value for key, value in given.items() if value}
            run(name, EXPERIMENTS[name]._replace(**chosen), arguments.seeds, arguments.only)


if __name__ == "__main__":
    main()
