"""Variance after He initialization in Keras, PyTorch, JAX and with ours, layer by layer.

    pip install '.[jax,torch]'
    python -m benchmarks.initializers_table            # prints the tables, in some minutes
    python -m benchmarks.initializers_table --write    # replaces those of the docs

Each weight is drawn as a user of the library draws it: by Keras for a Keras layer, by
`torch.nn.init` for the module of PyTorch, by `jax.nn.initializers` for the shape in Flax's
layer, and by `keras_initkit.reinitialize` for the Keras layer. Then it is put into the Keras
layer, and independent normal numbers of mean square 1 are sent through the layer: forward for
its outputs, for fans in; backward the gradient of its inputs, for fans out. A figure is their mean
square relative to the intended one: 2 for He's, for ReLU, 1 for orthogonal kernels.
"""

import argparse
import importlib.metadata
import itertools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import keras
import numpy as np
import torch
from keras import layers
from torch import nn

import keras_initkit
from benchmarks.tables import replace_lines
from keras_initkit.initializers import Dirac, HeNormal, Orthogonal

PAGE = Path(__file__).parents[1] / "docs" / "explanations" / "initializers.md"
LIBRARIES = ("Keras", "PyTorch", "JAX", "keras_initkit")
# Pixels at the borders of a map, where units have other fans.
BORDER = 4
# The relative error of the mean square of n normal numbers is sqrt(2/n).
NUMBERS = 200_000

Array = np.ndarray
Draw = Callable[[Any], Array]
Make = Callable[[Any], Any]


class Way(NamedTuple):
    """A way to initialize, in each library.

    Attributes:
        intended: Mean square after it, as intended.
        keras: Initializer of a seed.
        torch: Fills a tensor.
        jax: Draws for a key and a shape.
        ours: Initializer.
        backward: Whether gradients are looked at.
    """

    intended: float
    keras: Callable[[int], Any]
    torch: Callable[[torch.Tensor], Any]
    jax: Callable[[Any, Sequence[int]], Any]
    ours: Any
    backward: bool = False


HE_IN = Way(
    2.0,
    keras.initializers.HeNormal,
    lambda tensor: nn.init.kaiming_normal_(tensor, nonlinearity="relu"),
    jax.nn.initializers.he_normal(),
    HeNormal(),
)
HE_OUT = Way(
    2.0,
    lambda seed: keras.initializers.VarianceScaling(2.0, "fan_out", seed=seed),
    lambda tensor: nn.init.kaiming_normal_(tensor, mode="fan_out", nonlinearity="relu"),
    jax.nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
    HeNormal(mode="fan_out"),
    backward=True,
)
ORTHOGONAL = Way(
    1.0,
    lambda seed: keras.initializers.Orthogonal(seed=seed),
    nn.init.orthogonal_,
    jax.nn.initializers.orthogonal(),
    Orthogonal(),
)


def call(layer: Any, x: Any) -> Any:
    """Return the outputs of a layer."""
    return layer(x)


class Case(NamedTuple):
    """A kernel of a layer.

    Attributes:
        name: Its name in the table.
        make: Makes the Keras layer from the initializer of the kernel.
        inputs: Shape of the inputs, with a batch.
        torch: Draws it as PyTorch does, in the layout of Keras, with a function that fills a
            parameter.
        jax: The same for JAX, with a function that draws an array of a shape.
        path: End of the weight's path.
        forward: A function of layer and inputs, linear in the inputs of that weight.
        is_orthogonal: Whether it is to be orthogonal. Otherwise it is He's.
        is_indexed: Whether inputs are indices, without a gradient.
        gates: Number of maps in the kernel; the first is looked at.
        inputs_built: Shape to build the layer with, if it is not that of the inputs.
    """

    name: str
    make: Make
    inputs: tuple[int, ...]
    torch: Callable[[Draw], Array] | None = None
    jax: Callable[[Draw], Array] | None = None
    path: str = "kernel"
    forward: Callable[[Any, Any], Any] = call
    is_orthogonal: bool = False
    is_indexed: bool = False
    gates: int = 1
    inputs_built: tuple[int, ...] | None = None


