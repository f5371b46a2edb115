"""The tab "Gradient Flow" on a real TensorBoard in a real Chromium, beside its bars.

    python -m benchmarks.tab                                    # all; takes some minutes
    python -m benchmarks.tab --parts draw --servers rust --sizes small

- draw: from the click on the tab in TensorBoard, which has read the log, until all is drawn.
  "First" is the first look of all: a server that has drawn nothing, a browser with an empty cache;
  each is one of a TensorBoard of its own. "Again" is TensorBoard opened anew. "Zoom" is from the
  last turn of the wheel until the data of the visible steps are drawn; .2 s of it are a pause.
- reload: from when steps are logged until they are drawn, for someone who presses TensorBoard's
  reload button at the right moment; the part of it until TensorBoard has the steps is its own: it
  looks every 5 seconds by default.
- memory: of the Python process of TensorBoard, after all views of all statistics, above one that
  has read the same log and whose tab was never opened ("without the tab": above one that has no
  such tab). The data server "rust" is a process of its own, whose memory is not in it.
- import: of what TensorBoard imports at its start.

Two data servers: "rust" is TensorBoard's default, "python" is `--load_fast=false`.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.tensorboard_plugin_initkit.support.browser import Tab, chromium
from tests.tensorboard_plugin_initkit.support.made_logs import (
    ALL,
    SIX,
    chunk_of,
    depth_profile,
    layer_names,
    layout_of,
    write_log,
)
from tests.tensorboard_plugin_initkit.support.tensorboard import (
    TensorBoard,
    eventually,
    tensorboard,
)

FLAGS = {"rust": (), "python": ("--load_fast=false",)}
RUN = "training/gradients"
CHART = f"map:{RUN}"
PLUGIN = "data/plugin/initkit"
# When the page has drawn all charts, on the clock of the machine.
OBSERVER = """
new MutationObserver(() => {
  const ready = document.body?.dataset.ready;
  if (ready) (window.drawnAt ??= {})[ready] ??= performance.timeOrigin + performance.now();
}).observe(document, {subtree: true, attributes: true, attributeFilter: ["data-ready"]});
"""
CLICKED = """
addEventListener("pointerup", () => {
  window.clickedAt = performance.timeOrigin + performance.now();
}, {capture: true, once: true});
"""
LOADER = """
import time
import tensorboard.plugins.base_plugin
start = time.perf_counter()
import tensorboard_plugin_initkit.tab.loader
print((time.perf_counter() - start) * 1000)
"""


class Size(NamedTuple):
    """A log, and how long it may take until it is drawn.

    Attributes:
        layers: Number of layers.
        steps: Number of records.
        names: Statistics that are recorded.
        biases: Whether layers have two variables.
        bar: Seconds.
    """

    layers: int
    steps: int
    names: Sequence[str]
    biases: bool
    bar: float

    def write(self, log_dir: Path) -> None:
        """Write the log."""
        rms = depth_profile(self.layers, self.steps, 0.9 ** (30 / self.layers))
        run = log_dir / RUN.partition("/")[0]
        write_log(run, rms, statistics=self.names, biases=self.biases)


SIZES = {
    "small": Size(200, 1_000, ALL, True, 1.5),
    "big": Size(1_000, 10_000, SIX, False, 4.0),
}


class Line(NamedTuple):
    """A line of the table: seconds, megabytes or milliseconds, and what they may be."""

    what: str
    values: Sequence[float]
    unit: str
    bar: float | None = None

    def __str__(self) -> str:
        median = statistics.median(self.values)
        spread = f"{min(self.values):.2f} to {max(self.values):.2f}" if len(self.values) > 1 else ""
        verdict = "" if self.bar is None else "yes" if median <= self.bar else "**no**"
        bar = "" if self.bar is None else f"{self.bar:g} {self.unit}"
        return f"| {self.what} | {median:.2f} {self.unit} | {spread} | {bar} | {verdict} |"


def read(board: TensorBoard) -> None:
    """Wait until TensorBoard has read the log; nothing of it is asked for."""

    def states() -> list[str]:
        runs = board.get(f"{PLUGIN}/runs")["runs"]
        assert runs, "TensorBoard has not found the log."
        return [run["state"] for run in runs]

    last, since = eventually(states, 300), time.monotonic()
    while time.monotonic() < since + 3:
        time.sleep(0.2)
        if (now := states()) != last:
            last, since = now, time.monotonic()


def draw(server: str, name: str, log_dir: Path, arguments: argparse.Namespace) -> Iterator[Line]:
    """Time of the first look, of later ones, and of zooming."""
    size = SIZES[name]
    first: list[float] = []
    again: list[float] = []
    zooms: list[float] = []
    for start in range(arguments.starts):
        with scratch_board(log_dir, FLAGS[server]) as (scratch, board), chromium(scratch) as driver:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OBSERVER})
            read(board)
            tab = Tab(driver)
            tab.resize(1280, 800)
            first.append(look(tab, board))
            if start:
                continue
            again += [look(tab, board) for _ in range(arguments.repeats)]
            rng = np.random.default_rng(0)
            for _ in range(arguments.repeats):
                begin = int(rng.integers(0, size.steps // 2))
                zooms.append(zoom(tab, begin, begin + size.steps // 4))
    what = f"{size.layers:,} layers x {size.steps:,} steps, {server}"
    yield Line(f"{what}: first", first, "s", size.bar)
    yield Line(f"{what}: again", again, "s", size.bar)
    yield Line(f"{what}: zoom", zooms, "s")


@contextlib.contextmanager
def scratch_board(
    log_dir: Path, flags: Sequence[str], with_tab: bool = True
) -> Iterator[tuple[Path, TensorBoard]]:
    """A directory for what is written, and a TensorBoard; perhaps one that has no such tab."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        tensorboard(log_dir, Path(scratch) / "output.txt", *flags, with_tab=with_tab) as board,
    ):
        yield Path(scratch), board


