"""What a user does first, with an installed keras_initkit and nothing else."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import sys
import time
import urllib.request
from importlib.metadata import requires, version
from importlib.resources import files
from pathlib import Path

import keras
import numpy as np
from tensorboard import program
from tensorboard.default import get_dynamic_plugins

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.diagnosis.kinds import explain
from tensorboard_plugin_initkit.tab.web import OWN_FILES

assert "site-packages" in (keras_initkit.__file__ or ""), keras_initkit.__file__
assert version("keras-initkit") == keras_initkit.__version__
extras = [r for r in requires("keras-initkit") or [] if "extra ==" in r]
assert {"tensorflow", "jax", "torch"} <= {r.split(";")[0].split(">")[0].strip() for r in extras}
for package in ("keras_initkit", "tensorboard_plugin_initkit"):
    assert (files(package) / "py.typed").is_file(), package
for name in OWN_FILES:
    assert (files("tensorboard_plugin_initkit.tab") / "static" / name).is_file(), name
assert explain("vanishing"), "the page on kinds of findings"
(tab,) = (p for p in get_dynamic_plugins() if "initkit" in p.__module__)
assert tab.__name__ == "InitkitLoader", tab

x = np.random.default_rng(0).normal(5, 100, size=(256, 4)).astype("float32")
normalization = keras_initkit.layers.Normalization()
normalization.adapt(x)
he = keras_initkit.initializers.HeNormal()
model = keras.Sequential(
    [
        keras.Input((4,)),
        normalization,
        keras.layers.Dense(8, "relu", kernel_initializer=he),
        keras.layers.Dense(1),
    ]
)
model.compile("sgd", "mse")
monitor = GradientMonitor("log", every_n_steps=2)
model.fit(x, x.sum(axis=1) / 100, epochs=2, verbose=0, callbacks=[monitor])
history = keras_initkit.read_log("log")
assert history.steps.tolist() == list(range(0, 16, 2)), history.steps
assert np.array_equal(history["norm"], monitor.history["norm"])
model.save("model.keras")
loaded = keras.saving.load_model("model.keras")
assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))

# The tab, in a real TensorBoard.
board = program.TensorBoard()
board.configure(argv=["tensorboard", "--logdir", "log", "--port", "0", "--load_fast", "false"])
address = f"{board.launch()}data/plugin/initkit/runs"
deadline = time.monotonic() + 60
runs: list[dict[str, str]] = []
while not runs and time.monotonic() < deadline:
    with urllib.request.urlopen(address) as response:
        runs = json.load(response)["runs"]
    time.sleep(0.2)
assert [run["name"] for run in runs] == ["gradients"], runs

backend = keras.backend.backend()
assert backend == "tensorflow" or "tensorflow" not in sys.modules
assert not (Path(keras_initkit.__file__).parents[1] / "callbacks").exists()
print(
    f"keras-initkit {keras_initkit.__version__} works, with keras {keras.__version__} on {backend} "
    f"and Python {sys.version.split()[0]}."
)
