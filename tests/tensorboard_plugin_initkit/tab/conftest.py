"""What takes long is done once: a training, the start of two TensorBoards and of a browser."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor
from tests.tensorboard_plugin_initkit.support.browser import NoBrowserError, Tab, chromium
from tests.tensorboard_plugin_initkit.support.tensorboard import TensorBoard

PREFIX = "/some/prefix"


class Boards:
    """Two TensorBoards on one directory, one for each data server; started when first asked for.

    The one with the server "rust" finds a Keras that is broken; the one with the server "python",
    which has an address of its own below a prefix, finds no TensorFlow.
    """

    def __init__(self, scratch: Path) -> None:
        self.log_dir, self._scratch = scratch / "logs", scratch
        self.log_dir.mkdir()
        (scratch / "broken").mkdir()
        (scratch / "broken" / "keras.py").write_text("raise ImportError('broken')")
        self._started: dict[str, TensorBoard] = {}

    def start(self) -> None:
        """Start both, without waiting for them."""
        if self._started:
            return
        flags, scratch = ("--reload_interval", "1"), self._scratch
        self._started["rust"] = TensorBoard(
            self.log_dir, scratch / "rust.txt", *flags, path=scratch / "broken"
        )
        self._started["python"] = TensorBoard(
            self.log_dir,
            scratch / "python.txt",
            *(*flags, "--load_fast=false", "--path_prefix", PREFIX),
            without=("tensorflow",),
        )

    def __getitem__(self, server: str) -> TensorBoard:
        self.start()
        self._started[server].wait()
        return self._started[server]

    def stop(self) -> None:
        """End them, and check that they had nothing to complain of."""
        for board in self._started.values():
            board.terminate()
        for board in self._started.values():
            board.stop()
            text = board.output.read_text()
            assert "Traceback" not in text, text
            assert "broken" not in text, text


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    boards = Boards(tmp_path_factory.mktemp("boards"))
    try:
        yield boards
    finally:
        boards.stop()


@pytest.fixture(scope="session")
def trained(boards: Boards) -> Path:
    """The log of a training, which the TensorBoards watch: 20 records."""
    log_dir, dense = boards.log_dir / "trained", keras.layers.Dense
    model = keras.Sequential([keras.Input((8,)), dense(8, "relu"), dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(160, 8)).astype("float32")
    callbacks = [GradientMonitor(log_dir, 1), keras.callbacks.TensorBoard(log_dir)]
    model.fit(x, x[:, :1] ** 2, 16, epochs=2, verbose=0, callbacks=callbacks)
    return log_dir


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(chromium(tmp_path_factory.mktemp("browser")))
        except NoBrowserError as error:
            if os.environ.get("KERAS_INITKIT_REQUIRE_BROWSER") == "1":
                raise
            pytest.skip(str(error))
        yield started


@pytest.fixture(scope="session")
def page(driver: object) -> Tab:
    return Tab(driver)


@pytest.fixture
def tab(page: Tab) -> Iterator[Tab]:
    page.errors()
    page.resize()
    page.prefer("light")
    yield page
    assert page.errors() == []