def look(tab: Tab, board: TensorBoard) -> float:
    """Seconds from the click on the tab until it is drawn, in a TensorBoard opened anew."""
    driver = tab.driver
    driver.switch_to.default_content()
    driver.get("about:blank")
    driver.get(f"{board.address}#timeseries")

    def button() -> Any:
        found = [b for b in tab.find("[role=tab]") if b.text.upper() == "GRADIENT FLOW"]
        assert found, "TensorBoard does not show the tab."
        return found[0]

    found = eventually(button)
    time.sleep(2)  # TensorBoard's own page is done
    driver.execute_script(CLICKED)
    found.click()
    clicked = driver.execute_script("return window.clickedAt")
    eventually(tab.enter)
    drawn = eventually(lambda: drawn_at(tab, 1))
    assert tab.charts() == [CHART], tab.text()
    return (drawn - clicked) / 1e3


def drawn_at(tab: Tab, turn: int) -> float:
    """When the page had drawn all charts for the so-manyth time."""
    moment = tab.js("return window.drawnAt?.[arguments[0]] ?? 0", turn)
    assert moment, tab.text()
    return float(moment)


def zoom(tab: Tab, first: int, last: int) -> float:
    """Seconds from a zoom until its data are drawn."""
    turn = tab.turn()
    start = tab.js(
        "figureOf(arguments[0]).x_range.setv({start: arguments[1], end: arguments[2]});"
        "return performance.timeOrigin + performance.now()",
        CHART,
        first,
        last,
    )
    return (eventually(lambda: drawn_at(tab, turn + 1)) - start) / 1e3


def reload(server: str, arguments: argparse.Namespace) -> Iterator[Line]:
    """Time from logging to what is drawn."""
    layers = 200
    layout, rng = layout_of(layer_names(layers)), np.random.default_rng(0)
    own: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        writer = write_log(Path(folder) / "training", depth_profile(layers, 64, 0.98))
        with (
            scratch_board(Path(folder), FLAGS[server]) as (scratch, board),
            chromium(scratch) as driver,
        ):
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OBSERVER})
            read(board)
            tab = Tab(driver)
            tab.open(board.address, embedded=True)
            for i in range(1, arguments.reloads + 1):
                time.sleep(rng.uniform(0, 5))
                before, turn = state(board), tab.turn()
                steps = np.arange(64 * i, 64 * i + 64)
                writer.write(chunk_of(layout, steps, depth_profile(layers, 64, 0.98), ALL))
                logged = time.time()
                while state(board) == before:
                    time.sleep(0.02)
                seen = time.time()
                with tab.outside():
                    tab.find("button.reload-button")[0].click()
                eventually(lambda turn=turn: drawn_at(tab, turn + 1))  # type: ignore[misc]
                eventually(lambda steps=steps: shows(tab, int(steps[-1])))  # type: ignore[misc]
                own.append(seen - logged)
                ours.append(time.time() - seen)
    both = [sum(pair) for pair in zip(own, ours, strict=True)]
    yield Line(f"logged to drawn, {server}", both, "s", 5)
    yield Line(f"... until TensorBoard has it, {server}", own, "s")
    yield Line(f"... from the reload button to drawn, {server}", ours, "s")


