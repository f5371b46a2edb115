"""The monitor on several replicas, against the gradients of each replica's part of the batch."""

import functools
import os
import socket
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_initkit
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.record.statistics import STATISTICS
from tests import ROOT
from tests.callbacks import training
from tests.callbacks.capture.test_backends import small
from tests.callbacks.training import BATCH, LOSS, STEPS, label, layers, two_devices, varied

REPLICAS = 2


def without_input_shape():
    return keras.Sequential([layers.Dense(16, "tanh"), layers.Dense(4)])


def data():
    x, _ = training.data()
    return x, np.argmax(x[:, :4], axis=1).astype("int32")  # can be learnt: the noise is not all


def compiled(make=small, optimizer=None, **compile_args):
    return training.compiled(make, optimizer or keras.optimizers.SGD(0.1), **compile_args)


def fit(model, *callbacks, epochs=1):
    model.fit(*data(), BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def mirrored(*callbacks, make=small, optimizer=lambda: None, epochs=1, **compile_args):
    with two_devices().scope():
        model = compiled(make, optimizer(), **compile_args)
    fit(model, *callbacks, epochs=epochs)
    return model


def recorded(**how):
    monitor = GradientMonitor(every_n_steps=1)
    mirrored(monitor, **how)
    return monitor.history


@functools.cache
def by_hand(make=small, clip=lambda gradients: gradients, scale=1.0):
    """Norms per step and variable, of what is applied; and of each replica's, clipped and raw.

    What is applied is the sum over replicas of the clipped gradients of the loss that each adds
    to the mean over the global batch.
    """
    model, (x, y) = compiled(make), data()
    model(x[:1])
    weights, optimizer = [v.value for v in model.trainable_variables], keras.optimizers.SGD(0.1)
    applied, clipped, raw = [], [], []

    @tf.function  # float16 is rounded otherwise in eager execution
    def gradients_of(x, y):
        with tf.GradientTape() as tape:
            loss = scale * LOSS(y, model(x, training=True)) / REPLICAS
        return [tf.convert_to_tensor(g) / scale for g in tape.gradient(loss, weights)]

    for batch in np.split(np.arange(len(x)), STEPS):
        parts = np.split(batch, REPLICAS)
        of_replicas = [gradients_of(*map(tf.constant, (x[part], y[part]))) for part in parts]
        raw.append([norms(gradients) for gradients in of_replicas])
        of_replicas = [clip(gradients) for gradients in of_replicas]
        clipped.append([norms(gradients) for gradients in of_replicas])
        total = [sum(gradients) for gradients in zip(*of_replicas, strict=True)]
        applied.append(norms(total))
        optimizer.apply(total, model.trainable_variables)
    return tuple(map(np.array, (applied, clipped, raw)))


def norms(gradients):
    return [np.linalg.norm(gradient.numpy().astype("float64")) for gradient in gradients]


def root_mean_square(of_replicas):
    return np.sqrt(np.mean(np.square(of_replicas), axis=1))


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-5)


def assert_same_record(history, applied, raw, every=1):
    np.testing.assert_array_equal(history.steps, np.arange(0, STEPS, every))
    assert_close(history.per_variable("norm"), applied[::every])
    assert_close(history.per_variable("local_norm"), root_mean_square(REPLICAS * raw)[::every])


def norm_clipped():
    return keras.optimizers.SGD(0.1, clipnorm=0.1)


def globally_clipped():
    return keras.optimizers.SGD(0.1, global_clipnorm=0.2)


def by_norm(gradients):
    return [tf.clip_by_norm(gradient, 0.1) for gradient in gradients]


def by_global_norm(gradients):
    return tf.clip_by_global_norm(gradients, 0.2)[0]


def loss_scaled():
    keras.config.set_dtype_policy("mixed_float16")
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), 2.0**10)


@pytest.mark.parametrize(
    ("how", "hand"),
    [
        ({"run_eagerly": True, "optimizer": norm_clipped}, {"clip": by_norm}),
        (
            {"make": without_input_shape, "optimizer": globally_clipped},
            {"make": without_input_shape, "clip": by_global_norm},
        ),
        ({"make": varied}, {"make": varied}),
        ({"optimizer": loss_scaled}, {"scale": 2.0**10}),
    ],
    ids=label,
)
def test_replicas_clip_their_own_and_record_the_global_gradient_and_the_mean_of_theirs(how, hand):
    history = recorded(**how)
    applied, clipped, raw = by_hand(**hand)
    assert_same_record(history, applied, raw)
    assert_close(history.per_variable("clip_ratio"), root_mean_square(clipped / raw))
    assert (raw > 1.01 * clipped).any() == ("clip" in hand)
    scale = hand.get("scale", 1)
    np.testing.assert_array_equal(history["loss_scale"], np.full((STEPS, 1), scale))