def convolution(name: str, groups: int = 1, **kwargs: Any) -> Case:
    """Return the case of a convolution of 64 channels."""
    return Case(
        name,
        lambda kernel: layers.Conv2D(64, 3, kernel_initializer=kernel, groups=groups, **kwargs),
        (4, 24, 24, 64),
        lambda draw: draw(nn.Conv2d(64, 64, 3, groups=groups).weight).transpose(2, 3, 1, 0),
        lambda draw: draw((3, 3, 64 // groups, 64)),
    )


def depthwise(name: str, multiplier: int, **kwargs: Any) -> Case:
    """Return the case of a depthwise convolution of 64 channels."""
    return Case(
        name,
        lambda kernel: layers.DepthwiseConv2D(
            3, depth_multiplier=multiplier, depthwise_initializer=kernel, **kwargs
        ),
        (1, 24, 24, 64),
        lambda draw: (
            draw(nn.Conv2d(64, 64 * multiplier, 3, groups=64).weight)
            .reshape(64, multiplier, 3, 3)
            .transpose(2, 3, 0, 1)
        ),
        lambda draw: draw((3, 3, 1, 64 * multiplier)).reshape(3, 3, 64, multiplier),
    )


def separable(part: str) -> Case:
    """Return the case of a kernel of a separable convolution; the other one is an identity."""
    other = {"depthwise": "pointwise", "pointwise": "depthwise"}[part]
    identity = Dirac() if other == "pointwise" else DepthwiseIdentity()
    return Case(
        f"SeparableConv2D 3x3, 64 channels, {part}",
        lambda kernel: layers.SeparableConv2D(
            64, 3, **{f"{part}_initializer": kernel, f"{other}_initializer": identity}
        ),
        (1, 24, 24, 64),
        path=f"{part}_kernel",
    )


class DepthwiseIdentity(keras.initializers.Initializer):
    """A depthwise kernel of 1 at its centre, and 0 elsewhere."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        """Return a kernel (rows, columns, channels, 1)."""
        kernel = np.zeros(shape, dtype or "float32")
        kernel[shape[0] // 2, shape[1] // 2] = 1.0
        return keras.ops.convert_to_tensor(kernel)


def transposed_convolution(name: str, outputs: int, size: int, strides: int = 1) -> Case:
    """Return the case of a transposed convolution of 64 channels."""
    return Case(
        name,
        lambda kernel: layers.Conv2DTranspose(outputs, size, strides, kernel_initializer=kernel),
        (8, 16, 16, 64),
        lambda draw: draw(nn.ConvTranspose2d(64, outputs, size, strides).weight).transpose(
            2, 3, 1, 0
        ),
        lambda draw: draw((size, size, 64, outputs)).transpose(0, 1, 3, 2),
    )


def recurrent(cls: Any, module: Any, gates: int, path: str) -> Case:
    """Return the case of a kernel of a gated layer: of inputs or, orthogonal, of the state."""
    is_state = path == "recurrent_kernel"
    argument = "recurrent_initializer" if is_state else "kernel_initializer"
    parameter = "weight_hh_l0" if is_state else "weight_ih_l0"

    def forward(layer: Any, x: Any) -> Any:
        return first_gate(layer.cell, x, is_state)

    def per_gate(draw: Draw) -> Array:
        # Flax has a Dense for each gate.
        return np.concatenate([draw((64, 64)) for _ in range(gates)], axis=1)

    kind = "recurrent kernel, orthogonal" if is_state else "kernel"
    return Case(
        f"{cls.__name__} 64 → 64, {kind}",
        lambda kernel: cls(64, use_bias=False, **{argument: kernel}),
        (2048, 64),
        lambda draw: draw(getattr(module(64, 64), parameter)).T,
        per_gate,
        path,
        forward,
        is_orthogonal=is_state,
        gates=gates,
        inputs_built=(2048, 5, 64),
    )


def first_gate(cell: Any, x: Any, is_state: bool) -> Any:
    """Return the input of the activation of a cell's first gate, from its inputs or state alone."""
    seen = []

    def watched(z: Any) -> Any:
        seen.append(z)
        return keras.ops.ones_like(z)

    cell.activation = cell.recurrent_activation = watched
    zeros = keras.ops.zeros_like(x)
    inputs, state = (zeros, x) if is_state else (x, zeros)
    cell(inputs, [state, state])  # a GRU takes the first
    return seen[0]


def attention(part: str) -> Case:
    """Return the case of a projection of an attention layer with 8 heads of 16 units."""
    is_output = part == "output"

    def of_torch(draw: Draw) -> Array:
        module = nn.MultiheadAttention(128, 8)
        if is_output:
            return draw(module.out_proj.weight).T.reshape(8, 16, 128)
        # Queries, keys and values in one parameter.
        index = ("query", "key", "value").index(part)
        return draw(module.in_proj_weight)[128 * index : 128 * (index + 1)].T.reshape(128, 8, 16)

    def of_flax(draw: Draw) -> Array:
        # DenseGeneral flattens the shape before it draws.
        return draw((128, 128)).reshape((8, 16, 128) if is_output else (128, 8, 16))

    return Case(
        f"MultiHeadAttention, 8 heads of 16, {part}",
        lambda kernel: layers.MultiHeadAttention(8, 16, use_bias=False, kernel_initializer=kernel),
        (64, 32, 8, 16) if is_output else (64, 32, 128),
        of_torch,
        of_flax,
        f"{'attention_output' if is_output else part}/kernel",
        lambda layer, x: getattr(layer, f"{part}_dense")(x),
        inputs_built=(64, 32, 128),
    )


CASES = (
    Case(
        "Dense 256 → 256",
        lambda kernel: layers.Dense(256, kernel_initializer=kernel),
        (512, 256),
        lambda draw: draw(nn.Linear(256, 256).weight).T,
        lambda draw: draw((256, 256)),
    ),
    convolution("Conv2D 3x3, 64 → 64"),
    convolution("… stride 2", strides=2),
    convolution("… dilation 2", dilation_rate=2),
    convolution("… 4 groups", groups=4),
    depthwise("DepthwiseConv2D 3x3, 64 channels", 1),
    depthwise("… multiplier 2", 2),
    depthwise("… stride 2", 1, strides=2),
    separable("depthwise"),
    separable("pointwise"),
    transposed_convolution("Conv2DTranspose 3x3, 64 → 16", 16, 3),
    transposed_convolution("Conv2DTranspose 4x4, stride 2, 64 → 3", 3, 4, strides=2),
    recurrent(layers.LSTM, nn.LSTM, 4, "kernel"),
    recurrent(layers.LSTM, nn.LSTM, 4, "recurrent_kernel"),
    recurrent(layers.GRU, nn.GRU, 3, "kernel"),
    recurrent(layers.GRU, nn.GRU, 3, "recurrent_kernel"),
    Case(
        "EinsumDense `bhi,hio->bho`, 8 heads, 64 → 64",
        lambda kernel: layers.EinsumDense("bhi,hio->bho", (8, 64), kernel_initializer=kernel),
        (512, 8, 64),
        jax=lambda draw: draw((8, 64, 64)),
    ),
    attention("query"),
    attention("output"),
    Case(
        "Embedding 1,000 → 64",
        lambda kernel: layers.Embedding(1000, 64, embeddings_initializer=kernel),
        (4096,),
        lambda draw: draw(nn.Embedding(1000, 64).weight),
        lambda draw: draw((1000, 64)),
        "embeddings",
        is_indexed=True,
    ),
)


def build(case: Case, kernel: Any) -> Any:
    """Build the Keras layer of a case, with an initializer."""
    layer = case.make(kernel)
    shape = (None, *(case.inputs_built or case.inputs)[1:])
    if isinstance(layer, layers.MultiHeadAttention):
        layer.build(shape, shape)
    else:
        layer.build(shape)
    return layer


def weight(case: Case, layer: Any) -> Any:
    """Find the weight of a case."""
    return next(w for w in layer.weights if f"/{w.path}".endswith("/" + case.path))


def drawers(case: Case, way: Way) -> dict[str, Callable[[int], Array] | None]:
    """Return a function of a seed that draws the weight, for each library; `None` without one."""
    reused = build(case, "zeros")

    def by_keras(seed: int) -> Array:
        return keras.ops.convert_to_numpy(weight(case, build(case, way.keras(seed))))

    def by_torch(seed: int) -> Array:
        def draw(parameter: Any) -> Array:
            way.torch(parameter)
            return parameter.detach().numpy()

        torch.manual_seed(seed)
        assert case.torch is not None
        return case.torch(draw)

    def by_jax(seed: int) -> Array:
        keys = iter(jax.random.split(jax.random.key(seed), 4))
        assert case.jax is not None
        return case.jax(lambda shape: np.asarray(way.jax(next(keys), shape)))

    def by_us(seed: int) -> Array:
        chosen = weight(case, reused)
        rules = [(lambda _, variable: variable is chosen, way.ours)]
        keras_initkit.reinitialize(reused, rules, seed=seed)
        return keras.ops.convert_to_numpy(chosen)

    return {
        "Keras": by_keras,
        "PyTorch": by_torch if case.torch else None,
        "JAX": by_jax if case.jax else None,
        "keras_initkit": by_us,
    }


def factors(case: Case, way: Way) -> list[float | None]:
    """Measure the mean square relative to the intended one, for each library."""
    layer = build(case, "zeros")
    variable = weight(case, layer)
    draws = max(4, math.ceil(NUMBERS * case.gates / math.prod(variable.shape)))
    result: list[float | None] = []
    for drawer in drawers(case, way).values():
        if drawer is None:
            result.append(None)
            continue
        rng = np.random.default_rng(0)
        squares = []
        for seed in range(draws):
            variable.assign(drawer(seed))
            squares.append(mean_square(case, layer, way.backward, rng))
        result.append(float(np.mean(squares)) / way.intended)
    return result


def mean_square(case: Case, layer: Any, backward: bool, rng: np.random.Generator) -> float:
    """Measure the mean square of outputs of random inputs; or of the gradient of the inputs."""
    if case.is_indexed:
        x = rng.integers(0, layer.input_dim, case.inputs)
        return float(np.mean(np.square(case.forward(layer, x))))
    x = normal(rng, case.inputs)
    if not backward:
        outputs = case.forward(layer, x)
        return interior_mean_square(outputs, isinstance(layer, layers.Conv2DTranspose))
    outputs, pull_back = jax.vjp(lambda inputs: case.forward(layer, inputs), x)
    (gradient,) = pull_back(normal(rng, outputs.shape))
    has_borders = hasattr(layer, "kernel_size") and not isinstance(layer, layers.Conv2DTranspose)
    return interior_mean_square(gradient, has_borders)


def normal(rng: np.random.Generator, shape: Sequence[int]) -> Any:
    """Draw independent normal numbers."""
    return keras.ops.convert_to_tensor(rng.standard_normal(shape, dtype=np.float32))


def interior_mean_square(tensor: Any, has_borders: bool) -> float:
    """Return the mean square; of maps (batch, rows, columns, channels) without their borders."""
    array = np.asarray(tensor, np.float64)
    if has_borders:
        array = array[:, BORDER:-BORDER, BORDER:-BORDER]
    return float(np.mean(np.square(array)))


def table(backward: bool) -> Iterable[str]:
    """Yield the lines of a table."""
    fan = "fan_out" if backward else "fan_in"
    yield f"| kernel | shape | {fan} | {' | '.join(LIBRARIES)} |"
    yield "|---|---|" + "---:|" * (1 + len(LIBRARIES))
    for case in CASES:
        if backward and (case.is_indexed or case.is_orthogonal):
            continue
        layer = build(case, "zeros")
        variable = weight(case, layer)
        way = ORTHOGONAL if case.is_orthogonal else HE_OUT if backward else HE_IN
        true = getattr(keras_initkit.fans(layer, variable), fan)
        cells = " | ".join(map(format_factor, factors(case, way)))
        yield f"| {case.name} | {tuple(variable.shape)} | {true:g} | {cells} |"


def format_factor(factor: float | None) -> str:
    """Format a figure in the table; in bold if it is not 1."""
    if factor is None:
        return "–"
    number = f"{factor:.2f}" if factor > 0.095 else f"{factor:.2g}"
    return number if abs(factor - 1.0) < 0.03 else f"**{number}**"


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into the docs")
    write = parser.parse_args().write
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name).partition('+')[0]}"
        for name in ("keras", "torch", "jax")
    )
    for name, backward in (("forward", False), ("backward", True)):
        lines = []
        for line in itertools.chain([f"Measured with {versions}.", ""], table(backward)):
            print(line, flush=True)
            lines.append(line)
        print()
        if write:
            PAGE.write_text(replace_lines(PAGE.read_text(), name, lines))


if __name__ == "__main__":
    main()
