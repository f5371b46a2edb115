import importlib.util
import os
from pathlib import Path

# Before a framework is imported anywhere.
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
if BACKEND == "jax":  # two devices for the tests of data parallelism
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import keras
import numpy as np
import pytest

here = Path(__file__).parent
of_one_backend = {
    "test_jax_distribution.py": "jax",
    "test_torch_capture.py": "torch",
    "test_torch_init.py": "torch",
}
collect_ignore = [name for name, backend in of_one_backend.items() if backend != BACKEND]
if importlib.util.find_spec("apache_beam") is None:  # `make test-beam` has it
    collect_ignore.append("test_beam.py")
if BACKEND == "tensorflow":
    import tensorflow as tf

    # Two replicas for the tests of data parallelism; must be set before the first operation.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
else:
    # On the other backends what depends on them is tested; the rest is NumPy or TensorFlow.
    on_every_backend = {
        "test_activation_probe.py",
        "test_adapt_options.py",
        "test_backends.py",
        "test_edges.py",
        "test_elements.py",
        "test_kernel_initializers.py",
        "test_precision.py",
        "test_reinitialize.py",
        "test_several_optimizers.py",
        "test_signals.py",
        "test_training_forms.py",
        "test_unchanged_training.py",
    }
    if BACKEND == "torch":  # JAX takes minutes to compile the models
        on_every_backend |= {
            "test_audit.py",
            "test_layer_fans.py",
            "test_normalized_models.py",
            "test_other_initializers.py",
        }
    collect_ignore += [
        path.name
        for path in here.glob("test_*.py")
        if path.name not in on_every_backend | set(of_one_backend)
    ]


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Every test starts with the same seeds, names and dtype policy."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
