"""A real TensorBoard shows what was logged, and what `GradientMonitor` logs beside Keras's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_initkit import GradientHistory, read_log
from keras_initkit.callbacks import GradientMonitor
from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.record.schema import (
    RECORDED,
    STATISTICS,
    TOTAL_STATISTICS,
    TOTALS,
    Chunk,
    Layout,
    Variable,
)
from tests.tensorboard_plugin_initkit.support.tensorboard import (
    TensorBoard,
    eventually,
    tensorboard,
)

pytestmark = pytest.mark.slow
SCALARS, HISTOGRAMS = "data/plugin/scalars", "data/plugin/histograms"
LAYERS = ["embedding", "block/dense", "block/dense#2", 'any "name" <b>, 层', "optimizer"]


class Log:
    """A log whose chunks are written one by one: all statistics, of two optimizers."""

    def __init__(self, log_dir: Path, url: bool = False) -> None:
        self.log_dir = log_dir
        self._path = f"file://{log_dir}" if url else log_dir
        self.layout = Layout(
            tuple(
                Variable(
                    f"{layer}/{name}", layer, shape, "head" if layer == "optimizer" else "body"
                )
                for layer in LAYERS
                for name, shape in (("kernel", (8, 4)), ("bias", (4,)))
            ),
            ("body", "head"),
        )
        self.steps = 0
        self.restart()

    def restart(self) -> None:
        """As a new process would go on: with an event file of its own."""
        self._writer = LogWriter(self._path, scalars=1, histograms=2)

    def write(self, steps: int) -> None:
        rng = np.random.default_rng(self.steps)
        width = len(self.layout.variables)
        chunk = Chunk(
            self.layout,
            np.arange(self.steps, self.steps + steps),
            {name: rng.lognormal(size=(steps, width)).astype("f4") for name in RECORDED},
            {name: rng.lognormal(size=(steps, 2)).astype("f4") for name in TOTALS},
        )
        samples = [rng.normal(size=(steps, v.size)).astype("f4") for v in self.layout.variables]
        self._writer.write(chunk, samples)
        self._writer.write_findings("[]", self.steps)
        self._writer.flush()
        self.steps += steps


class Logs:
    """The logs in the directory that TensorBoard watches, one a directory."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.written = Log(log_dir / "written")
        self.written.write(10)
        self.uploaded = Log(log_dir / "uploaded", url=True)
        self.uploaded.write(10)
        self.monitor = GradientMonitor(log_dir / "trained", 1)

    def train(self) -> None:
        dense = keras.layers.Dense
        model = keras.Sequential([keras.Input((8,)), dense(8, "relu"), dense(1, name="head")])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        x = np.random.default_rng(0).normal(size=(80, 8)).astype("float32")
        callbacks = [self.monitor, keras.callbacks.TensorBoard(self.log_dir / "trained")]
        model.fit(x, x[:, :1] ** 2, 16, epochs=2, verbose=0, callbacks=callbacks)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    logs = Logs(tmp_path_factory.mktemp("log"))
    logs.train()
    return logs


@pytest.fixture(
    scope="module", params=["--load_fast=auto", "--load_fast=false"], ids=["rust", "python"]
)
def board(
    request: pytest.FixtureRequest,
    logs: Logs,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TensorBoard]:
    output = tmp_path_factory.mktemp("tensorboard") / "output.txt"
    flags = ("--reload_interval", "1", request.param)
    with tensorboard(logs.log_dir, output, *flags) as board:
        yield board
    assert "Traceback" not in output.read_text()


def scalars_of(history: GradientHistory) -> dict[str, dict[int, np.float32]]:
    """What the scalars dashboard is to show: of each tag the values by step."""
    columns = {}
    for statistic in STATISTICS:
        for layer, column in zip(history.layers, history[statistic].T, strict=True):
            columns[f"gradients/{layer}/{statistic}"] = column
    several = len(history.optimizers) > 1
    for statistic in TOTAL_STATISTICS:
        for name, column in zip(history.optimizers, history[statistic].T, strict=True):
            group = f"optimizer/{name}" if several else "optimizer"
            columns[f"{group}/{statistic}"] = column
    return {
        tag: {
            int(step): np.float32(value)
            for step, value in zip(history.steps, column, strict=True)
            if not np.isnan(value)
        }
        for tag, column in columns.items()
        if not np.isnan(column).all()
    }


