"""The package as it is installed and imported."""

import configparser
import importlib
import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_initkit
from keras_initkit.initializers import HeNormal, Orthogonal
from tests import ROOT


def packages_on_disk():
    for directory in ("keras_initkit", "callbacks", "tensorboard_plugin_initkit"):
        for init in (ROOT / directory).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            yield f"keras_initkit.{name}" if name.startswith("callbacks") else name


def test_every_package_is_listed_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    # The page on kinds of findings comes along: the tab shows it.
    page = {"tensorboard_plugin_initkit.explanations"}
    assert sorted(listed) == sorted({*packages_on_disk(), *page})


def test_callbacks_is_no_package_of_its_own():
    with pytest.raises(ImportError, match=r"must be imported as `keras_initkit\.callbacks`"):
        importlib.import_module("callbacks")


PUBLIC = {
    "keras_initkit": """
        Diagnosis Finding Fix GradientHistory Moments audit autofix callbacks check diagnose fans
        initialize initializers layer_aware layers plot propagate read_log register_fans
        reinitialize theory with_normalization
    """,
    "keras_initkit.callbacks": """
        ActivationHistory ActivationProbe FindingError GradientMonitor GradientWarning Record
        trackers
    """,
    "keras_initkit.initializers": """
        ChronoBias DeltaOrthogonal Dirac ForgetGateBias GlorotNormal GlorotUniform HeNormal
        HeUniform Identity KaimingNormal KaimingUniform LecunNormal LecunUniform Orthogonal
        PriorBias Siren Sparse Spectral VarianceScaling XavierNormal XavierUniform ZerO
    """,
    "keras_initkit.layers": "Normalization",
}


def test_the_public_names_are_these():
    assert {name: sys.modules[name].__all__ for name in PUBLIC} == {
        name: names.split() for name, names in PUBLIC.items()
    }
    assert dir(keras_initkit) == sorted([*keras_initkit.__all__, "__version__"])
    for module in (keras_initkit.theory, *(sys.modules[name] for name in PUBLIC)):
        for name in module.__all__:
            assert hasattr(module, name)


def test_importing_registers_everything_that_keras_can_save():
    layers = ["Normalization", "NormalizedModel"]
    # `GlorotNormal` is a second name of `XavierNormal`, which a file has.
    initializers = [
        getattr(keras_initkit.initializers, name).__name__
        for name in keras_initkit.initializers.__all__
    ]
    for name in [*initializers, *layers]:
        assert keras.saving.get_registered_object(f"keras_initkit>{name}") is not None, name


def own_activation(x):
    return keras.ops.sin(3.0 * x)


@pytest.mark.backends("torch")
def test_a_fresh_process_imports_little_computes_nothing_and_loads_a_model(tmp_path):
    gained = HeNormal(3, gain=own_activation), Orthogonal(own_activation)
    dense = [keras.layers.Dense(6, kernel_initializer=initializer) for initializer in gained]
    model = keras.Sequential([keras.Input((6,)), *dense])
    model.save(tmp_path / "model.keras")
    script = """
import json, keras, sys
before = set(sys.modules)
calls, convert = [], keras.ops.convert_to_tensor
keras.ops.convert_to_tensor = lambda *args, **kwargs: calls.append(args)
import keras_initkit
keras.ops.convert_to_tensor = convert
assert not calls
imported = {name.partition(".")[0] for name in set(sys.modules) - before}
model = keras.saving.load_model(sys.argv[1])
configs = [layer.kernel_initializer.get_config() for layer in model.layers]
outputs = keras.ops.convert_to_numpy(model(keras.ops.ones((1, 6))))
print(json.dumps([list(imported), configs, outputs.tolist()]))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "model.keras")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    imported, configs, outputs = json.loads(result.stdout.splitlines()[-1])
    assert "keras_initkit" in imported
    slow = {"bokeh", "dask", "google_crc32c", "pyarrow", "rich", "scipy", "tensorboard"}
    assert not slow & set(imported)
    assert configs == [initializer.get_config() for initializer in gained]
    here = keras.ops.convert_to_numpy(model(keras.ops.ones((1, 6))))
    np.testing.assert_allclose(outputs, here, rtol=1e-4)


def test_what_tensorboard_needs_imports_no_keras():
    script = """
import importlib, pkgutil, sys
import tensorboard_plugin_initkit as package
names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
for name in names:
    importlib.import_module(name)
assert not {"keras", "tensorflow", "keras_initkit"} & set(sys.modules)
print(len(names))
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert int(result.stdout) > 30


def test_the_version_is_one():
    from importlib.metadata import version

    assert version("keras-initkit") == keras_initkit.__version__
    assert f"## [{keras_initkit.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.backends("jax", "torch")
def test_the_other_backends_are_tested_without_tensorflow():
    assert importlib.util.find_spec("tensorflow") is None
