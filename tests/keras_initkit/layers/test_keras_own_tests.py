"""Keras's own tests of its `Normalization`, run against ours.

They are read from the installed Keras, and each is reported as a test of this file.
"""

import importlib.resources
import types
from typing import Any

import keras
import pytest

from keras_initkit.layers import Normalization

pytest.importorskip("tensorflow", reason="Keras's tests import it")
file = importlib.resources.files("keras.src.layers.preprocessing") / "normalization_test.py"
if not file.is_file():
    pytest.skip(f"Keras {keras.__version__} comes without its tests", allow_module_level=True)


def of_keras() -> Any:
    """Keras's test class, which finds our layer where it looks for Keras's."""
    # One test names the layer in full; in the others it is in the namespace `layers`.
    source = file.read_text().replace("keras.layers.Normalization(", "layers.Normalization(")
    module = types.ModuleType("normalization_test")
    exec(compile(source, str(file), "exec"), module.__dict__)
    module.__dict__["layers"] = types.SimpleNamespace(Normalization=Normalization)
    return module.__dict__["NormalizationTest"]


@pytest.mark.filterwarnings("ignore")  # as Keras runs them
class TestNormalization(of_keras()):  # type: ignore[misc]
    pass


def test_all_tests_of_keras_are_run():
    assert len([name for name in dir(TestNormalization) if name.startswith("test_")]) > 20
