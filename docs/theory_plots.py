"""Draw the figures of the page on the edge of chaos, as SVG: `python -m docs.theory_plots`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_initkit import propagate, theory
from keras_initkit.theory.maps import activation_map

Array = npt.NDArray[np.float64]

IMAGES = Path("docs/images")
# Width and height of the plot, and its margins: left, top.
SIZE, LEFT, TOP = (400.0, 260.0), 70.0, 20.0
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#6b6b6b")
# Variances of weights times fan_in, below, at and above the edge for this variance of biases.
BIAS = 0.05
EDGE = theory.critical("tanh", bias_variance=BIAS)
PHASES = {"ordered": 0.6, "edge": EDGE.weight_variance, "chaotic": 4.0}


class Curve(NamedTuple):
    """A line of a figure, or dots."""

    label: str
    x: Array
    y: Array
    is_dots: bool = False


class Axis(NamedTuple):
    """An axis from a number to another, with so many parts."""

    label: str
    low: float
    high: float
    parts: int


def draw(name: str, across: Axis, up: Axis, curves: Sequence[Curve], is_log: bool = False) -> None:
    """Write a figure with a grid, curves and a legend; logarithms are to base 10."""
    values = [np.log10(curve.y) if is_log else curve.y for curve in curves]
    width, height = SIZE

    def place(x: Array, y: Array) -> tuple[Array, Array]:
        return LEFT + width * x / across.high, TOP + height * (
            1 - (y - up.low) / (up.high - up.low)
        )

    def parts() -> Iterator[str]:
        yield f'<rect width="{LEFT + width + 150}" height="{TOP + height + 55}" fill="white"/>'
        bottom, middle = TOP + height, LEFT + width / 2
        for share in np.linspace(0.0, 1.0, across.parts + 1):
            x = LEFT + width * share
            yield f'<path d="M{x:.0f} {TOP}v{height}" stroke="#ddd"/>'
            shown = f"{across.high * share:.3g}"
            yield f'<text x="{x:.0f}" y="{bottom + 18}" text-anchor="middle">{shown}</text>'
        for share in np.linspace(0.0, 1.0, up.parts + 1):
            y, number = bottom - height * share, up.low + (up.high - up.low) * share
            shown = f"1e{number:.0f}" if is_log else f"{number:.3g}"
            yield f'<path d="M{LEFT} {y:.0f}h{width}" stroke="#ddd"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{shown}</text>'
        yield f'<text x="{middle}" y="{bottom + 42}" text-anchor="middle">{across.label}</text>'
        yield (
            f'<text transform="translate(18 {TOP + height / 2}) rotate(-90)" '
            f'text-anchor="middle">{up.label}</text>'
        )
        for order, (curve, y_values) in enumerate(zip(curves, values, strict=True)):
            colour = COLOURS[order % (3 if is_log else 4)]
            points = list(zip(*place(curve.x, y_values), strict=True))
            if curve.is_dots:
                yield from (
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points
                )
            else:
                line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
                yield f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
            y = TOP + 16.0 + 20.0 * order
            x = LEFT + width + 12.0
            yield f'<rect x="{x}" y="{y - 7}" width="14" height="5" fill="{colour}"/>'
            yield f'<text x="{x + 20}" y="{y}">{curve.label}</text>'

    size = f'width="{LEFT + width + 150:.0f}" height="{TOP + height + 55:.0f}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    )
    (IMAGES / f"{name}.svg").write_text("\n".join([head, *parts(), "</svg>", ""]))


def square(q: Array) -> Array:
    """Return E tanh(z)² of z ~ N(0, q)."""
    return np.array([activation_map(keras.ops.tanh, 0.0, x).second_moment for x in q])


def settle(weight_variance: float, bias_variance: float = BIAS) -> float:
    """Return the variance at which layers of tanh settle."""
    q, before = 1.0, 0.0
    while abs(q - before) > 1e-6:
        before, q = q, weight_variance * float(square(np.array([q]))[0]) + bias_variance
    return q


def draw_lengths() -> None:
    """Draw the variance after a layer over the variance before."""
    q = np.linspace(0.0, 3.0, 61)
    curves = [
        Curve(f"{name}, σw² = {weight:.2f}", q, weight * square(q) + BIAS)
        for name, weight in PHASES.items()
    ]
    across, up = Axis("variance q of a layer", 0, 3, 6), Axis("variance of the next layer", 0, 3, 6)
    draw("length_map", across, up, [*curves, Curve("unchanged", q, q)])


def draw_correlations() -> None:
    """Draw the correlation of two inputs after a layer over that before."""
    c, curves = np.linspace(0.0, 1.0, 51), []
    for name, weight in PHASES.items():
        q = settle(weight)
        product = activation_map(keras.ops.tanh, 0.0, q).product(c)
        curves.append(Curve(f"{name}, σw² = {weight:.2f}", c, (weight * product + BIAS) / q))
    across = Axis("correlation c of two inputs", 0, 1, 5)
    up = Axis("correlation after a layer", 0, 1, 5)
    draw("correlation_map", across, up, [*curves, Curve("unchanged", c, c)])


def draw_edge() -> None:
    """Draw the factor of a layer on squared gradients over the standard deviation of weights."""
    gains, curves = np.linspace(0.2, 2.4, 45), []
    for bias in (0.0, BIAS, 0.3):
        factors = []
        for gain in gains:
            q = settle(gain**2, bias)
            factors.append(gain**2 * activation_map(keras.ops.tanh, 0.0, q).slope)
        curves.append(Curve(f"σb² = {bias:g}", gains, np.array(factors)))
    curves.append(Curve("edge of chaos", np.array([0.0, 2.4]), np.ones(2)))
    across = Axis("σw, the weights' gain", 0, 2.4, 6)
    draw("edge", across, Axis("χ, factor on squared gradients", 0, 1.6, 4), curves)


def draw_depth() -> None:
    """Draw predicted and measured gradients over 50 layers: lines and dots."""
    depth, curves = 50, []
    for name, weight in PHASES.items():
        keras.utils.set_random_seed(0)
        hidden = [keras.layers.Dense(256, "tanh") for _ in range(depth)]
        for layer in hidden:  # each its own: an initializer returns the same numbers again
            layer.kernel_initializer = keras.initializers.VarianceScaling(weight)
            layer.bias_initializer = keras.initializers.RandomNormal(stddev=BIAS**0.5)
        model = keras.Sequential([keras.Input((256,)), *hidden])
        kernels = [layer.get_weights() for layer in hidden]
        rng, outputs = np.random.default_rng(0), []
        x = rng.normal(size=(64, 256))
        for matrix, offset in kernels:
            outputs.append(x := np.tanh(x @ matrix + offset))
        gradient, squares = rng.normal(size=x.shape), []
        for (matrix, _), output in zip(kernels[::-1], outputs[::-1], strict=True):
            squares.append((gradient**2).mean())
            gradient = (gradient * (1.0 - output**2)) @ matrix.T
        prediction = propagate(model)
        rows = [prediction[layer.name].gradient_second_moment or 0.0 for layer in hidden]
        layers = np.arange(1.0, depth + 1.0)
        curves += [
            Curve(f"{name}, predicted", layers, np.sqrt(rows)),
            Curve(f"{name}, measured", layers[::2], np.sqrt(squares[::-1])[::2], True),
        ]
    pairs = [curves[i] for i in (0, 2, 4, 1, 3, 5)]
    across = Axis("layer, from the input", 0, 50, 5)
    up = Axis("RMS gradient, 1 at the last layer", -8, 4, 6)
    draw("gradient_over_depth", across, up, pairs, is_log=True)


if __name__ == "__main__":
    draw_lengths()
    draw_correlations()
    draw_edge()
    draw_depth()
