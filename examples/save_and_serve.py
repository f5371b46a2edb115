"""Normalization inside the model: one file to save, and raw inputs to the server.

Trains on a table of raw measurements, saves one `.keras` file, and starts `serve.py` on it in a
fresh process, without the training data or their statistics.

    python examples/save_and_serve.py
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer

import keras_initkit


def train(x: np.ndarray, y: np.ndarray, epochs: int) -> keras.Model:
    """Fit a classifier of raw measurements; the columns differ in scale by 200,000."""
    normalization = keras_initkit.layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            normalization,
            keras.layers.Dense(
                16, "relu", kernel_initializer=keras_initkit.initializers.HeNormal()
            ),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, verbose=2)
    return model


def ask(address: str, rows: np.ndarray) -> np.ndarray:
    """Post raw rows to the server; return its predictions."""
    request = urllib.request.Request(address, json.dumps(rows.tolist()).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        return np.array(json.load(response))


def main() -> None:
    """Train, save, serve, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("runs/tumours.keras"))
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype("float32")
    model = train(x, y, arguments.epochs)
    arguments.model.parent.mkdir(parents=True, exist_ok=True)
    model.save(arguments.model)

    server = Path(__file__).with_name("serve.py")
    with subprocess.Popen(
        [sys.executable, server, arguments.model], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            served = ask(address, x[:5])
        finally:
            process.terminate()
    here = model.predict(x[:5], verbose=0)
    print(f"Served from {address}: {served.ravel().round(4)}")
    print(f"Predicted here:                       {here.ravel().round(4)}")
    if not np.allclose(served, here, atol=1e-6):
        raise SystemExit("The served predictions must be those of the trained model.")
    print("The same, from raw inputs.")


if __name__ == "__main__":
    main()
