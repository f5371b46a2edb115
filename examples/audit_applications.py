"""Findings of `keras_initkit.audit` in models of keras.applications as they are shipped.

Prints, for each model, a table of its weights with the problems first, and what to do. Then it
counts the batch normalizations that do not normalize, because their epsilon is not small compared
with the variance that reaches them: as the audit tells from the weights alone, and as measured with
random images.

    python examples/audit_applications.py
    python examples/audit_applications.py --models ResNet50 --full
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console

import keras_initkit
from keras_initkit.models.audit.report import Audit

MODELS = ("Xception", "MobileNetV2", "EfficientNetB0", "ResNet50", "ConvNeXtTiny")


def share_left(model: keras.Model, images: np.ndarray) -> list[float]:
    """Variance behind each batch normalization, of which 1 is intended, in a training step.

    It is v/(v + epsilon) where v is the variance that reaches it, mean over the channels.
    """
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    if not layers:
        return []
    outputs = keras.Model(model.inputs[0], [layer.output for layer in layers])(
        images, training=True
    )
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return [
        float(np.mean(np.var(keras.ops.convert_to_numpy(output), axis=(0, 1, 2))))
        for output in outputs
    ]


def main() -> None:
    """Audit each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--full", action="store_true", help="show the kernels that are right too")
    parser.add_argument("--size", type=int, default=128, help="of the images, in pixels")
    arguments = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 200)
    images = np.random.default_rng(0).normal(size=(8, arguments.size, arguments.size, 3))

    for name in arguments.models:
        keras.utils.set_random_seed(0)
        shape = (arguments.size, arguments.size, 3)
        model = getattr(keras.applications, name)(weights=None, input_shape=shape)
        start = time.perf_counter()
        audit = keras_initkit.audit(model)
        seconds = time.perf_counter() - start
        shown = audit.rows if arguments.full else [row for row in audit if row.severity != "ok"]
        title = name if arguments.full else f"{name}, what was found"
        console.print(Audit(title, shown) if shown else f"{name}: no findings")
        console.print(f"{name}: {len(audit)} weights, audited in {seconds:.2f} s")
        swallowed = sum("swallowed" in row.kinds for row in audit)
        shares = share_left(model, images.astype("float32"))
        if shares:
            console.print(
                f"{name}: the audit says that {swallowed} of {len(shares)} batch normalizations "
                f"do not normalize. Measured: {sum(share < 0.9 for share in shares)} have "
                f"outputs of variance below 0.9, the smallest {min(shares):.3f}."
            )
        console.print()


if __name__ == "__main__":
    main()