@pytest.mark.newest
def test_two_replicas_record_what_one_device_does_with_the_global_batch_and_its_noise():
    alone, history = GradientMonitor(every_n_steps=1), recorded()
    fit(compiled(), alone)
    for statistic in set(STATISTICS) - {"local_norm"}:
        np.testing.assert_allclose(
            history[statistic], alone.history[statistic], rtol=1e-5, err_msg=statistic
        )
    applied, _, raw = by_hand()
    assert_same_record(history, applied, raw)
    # McCandlish et al. 2018, appendix A.1, for batches of 1 and 1/2.
    whole = np.sum(applied**2, axis=1)
    half = np.mean(np.sum((REPLICAS * raw) ** 2, axis=2), axis=1)
    squared_gradient = (whole - half / 2) / (1 - 1 / 2)
    noise = (half - whole) / (1 / (1 / 2) - 1)
    expected = np.cumsum(noise) / np.cumsum(squared_gradient)  # a ratio of means
    assert (expected > 0).all()
    np.testing.assert_allclose(history["noise_scale"][:, 0], expected, rtol=1e-4)


@pytest.mark.newest
def test_training_on_replicas_is_bit_identical_with_and_without_the_monitor():
    def trained(*callbacks):
        model = mirrored(
            *callbacks,
            optimizer=lambda: keras.optimizers.Adam(1e-2, global_clipnorm=0.5),
            epochs=2,
        )
        return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)]

    for a, b in zip(trained(), trained(GradientMonitor(every_n_steps=1)), strict=True):
        np.testing.assert_array_equal(a, b)


WORKERS = """
    import json, os, sys, traceback
    import numpy as np
    import tensorflow as tf
    from keras.src.backend.tensorflow import trainer
    from keras_initkit.callbacks import GradientMonitor
    from tests.callbacks.capture.test_tensorflow_distribution import compiled, fit, small

    # With several workers, `fit` of Keras 3.15 fails before the first step and after it
    # (keras#20585). This and `_maybe_symbolic_build` go around it; gradients are untouched.
    trainer._collective_all_reduce_multi_worker = lambda strategy: False

    def trained(strategy, *callbacks):
        with strategy.scope():
            model = compiled(small)
            model._maybe_symbolic_build = lambda **arguments: None
        fit(model, *callbacks)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    def work(index, addresses, folder):
        task = {"type": "worker", "index": index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        monitor = GradientMonitor(f"{folder}/log", every_n_steps=2)
        plain, monitored = trained(strategy), trained(strategy, monitor)
        norm = monitor.history.per_variable("norm")
        np.savez(f"{folder}/results", plain=plain, monitored=monitored, norm=norm)

    workers = []
    for index, folder in enumerate(sys.argv[2:]):
        workers.append(os.fork())  # nothing has run yet: TensorFlow has no threads
        if not workers[-1]:
            try:
                work(index, sys.argv[1].split(), folder)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    sys.exit(any([os.waitpid(worker, 0)[1] for worker in workers]))
"""


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.mark.slow
def test_workers_record_the_global_gradient_and_the_chief_alone_logs(tmp_path):
    for worker in (chief := tmp_path / "chief", other := tmp_path / "other"):
        worker.mkdir()
    addresses = " ".join(f"localhost:{port}" for port in free_ports(2))
    command = [sys.executable, "-c", textwrap.dedent(WORKERS), addresses, str(chief), str(other)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr

    applied, _, raw = by_hand(small)
    history = keras_initkit.read_log(chief / "log")
    assert_same_record(history, applied, raw, every=2)

    assert [path.name for path in other.iterdir()] == ["results.npz"]
    for worker in (chief, other):
        results = np.load(worker / "results.npz")
        np.testing.assert_array_equal(results["norm"], history.per_variable("norm"))
        np.testing.assert_array_equal(results["monitored"], results["plain"])
