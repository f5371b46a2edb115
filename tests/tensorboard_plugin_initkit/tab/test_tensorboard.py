"""A real TensorBoard shows what was logged, in the tab and in its own dashboards."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from bokeh.document import Document

from keras_initkit import GradientHistory, read_log
from tensorboard_plugin_initkit.diagnosis.finding import to_json
from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tests.tensorboard_plugin_initkit.record.made import random_chunk
from tests.tensorboard_plugin_initkit.support.tensorboard import TensorBoard, eventually, loads
from tests.tensorboard_plugin_initkit.tab.conftest import Boards

pytestmark = pytest.mark.slow
TAB = "data/plugin/initkit"
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
        self._writer = LogWriter(self._path, histograms=2)

    def write(self, steps: int) -> None:
        rng = np.random.default_rng(self.steps)
        indices = range(self.steps, self.steps + steps)
        chunk = random_chunk(self.layout, indices, self.steps, nonfinite=0)
        samples = [rng.normal(size=(steps, v.size)).astype("f4") for v in self.layout.variables]
        self._writer.write(chunk, samples)
        self._writer.write_findings(to_json([]), self.steps)
        self._writer.flush()
        self.steps += steps


class Logs(NamedTuple):
    """The logs in the directory that TensorBoard watches."""

    written: Log
    uploaded: Log
    trained: Path

    def path(self, name: str) -> Path:
        log = getattr(self, name)
        return log if isinstance(log, Path) else log.log_dir


@pytest.fixture(scope="module", params=["rust", "python"])
def server(request: pytest.FixtureRequest) -> str:
    """The data server; each has logs of its own, so that no test waits for another's."""
    return str(request.param)


@pytest.fixture(scope="module")
def logs(boards: Boards, server: str, trained: Path) -> Logs:
    log_dir = boards.log_dir / f"logged-{server}"
    logs = Logs(Log(log_dir / "written"), Log(log_dir / "uploaded", url=True), trained)
    for log in (logs.written, logs.uploaded):
        log.write(10)
    return logs


@pytest.fixture(scope="module")
def board(boards: Boards, logs: Logs, server: str) -> TensorBoard:
    return boards[server]


def run_of(board: TensorBoard, log_dir: Path) -> str:
    """TensorBoard's name of a log."""
    return f"{log_dir.relative_to(board.log_dir)}/gradients"


def scalars_of(history: GradientHistory) -> dict[str, dict[int, np.float32]]:
    """What the scalars dashboard is to show: of each tag the values by step."""
    columns = {
        f"gradient_norm/{layer}": column
        for layer, column in zip(history.layers, history["norm"].T, strict=True)
    }
    several = len(history.optimizers) > 1
    for statistic in ("global_norm", "learning_rate"):
        for name, column in zip(history.optimizers, history[statistic].T, strict=True):
            group = f"gradients/{name}" if several else "gradients"
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
    """TensorBoard shows the scalars of a log, all of them."""
    run, expected = run_of(board, log_dir), scalars_of(read_log(log_dir))
    for tags in (
        board.get("data/plugin/timeseries/tags")["scalars"]["runTagInfo"],
        board.get(f"{SCALARS}/tags"),
    ):
        others = {tag.rpartition("/")[2] for tag in set(tags[run]) - set(expected)}
        assert others - {"first_to_last"} == {"largest_share", "nonfinite", "findings"}
    requests = json.dumps([{"plugin": "scalars", "tag": tag} for tag in expected])
    for answer in loads(board.read("data/plugin/timeseries/timeSeries", requests=requests)):
        points = answer["runToSeries"][run]
        shown = {point["step"]: np.float32(point["value"]) for point in points}
        assert shown == expected[answer["tag"]], answer["tag"]
    # By the older dashboard it is a request for each of them.
    tag = next(tag for tag in expected if tag.endswith("/global_norm"))
    points = board.get(f"{SCALARS}/scalars", run=run, tag=tag)
    assert {step: np.float32(value) for _, step, value in points} == expected[tag]


def check_drawn(board: TensorBoard, log_dir: Path) -> None:
    """The tab has a log, all of it, and draws and lists its numbers."""
    history, run = read_log(log_dir), run_of(board, log_dir)
    answer = board.get(f"{TAB}/run", run=run)
    assert (answer["records"], answer["last"]) == (len(history), history.steps[-1])
    assert [layer["path"] for layer in answer["layers"]] == history.layers
    item = board.get(f"{TAB}/chart", view="map", run=run, statistic="norm")["item"]
    (cells,) = Document.from_json(item["doc"]).select({"name": "data-cells"})
    norm = history["norm"]
    np.testing.assert_array_equal(cells.data["image"][0], norm.T.astype(np.float32))
    query = urllib.parse.urlencode({"run": run, "statistic": "norm"})
    rows = board.read(f"{TAB}/csv?{query}").decode().splitlines()[1:]
    table = np.array([row.split(",") for row in rows], np.float64)
    np.testing.assert_array_equal(table, np.column_stack([history.steps, norm]))


def test_the_data_server_is_the_one_that_was_asked_for(board: TensorBoard, server: str) -> None:
    provider = board.get("data/environment")["debug"]["data_provider"]
    assert provider.startswith("Grpc") == (server == "rust")


@pytest.mark.parametrize("name", ["written", "uploaded", "trained"])
def test_tags_are_of_layers_and_optimizers_and_have_the_values_of_the_history(
    board: TensorBoard, logs: Logs, name: str
) -> None:
    eventually(lambda: check_shown(board, logs.path(name)), also=KeyError)
    eventually(lambda: check_drawn(board, logs.path(name)))


def test_the_run_of_keras_own_callback_is_still_there(board: TensorBoard, logs: Logs) -> None:
    def check() -> None:
        shown = board.get(f"{SCALARS}/tags")
        assert {name for name in shown if name.startswith("trained/")} == {
            "trained/gradients",
            "trained/train",
        }
        assert "epoch_loss" in shown["trained/train"]
        points = board.get(f"{SCALARS}/scalars", run="trained/train", tag="epoch_loss")
        assert {step for _, step, _ in points} == {0, 1}

    eventually(check)


def test_the_histogram_dashboard_shows_every_layer(board: TensorBoard, logs: Logs) -> None:
    run = run_of(board, logs.written.log_dir)

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


def test_what_is_written_later_and_by_a_resumed_training_appears(
    board: TensorBoard, logs: Logs
) -> None:
    for log in (logs.written, logs.uploaded):
        log.write(10)
    for log in (logs.written, logs.uploaded):
        eventually(lambda log=log: check_shown(board, log.log_dir), also=KeyError)  # type: ignore[misc]
        eventually(lambda log=log: check_drawn(board, log.log_dir))  # type: ignore[misc]
    log = logs.written
    log.restart()
    log.write(10)
    log.steps -= 5  # from an earlier step, as after a crash
    log.restart()
    log.write(10)
    assert len(read_log(log.log_dir)) == log.steps == 35
    eventually(lambda: check_shown(board, log.log_dir), also=KeyError)
    eventually(lambda: check_drawn(board, log.log_dir))
