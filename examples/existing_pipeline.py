"""One line in an existing pipeline: see the gradients of its training.

The pipeline has what pipelines have: tf.data, validation, a checkpoint, early stopping and
Keras's own TensorBoard callback. The monitor is the one line marked below.

    python examples/existing_pipeline.py
    tensorboard --logdir runs/existing_pipeline
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_initkit.callbacks import GradientMonitor


def datasets() -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Batches of handwritten digits for training and validation."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
    train_x, valid_x, train_y, valid_y = train_test_split(x, y, test_size=0.2, random_state=0)
    train = tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(2000, seed=0)
    valid = tf.data.Dataset.from_tensor_slices((valid_x, valid_y))
    return train.batch(64).prefetch(1), valid.batch(64)


def build_model() -> keras.Model:
    """A small convolutional network."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="dense"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="digits",
    )


def main() -> None:
    """Train as before, with one line more."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--log-dir", type=Path, default=Path("runs/existing_pipeline"))
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    log_dir = arguments.log_dir

    keras.utils.set_random_seed(0)
    train, valid = datasets()
    model = build_model()
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        train,
        validation_data=valid,
        epochs=arguments.epochs,
        verbose=2,
        callbacks=[
            keras.callbacks.ModelCheckpoint(log_dir / "best.keras", save_best_only=True),
            keras.callbacks.EarlyStopping(patience=3),
            keras.callbacks.TensorBoard(log_dir),
            monitor := GradientMonitor(log_dir),  # the one line
        ],
    )

    print("Gradient norms at the last recorded step:")
    for layer, norm in zip(monitor.history.layers, monitor.history["norm"][-1], strict=True):
        print(f"  {layer:15} {norm:.3g}")
    print(f"See them over time, in the tab Gradient Flow: tensorboard --logdir {log_dir}")


if __name__ == "__main__":
    main()
