import atexit
import functools
import gc
import os
import tempfile

# Before a framework is imported anywhere.
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# One thread for each process of the tests: more of them wait for each other, twice as long.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
# What tests run once need not be fast: XLA compiles it without optimisations, in less time.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_multi_thread_eigen=false"
)
if BACKEND == "jax":  # two devices for the tests of data parallelism
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    # XLA's older emitters take half the time; where bits are compared, see `usual_emitters`.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
    # What a test has compiled, later ones read, in the other process too, which inherits the
    # directory: the same small models come again.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        compiled = tempfile.TemporaryDirectory(prefix="initkit-jax-")
        atexit.register(compiled.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import numpy as np
import pytest

# Some files import a backend, and have its name in theirs.
collect_ignore_glob = [
    f"**/test_{backend}_*.py" for backend in ("tensorflow", "jax", "torch") if backend != BACKEND
]


def pytest_configure(config):
    """Prepare the backend, but in a process that hands tests out and runs none itself."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import keras  # before warnings are errors

    if BACKEND == "tensorflow":
        import tensorflow as tf

        # Two replicas for the tests of data parallelism; must be set before the first operation.
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        # A test that does not ask for XLA runs a graph: XLA would compile for longer than it
        # trains.
        keras.Model._resolve_auto_jit_compile = lambda model: False


def pytest_collection_modifyitems(config, items):
    """Keep the tests that are marked for this backend; without a mark a test is TensorFlow's."""
    here: list[pytest.Item] = []
    elsewhere: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("backends")
        backends = mark.args if mark else ("tensorflow",)
        (here if BACKEND in backends else elsewhere).append(item)
    # Files with slow tests come first, so that all processes end at about the same time.
    slow = {item.path for item in here if item.get_closest_marker("slow")}
    items[:] = sorted(here, key=lambda item: item.path not in slow)
    config.hook.pytest_deselected(items=elsewhere)


def pytest_collection_finish():
    """Look for garbage in what tests make, not in all that was imported before them."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Every test starts with the same seeds, names and dtype policy."""
    import keras

    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def _no_warning_is_only_logged(caplog):
    """Callbacks log what they would warn of, where warnings are errors, as they are in tests."""
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.name == "keras_initkit"] == []


@pytest.fixture
def usual_emitters(monkeypatch):
    """Where bits are compared, JAX's steps are compiled by the emitters that users have."""
    if BACKEND == "jax":
        from keras.src.backend.jax import trainer

        options = {"xla_cpu_use_fusion_emitters": True}
        usual = functools.partial(trainer.jit, compiler_options=options)
        monkeypatch.setattr(trainer, "jit", usual)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