def state(board: TensorBoard) -> str:
    """Measure how long new data take to be drawn."""
    return str(board.get(f"{PLUGIN}/runs")["runs"][0]["state"])


def shows(tab: Tab, step: int) -> None:
    """Check that a step is on the map."""
    assert tab.js("return figureOf(arguments[0]).x_range.bounds[1]", CHART) >= step


def memory(server: str, log_dir: Path) -> Iterator[Line]:
    """Measure the memory of the Python process after all views."""
    with scratch_board(log_dir, FLAGS[server], with_tab=False) as (_, board):
        wait_until_steady(board)
        without = rss(board)
    with scratch_board(log_dir, FLAGS[server]) as (_, board):
        read(board)
        wait_until_steady(board)
        base = rss(board)
        look_at_everything(board)
        used = rss(board)
    above = [now - then for now, then in zip(used, base, strict=True)]
    what = f"server memory after all views, {server}"
    yield Line(f"{what}: above a tab never opened", above[:1], "MB", 300)
    yield Line(f"{what}: its peak", above[1:], "MB", 300)
    yield Line(f"{what}: peak, above TensorBoard without the tab", [used[1] - without[1]], "MB")


def rss(board: TensorBoard) -> tuple[float, float]:
    """Resident memory of the process now and at its peak, in megabytes."""
    status = Path(f"/proc/{board.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    now, peak = (int(fields[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM"))
    return now, peak


def wait_until_steady(board: TensorBoard) -> None:
    """Wait until the process no longer works: it has read what there is to read."""

    def cpu() -> float:
        fields = Path(f"/proc/{board.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, deadline = cpu(), time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(6)  # TensorBoard looks for more every five seconds
        now = cpu()
        if now - before < 1:
            return
        before = now


def look_at_everything(board: TensorBoard) -> None:
    """Ask for each view of each statistic, whole and zoomed, as the page does."""
    info = board.get(f"{PLUGIN}/run", run=RUN)
    first, last = info["first"], info["last"]
    middle = (first + last) // 2
    for statistic, view in itertools.product(info["statistics"], ("map", "depth", "lines")):
        query = {"view": view, "run": RUN, "statistic": statistic["name"]}
        hows = ["max", "min", "mean"] if view == "map" else ["max"]
        for how in hows:
            board.get(f"{PLUGIN}/chart", **query, how=how, columns=1200)
        if view != "depth":
            board.get(f"{PLUGIN}/chart", **query, columns=1200, first=first, last=middle)
    table = {"run": RUN, "statistic": "norm", "last": first + 1000}
    board.read(f"{PLUGIN}/csv?{urllib.parse.urlencode(table)}")


def importing(repeats: int) -> Iterator[Line]:
    """Time to import the loader, in a process that has imported what TensorBoard has."""
    command = [sys.executable, "-P", "-c", LOADER]
    times = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    ]
    yield Line("import of the loader", times, "ms", 50)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parts = ("draw", "reload", "memory", "import")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--servers", nargs="+", choices=list(FLAGS), default=list(FLAGS))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5, help="looks, zooms and imports")
    parser.add_argument("--starts", type=int, default=3, help="first looks")
    parser.add_argument("--reloads", type=int, default=10, help="of new data")
    arguments = parser.parse_args()
    print("| | median | from, to | bar | holds |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(Path(folder), arguments):
            print(line, flush=True)


def lines(folder: Path, arguments: argparse.Namespace) -> Iterator[Line]:
    """All that is measured."""
    if "import" in arguments.parts:
        yield from importing(arguments.repeats)
    if "draw" in arguments.parts or "memory" in arguments.parts:
        for name in {*arguments.sizes, *(["big"] if "memory" in arguments.parts else [])}:
            SIZES[name].write(folder / name)
    if "draw" in arguments.parts:
        for name, server in itertools.product(arguments.sizes, arguments.servers):
            yield from draw(server, name, folder / name, arguments)
    if "reload" in arguments.parts:
        for server in arguments.servers:
            yield from reload(server, arguments)
    if "memory" in arguments.parts:
        for server in arguments.servers:
            yield from memory(server, folder / "big")


if __name__ == "__main__":
    main()
