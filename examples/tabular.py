"""A table of mixed columns: from a raw CSV file to one `.keras` file that takes its rows.

Trains on 442 patients of a diabetes study (age, sex, body mass index, blood pressure and six
blood values, in their units) to predict the progression of the disease. The network is wrapped by
`keras_initkit.with_normalization`: the saved model takes raw rows and predicts raw values. A fresh
process, without the training data or their statistics, then predicts from a CSV file.

    python examples/tabular.py
    python examples/tabular.py --predict runs/diabetes.keras runs/diabetes.csv
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_initkit  # also registers what the saved model is made of
from keras_initkit.initializers import HeNormal

TARGET = "progression"
NUMERIC = ("age", "bmi", "pressure", "cholesterol", "ldl", "hdl", "ratio", "ltg", "glucose")
CATEGORICAL = ("sex",)  # coded as 1 and 2
TRAINING_ROWS = 342


def write_csv(path: Path) -> None:
    """Write the study as a CSV file of raw values."""
    from sklearn.datasets import load_diabetes  # only to have a file to begin with

    x, y = load_diabetes(return_X_y=True, scaled=False)
    x, y = x[(order := np.random.default_rng(0).permutation(len(x)))], y[order]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([NUMERIC[0], *CATEGORICAL, *NUMERIC[1:], TARGET])
        for row, value in zip(x.tolist(), y.tolist(), strict=True):
            writer.writerow([f"{number:g}" for number in (*row, value)])


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a CSV file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([row[name] for row in rows]).astype("float32")
        if name not in CATEGORICAL
        else np.array([row[name] for row in rows]).astype("int32")
        for name in rows[0]
    }


def select_inputs(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs of the model."""
    return {name: columns[name] for name in (*NUMERIC, *CATEGORICAL)}


def build_model() -> keras.Model:
    """Build a network of named inputs, all of them raw."""
    inputs = {name: keras.Input((1,), name=name) for name in NUMERIC}
    inputs |= {name: keras.Input((), dtype="int32", name=name) for name in CATEGORICAL}
    features = [inputs[name] for name in NUMERIC]
    features += [keras.layers.Embedding(3, 2)(inputs[name]) for name in CATEGORICAL]
    hidden = keras.layers.Concatenate()(features)
    hidden = keras.layers.Dense(16, "relu", kernel_initializer=HeNormal())(hidden)
    outputs = keras.layers.Dense(1, name=TARGET)(hidden)
    return keras.Model(inputs, outputs, name="diabetes")


def train(
    model: keras.Model, train: dict[str, np.ndarray], test: dict[str, np.ndarray], epochs: int
) -> float:
    """Train a model on raw values; return its mean absolute error on others."""
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    model.fit(select_inputs(train), train[TARGET], epochs=epochs, verbose=0)
    scores = model.evaluate(select_inputs(test), test[TARGET], verbose=0, return_dict=True)
    return float(scores["mae"])


def predict(model_path: Path, csv_path: Path) -> None:
    """Print a saved model's prediction for each row of a CSV file."""
    model = keras.saving.load_model(model_path)
    for value in model.predict(select_inputs(read_csv(csv_path)), verbose=0).ravel():
        print(f"{value:.3f}")


def main() -> None:
    """Train, save, predict in a fresh process, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("runs/diabetes.keras"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--predict", type=Path, nargs=2, metavar=("MODEL", "CSV"))
    arguments = parser.parse_args()
    if arguments.predict:
        predict(*arguments.predict)
        return

    csv_path = arguments.model.with_suffix(".csv")
    write_csv(csv_path)
    columns = read_csv(csv_path)
    training = {name: column[:TRAINING_ROWS] for name, column in columns.items()}
    test = {name: column[TRAINING_ROWS:] for name, column in columns.items()}

    guess = np.abs(test[TARGET] - training[TARGET].mean()).mean()
    print(f"Mean absolute error of guessing the mean:    {guess:6.2f}")
    keras.utils.set_random_seed(0)
    error = train(build_model(), training, test, arguments.epochs)
    print(f"Mean absolute error without normalization:   {error:6.2f}")
    keras.utils.set_random_seed(0)
    model = keras_initkit.with_normalization(build_model(), training, targets=TARGET)
    error = train(model, training, test, arguments.epochs)
    print(f"Mean absolute error with normalization:      {error:6.2f}")

    model.save(arguments.model)
    command = [sys.executable, __file__, "--predict", arguments.model, csv_path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    served = np.array(output.split(), float)
    here = model.predict(select_inputs(columns), verbose=0).ravel()
    print(f"Predicted by a fresh process: {served[:5]}")
    print(f"Predicted here:               {here[:5].astype(float).round(3)}")
    if not np.allclose(served, here, atol=2e-3):
        raise SystemExit("The fresh process must predict what the trained model does.")
    print("The same, from raw rows.")


if __name__ == "__main__":
    main()
