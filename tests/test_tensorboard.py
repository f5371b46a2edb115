"""A real TensorBoard shows what `GradientMonitor` logged, beside Keras's own callback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_initkit import History, read_log
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.schema import STATISTICS

pytestmark = pytest.mark.slow
SECONDS = 60  # to start, and to show what was written
SCALARS = "data/plugin/scalars"


def eventually(check: Callable[[], Any]) -> Any:
    """Result of `check`, as soon as it no longer fails."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return check()
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class TensorBoard:
    """A TensorBoard process on a directory."""

    def __init__(self, log_dir: Path, output: Path, *flags: str) -> None:
        self._output = output
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
        command += ["--host", "127.0.0.1", "--port", "0", "--reload_interval", "1", *flags]
        with output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        # Nothing but this process is asked, whatever proxies the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def address(self) -> str:
        assert self.process.poll() is None, self._output.read_text()
        found = re.search(r"at (http://127\.0\.0\.1:\d+/)", self._output.read_text())
        assert found, self._output.read_text()
        return found[1]

    def get(self, route: str, **query: str) -> Any:
        url = f"{self.address()}{route}?{urllib.parse.urlencode(query)}"
        with self._opener.open(url, timeout=SECONDS) as response:
            return json.load(response)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Training:
    """A model that is trained and logged to one directory."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        dense = keras.layers.Dense
        hidden = [dense(8, "relu", name=f"dense_{i}") for i in range(3)]
        self.model = keras.Sequential([keras.Input((8,)), *hidden, dense(1, name="head")])
        self.model.compile(keras.optimizers.SGD(0.01), "mse")
        self.callbacks = [GradientMonitor(log_dir, 1), keras.callbacks.TensorBoard(log_dir)]

    @property
    def monitor(self) -> GradientMonitor:
        return self.callbacks[0]

    def fit(self) -> None:
        x = np.random.default_rng(0).normal(size=(80, 8)).astype("float32")
        y = x[:, :1] ** 2
        self.model.fit(x, y, 16, epochs=2, verbose=0, callbacks=self.callbacks)

    def resume(self) -> None:
        """As a new process would go on: with a monitor, and so an event file, of its own."""
        self.callbacks[0] = GradientMonitor(self.log_dir, 1)
        self.fit()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    training = Training(tmp_path_factory.mktemp("log"))
    training.fit()
    return training


@pytest.fixture(
    scope="module", params=["--load_fast=auto", "--load_fast=false"], ids=["rust", "python"]
)
def tensorboard(
    request: pytest.FixtureRequest,
    training: Training,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TensorBoard]:
    output = tmp_path_factory.mktemp("tensorboard") / "output.txt"
    tensorboard = TensorBoard(training.log_dir, output, request.param)
    try:
        eventually(tensorboard.address)
        yield tensorboard
    finally:
        tensorboard.stop()
    assert "Traceback" not in output.read_text()


def tags_of(history: History) -> set[str]:
    return {f"gradients/{layer}/{name}" for layer in history.layers for name in STATISTICS}


def check_shown(tensorboard: TensorBoard, history: History) -> None:
    """TensorBoard shows a history, all of it."""
    for statistic in STATISTICS:
        for layer, expected in zip(history.layers, history[statistic].T, strict=True):
            tag = f"gradients/{layer}/{statistic}"
            points = tensorboard.get(f"{SCALARS}/scalars", run="gradients", tag=tag)
            assert [step for _, step, _ in points] == history.steps.tolist()
            values = np.array([value for _, _, value in points], np.float32)
            np.testing.assert_array_equal(values, expected.astype(np.float32), tag)


def test_the_data_server_is_the_one_that_was_asked_for(
    tensorboard: TensorBoard, request: pytest.FixtureRequest
) -> None:
    provider = tensorboard.get("data/environment")["debug"]["data_provider"]
    assert provider.startswith("Grpc") == ("rust" in request.node.name)


def test_layers_and_statistics_are_tags_of_the_run_gradients(
    tensorboard: TensorBoard, training: Training
) -> None:
    def check() -> None:
        shown = tensorboard.get(f"{SCALARS}/tags")
        assert set(shown["gradients"]) == tags_of(training.monitor.history)

    eventually(check)


def test_the_time_series_dashboard_lists_them_too(
    tensorboard: TensorBoard, training: Training
) -> None:
    def check() -> None:
        shown = tensorboard.get("data/plugin/timeseries/tags")["scalars"]["runTagInfo"]
        assert set(shown["gradients"]) == tags_of(training.monitor.history)

    eventually(check)


def test_the_run_of_keras_own_callback_is_still_there(tensorboard: TensorBoard) -> None:
    def check() -> None:
        shown = tensorboard.get(f"{SCALARS}/tags")
        assert set(shown) == {"gradients", "train"}
        assert "epoch_loss" in shown["train"]
        points = tensorboard.get(f"{SCALARS}/scalars", run="train", tag="epoch_loss")
        assert {step for _, step, _ in points} == {0, 1}

    eventually(check)


def test_the_values_are_those_of_the_history(tensorboard: TensorBoard, training: Training) -> None:
    eventually(lambda: check_shown(tensorboard, read_log(training.log_dir)))


def test_what_a_second_fit_logs_appears(tensorboard: TensorBoard, training: Training) -> None:
    recorded = len(training.monitor.history)
    training.fit()
    assert len(training.monitor.history) == recorded + 10
    eventually(lambda: check_shown(tensorboard, read_log(training.log_dir)))


def test_a_resumed_training_appears_as_one(tensorboard: TensorBoard, training: Training) -> None:
    recorded = len(read_log(training.log_dir))
    training.resume()
    history = read_log(training.log_dir)
    assert len(history) == recorded + 10
    assert len(training.monitor.history) == 10
    eventually(lambda: check_shown(tensorboard, history))
