"""TensorBoard's application with our tab, in the process of the test; without Keras."""

import argparse
import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from werkzeug.serving import make_server
from werkzeug.test import Client

from tensorboard_plugin_initkit.tab.loader import InitkitLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a library that TensorBoard brings along
    from tensorboard.backend.application import TensorBoardWSGIApp

BASE = "/data/plugin/initkit"


def python_provider(log_dir: Path, samples: int = 0) -> Any:
    """The data provider of `tensorboard --load_fast=false`, on what is there now."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"initkit": samples})
    multiplexer.AddRunsFromDirectory(str(log_dir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(log_dir))


def application(log_dir: Path, samples: int | None = None) -> Client:
    """A client of the application; `samples` is the number of chunks that TensorBoard keeps."""
    flags = argparse.Namespace(
        logdir=str(log_dir), path_prefix="", window_title="", samples_per_plugin={}
    )
    if samples is not None:
        flags.samples_per_plugin["initkit"] = samples
    loader = InitkitLoader()
    loader.fix_flags(flags)
    provider = python_provider(log_dir, flags.samples_per_plugin["initkit"])
    return Client(TensorBoardWSGIApp(flags, [loader], provider))


@contextlib.contextmanager
def served(log_dir: Path) -> Iterator[str]:
    """Serve the application to a browser, and return its address."""
    server = make_server("127.0.0.1", 0, application(log_dir).application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