def check_shown(board: TensorBoard, log_dir: Path) -> None:
    """TensorBoard shows a log, all of it."""
    run, expected = f"{log_dir.name}/gradients", scalars_of(read_log(log_dir))
    for tag in board.get(f"{SCALARS}/tags")[run]:
        points = board.get(f"{SCALARS}/scalars", run=run, tag=tag)
        shown = {step: np.float32(value) for _, step, value in points}
        assert shown == expected[tag], tag


def test_the_data_server_is_the_one_that_was_asked_for(
    board: TensorBoard, request: pytest.FixtureRequest
) -> None:
    provider = board.get("data/environment")["debug"]["data_provider"]
    assert provider.startswith("Grpc") == ("rust" in request.node.name)


@pytest.mark.parametrize("name", ["written", "uploaded", "trained"])
@pytest.mark.parametrize("dashboard", ["scalars", "timeseries"])
def test_layers_and_optimizers_are_tags_of_the_run_gradients(
    board: TensorBoard, logs: Logs, name: str, dashboard: str
) -> None:
    def check() -> None:
        tags = board.get(f"data/plugin/{dashboard}/tags")
        shown = tags["scalars"]["runTagInfo"] if dashboard == "timeseries" else tags
        expected = set(scalars_of(read_log(logs.log_dir / name)))
        if name == "trained":  # nothing was clipped, scaled or skipped, on one device
            without = ("loss_scale", "skipped", "raw_norm", "clip_ratio", "global_raw_norm")
            expected = {tag for tag in expected if tag.rpartition("/")[2] not in without}
        assert set(shown[f"{name}/gradients"]) == expected

    eventually(check)


@pytest.mark.parametrize("name", ["written", "uploaded", "trained"])
def test_the_values_are_those_of_the_history(board: TensorBoard, logs: Logs, name: str) -> None:
    eventually(lambda: check_shown(board, logs.log_dir / name))


def test_the_run_of_keras_own_callback_is_still_there(board: TensorBoard) -> None:
    def check() -> None:
        shown = board.get(f"{SCALARS}/tags")
        gradients = {f"{name}/gradients" for name in ("written", "uploaded", "trained")}
        assert set(shown) == gradients | {"trained/train"}
        assert "epoch_loss" in shown["trained/train"]
        points = board.get(f"{SCALARS}/scalars", run="trained/train", tag="epoch_loss")
        assert {step for _, step, _ in points} == {0, 1}

    eventually(check)


def test_the_histogram_dashboard_shows_every_layer(board: TensorBoard, logs: Logs) -> None:
    run = "written/gradients"

    def check() -> None:
        shown = board.get(f"{HISTOGRAMS}/tags")[run]
        assert set(shown) == {f"log10_gradient/{layer}" for layer in LAYERS}
        for tag, about in shown.items():
            assert "Exact zeros are left out" in about["description"]
            steps = board.get(f"{HISTOGRAMS}/histograms", run=run, tag=tag)
            assert [step for _, step, _ in steps] == list(range(0, logs.written.steps, 2))
            for _, _, buckets in steps:
                left, right, count = np.transpose(buckets)
                np.testing.assert_array_equal(right - left, 0.5)
                np.testing.assert_array_equal(2 * left, np.round(2 * left))
                assert count.sum() == 8 * 4 + 4

    eventually(check)


@pytest.mark.parametrize("name", ["written", "uploaded"])
def test_what_is_written_later_appears(board: TensorBoard, logs: Logs, name: str) -> None:
    log: Log = getattr(logs, name)
    log.write(10)
    eventually(lambda: check_shown(board, log.log_dir))


def test_a_resumed_training_appears_as_one(board: TensorBoard, logs: Logs) -> None:
    logs.written.restart()
    logs.written.write(10)
    assert len(read_log(logs.written.log_dir)) == logs.written.steps
    eventually(lambda: check_shown(board, logs.written.log_dir))
