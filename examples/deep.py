"""Networks far deeper than usual, trained from `keras_initkit.initialize` and from common starts.

    KERAS_BACKEND=torch python examples/deep.py mlp --seeds 3
    KERAS_BACKEND=torch python examples/deep.py deepest --seconds 150

Each experiment trains one network on scikit-learn's handwritten digits from several starts, with
the same data, optimizer and number of steps, and prints the accuracy on digits it has not seen:

    mlp          1,000 fully connected layers of tanh, no skip connections, no normalization
    cnn          500 convolutions of tanh, likewise
    resnet       101 convolutions in 50 residual blocks, no normalization
    transformer  50 layers of a post-norm encoder, without warm-up
    deepest      10,000 convolutions of tanh, on a GPU
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
    """A network, its inputs' shape, how long it is trained, and rates of Adam to choose from."""

    build: Callable[[int], keras.Model]
    depth: int
    shape: tuple[int, ...]
    rates: tuple[float, ...]
    steps: int
    scheme: str = "auto"


class Digits(NamedTuple):
    """1,100 digits to train on, 300 to choose a rate by, and 397 to test."""

    x: np.ndarray
    y: np.ndarray
    x_chosen: np.ndarray
    y_chosen: np.ndarray
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
    return Digits(x[:1100], y[:1100], x[1100:1400], y[1100:1400], x[1400:], y[1400:])


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
    "mlp": Experiment(build_mlp, 1000, (64,), (3e-5, 1e-4), 99),
    "cnn": Experiment(build_cnn, 500, (4, 4, 4), (3e-5, 1e-4), 44, "delta-orthogonal"),
    "resnet": Experiment(build_resnet, 101, (8, 8, 1), (3e-4, 1e-3), 99),
    "transformer": Experiment(build_transformer, 50, (8, 8), (1e-4, 3e-4), 88),
    # The change of a step adds up over the layers.
    "deepest": Experiment(build_cnn, 10_000, (4, 4, 4), (2.5e-6,), 10_000, "delta-orthogonal"),
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


def train(
    experiment: Experiment, start: Start, rate: float, seed: int, seconds: float
) -> tuple[float, float, float]:
    """Train from a start.

    Returns:
        The accuracies on digits to choose by and to test, and the seconds of the start.
    """
    digits = load(experiment.shape)
    keras.utils.set_random_seed(seed)
    model = experiment.build(experiment.depth)
    begin = time.perf_counter()
    start(model, digits.x, seed)
    passed = time.perf_counter() - begin
    if experiment.build in (build_mlp, build_cnn):
        fit_plain(model, digits, rate, experiment.steps, seconds)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        model.fit(digits.x, digits.y, 100, experiment.steps // 11, verbose=0)
    chosen, tested = (
        float((keras.ops.convert_to_numpy(model(x)).argmax(1) == y).mean())
        for x, y in ((digits.x_chosen, digits.y_chosen), (digits.x_test, digits.y_test))
    )
    keras.backend.clear_session()
    return chosen, tested, passed


def fit_plain(model: Any, digits: Digits, rate: float, steps: int, seconds: float) -> None:
    """Train layers in a row, for some steps of batches of 100 or seconds.

    Steps are of PyTorch's own operations on the weights of the Keras model: Keras takes longer to
    call a small layer than the layer takes. Of long trainings the accuracy is printed as it goes.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    holders = [layer for layer in model.layers if layer.weights]
    is_dense = [isinstance(layer, layers.Dense) for layer in holders]
    kernels = [layer.kernel.value.detach().clone() for layer in holders]
    kernels = [
        kernel if dense else kernel.permute(3, 2, 0, 1).contiguous()
        for kernel, dense in zip(kernels, is_dense, strict=True)
    ]
    biases = [layer.bias.value.detach().clone() for layer in holders]
    for tensor in (*kernels, *biases):
        tensor.requires_grad_()

    def call(x: Any) -> Any:
        for place, (kernel, bias, dense) in enumerate(zip(kernels, biases, is_dense, strict=True)):
            if dense:
                x = x if x.ndim == 2 else x.permute(0, 2, 3, 1).flatten(1)
                x = torch.addmm(bias, x, kernel)
            else:
                x = torch.nn.functional.conv2d(x, kernel, bias, padding=1)
            x = torch.tanh(x) if place < len(holders) - 1 else x
        return x

    def put(x: np.ndarray) -> Any:
        return torch.tensor(x if x.ndim < 4 else x.transpose(0, 3, 1, 2), device=device)

    x, y, x_test, y_test = map(put, (digits.x, digits.y, digits.x_test, digits.y_test))
    optimizer = torch.optim.Adam([*kernels, *biases], rate, foreach=True)
    begin, told = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        rows = torch.randint(len(x), (100,), device=device)
        loss = torch.nn.functional.cross_entropy(call(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (passed := time.perf_counter() - begin) > seconds:
            break
        if passed > told + 10.0 and len(holders) > 2000:
            told = passed
            with torch.no_grad():
                right = (call(x_test).argmax(1) == y_test).float().mean().item()
            print(f"{passed:.0f} s, {step} updates: {loss.item():.3f}, {right:.1%}", flush=True)
    for layer, kernel, bias, dense in zip(holders, kernels, biases, is_dense, strict=True):
        layer.kernel.assign(kernel.detach() if dense else kernel.detach().permute(2, 3, 1, 0))
        layer.bias.assign(bias.detach())


def run(name: str, experiment: Experiment, seeds: int, only: list[str], seconds: float) -> None:
    """Train an experiment's network from each start and seed, and print a row for each start.

    Each start has the rate that is best, of one more seed, on digits that are not tested.
    """
    for title, start in starts(experiment.scheme).items():
        if only and title not in only:
            continue
        begin, rates = time.perf_counter(), experiment.rates
        scores = {
            rate: train(experiment, start, rate, 100, seconds)[0] if len(rates) > 1 else 0.0
            for rate in rates
        }
        best = max(scores, key=lambda rate: scores[rate])
        found = [train(experiment, start, best, seed, seconds) for seed in range(seeds)]
        accuracies = " ".join(f"{tested:.1%}" for _, tested, _ in found)
        minutes = (time.perf_counter() - begin) / 60
        print(
            f"| {name} | {experiment.depth} | {title} | {best:g} | {accuracies} | "
            f"{found[0][2]:.0f} s | {minutes:.1f} min |",
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
    parser.add_argument("experiments", nargs="+", choices=[*EXPERIMENTS, "variance"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of starts")
    parser.add_argument("--depth", type=int, help="layers, instead of the experiment's")
    parser.add_argument("--width", type=int, default=128, help="units, of the variance")
    parser.add_argument("--steps", type=int, help="updates, 11 an epoch")
    parser.add_argument("--seconds", type=float, default=150, help="to train the deepest")
    arguments = parser.parse_args()
    for name in arguments.experiments:
        if name == "variance":
            run_variance(arguments.seeds, arguments.only, arguments.width)
        else:
            given = {"depth": arguments.depth, "steps": arguments.steps}
            chosen = {key: value for key, value in given.items() if value}
            experiment = EXPERIMENTS[name]._replace(**chosen)
            # Keras walks from layer to layer.
            sys.setrecursionlimit(max(sys.getrecursionlimit(), 50 * experiment.depth))
            if name == "deepest":
                run(name, experiment, 1, ["initialize"], arguments.seconds)
            else:
                run(name, experiment, arguments.seeds, arguments.only, 1e9)


if __name__ == "__main__":
    main()
