"""The package as it is installed and imported."""

import configparser
import importlib
import importlib.util
import subprocess
import sys

import keras
import pytest

import keras_initkit
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
    assert sorted(listed) == sorted(set(packages_on_disk()))


def test_callbacks_is_no_package_of_its_own():
    with pytest.raises(ImportError, match=r"must be imported as `keras_initkit\.callbacks`"):
        importlib.import_module("callbacks")


def test_the_public_names_are_these():
    assert keras_initkit.__all__ == [
        "Finding",
        "GradientHistory",
        "Moments",
        "audit",
        "callbacks",
        "fans",
        "initializers",
        "layer_aware",
        "layers",
        "plot",
        "read_log",
        "register_fans",
        "reinitialize",
        "theory",
        "with_normalization",
    ]
    assert keras_initkit.callbacks.__all__ == [
        "ActivationHistory",
        "ActivationProbe",
        "GradientMonitor",
        "GradientWarning",
    ]
    assert keras_initkit.initializers.__all__ == [
        "ChronoBias",
        "DeltaOrthogonal",
        "Dirac",
        "ForgetGateBias",
        "GlorotNormal",
        "GlorotUniform",
        "HeNormal",
        "HeUniform",
        "Identity",
        "KaimingNormal",
        "KaimingUniform",
        "LecunNormal",
        "LecunUniform",
        "Orthogonal",
        "PriorBias",
        "Siren",
        "Sparse",
        "Spectral",
        "VarianceScaling",
        "XavierNormal",
        "XavierUniform",
        "ZerO",
    ]
    assert keras_initkit.layers.__all__ == ["Normalization"]
    assert dir(keras_initkit) == sorted([*keras_initkit.__all__, "__version__"])
    rooms = ("callbacks", "initializers", "layers", "theory")
    for module in (keras_initkit, *(getattr(keras_initkit, room) for room in rooms)):
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


def test_importing_leaves_what_is_slow_for_later():
    script = """
import keras, sys
before = set(sys.modules)
import keras_initkit
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    imported = set(result.stdout.split())
    assert "keras_initkit" in imported, result.stderr
    assert not imported & {
        "bokeh",
        "dask",
        "google_crc32c",
        "pyarrow",
        "rich",
        "scipy",
        "tensorboard",
    }


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
