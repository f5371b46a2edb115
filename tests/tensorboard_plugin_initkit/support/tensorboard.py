"""A real TensorBoard process: for tests, benchmark and picture of the tab."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

SECONDS = 60  # for whatever is waited for

# Nothing but processes of ours is asked, whatever proxies the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_BLOCK = "import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
_NO_TAB = "from tensorboard import default; default.get_dynamic_plugins = list\n"
_MAIN = "from tensorboard.main import run_main; run_main()"
T = TypeVar("T")


def eventually(
    check: Callable[[], T], seconds: float = SECONDS, *, also: type[Exception] = AssertionError
) -> T:
    """Return the result of `check` when it no longer fails with an AssertionError or OSError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, OSError, also):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def loads(text: str | bytes) -> Any:
    """JSON, as strict as a browser: which knows neither NaN nor Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"JSON must have no {constant}.")

    return json.loads(text, parse_constant=refuse)


class TensorBoard:
    """A TensorBoard process on a free port.

    Args:
        log_dir: What it shows.
        output: File for what it says.
        flags: More of its flags; `--load_fast=false` chooses the data server in Python.
        without: Names of modules that cannot be imported in it.
        with_tab: Whether it has plugins besides its own.
        path: Directory of modules that are imported before those that are installed.
    """

    def __init__(
        self,
        log_dir: Path,
        output: Path,
        *flags: str,
        without: Sequence[str] = (),
        with_tab: bool = True,
        path: Path | None = None,
    ) -> None:
        self.log_dir, self.output = log_dir, output
        code = _BLOCK.format(modules=list(without)) + ("" if with_tab else _NO_TAB) + _MAIN
        # Without the working directory, in which what setuptools left could hide the plugin.
        command = [sys.executable, "-P", "-c", code, "--logdir", str(log_dir)]
        command += ["--host", "127.0.0.1", "--port", "0", *flags]
        places = [str(path or ""), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        with output.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    @property
    def address(self) -> str:
        """Where it is, with its path prefix and a slash; known once it listens.

        Raises:
            RuntimeError: If it has ended: there is nothing to wait for.
        """
        ended = self.process.poll()
        text = self.output.read_text()
        if ended is not None:
            raise RuntimeError(f"TensorBoard has ended with {ended}. It said:\n{text}")
        found = re.search(r"at (http://127\.0\.0\.1:\d+/\S*)", text)
        assert found, text
        return found[1].rstrip("/") + "/"

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: If it does not, with what it said.
        """
        try:
            eventually(lambda: self.read("data/environment"), 3 * SECONDS)
        except (AssertionError, OSError) as error:
            text = self.output.read_text()
            raise RuntimeError(f"TensorBoard does not answer. It said:\n{text}") from error

    def get(self, route: str, **query: Any) -> Any:
        """Its answer, read as JSON."""
        return loads(self.read(f"{route}?{urllib.parse.urlencode(query, doseq=True)}"))

    def read(self, route: str, **form: str) -> bytes:
        """Its answer; a form is sent by POST."""
        data = urllib.parse.urlencode(form).encode() or None
        with _opener.open(f"{self.address}{route}", data, SECONDS) as response:
            content = response.read()
            compressed = response.headers.get("Content-Encoding") == "gzip"
            return gzip.decompress(content) if compressed else content

    def runs(self) -> list[str]:
        """Names of the runs that the tab knows."""
        try:
            return [run["name"] for run in self.get("data/plugin/initkit/runs")["runs"]]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"The plugin must be installed: {error.read()!r}") from error

    def terminate(self) -> None:
        """Ask the process to end, without waiting for it."""
        self.process.terminate()

    def stop(self) -> None:
        """End the process."""
        self.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def tensorboard(log_dir: Path, output: Path, *flags: str, **options: Any) -> Iterator[TensorBoard]:
    """A `TensorBoard` that answers; ended when the context is left, however that happens."""
    process = TensorBoard(log_dir, output, *flags, **options)
    try:
        process.wait()
        yield process
    finally:
        process.stop()
