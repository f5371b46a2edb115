"""A real TensorBoard and a real headless Chromium: for tests, benchmark and picture of the tab."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tests import ROOT

SECONDS = 60  # for whatever is waited for

PICTURES = Path(os.environ.get("KERAS_INITKIT_SCREENSHOTS", ROOT / "build" / "screenshots"))
# Nothing but processes of ours is asked, whatever proxies the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BLOCK = "import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
_NO_TAB = "from tensorboard import default; default.get_dynamic_plugins = list\n"
_MAIN = "from tensorboard.main import run_main; run_main()"
T = TypeVar("T")


class NoBrowserError(Exception):
    """There is no Chromium, or no driver for it."""


def eventually(
    check: Callable[[], T], seconds: float = SECONDS, *, also: type[Exception] = AssertionError
) -> T:
    """Result of `check`, as soon as it no longer fails.

    Args:
        check: Fails with an AssertionError or OSError as long as it is too early.
        seconds: For how long it may fail.
        also: What else it may fail with.
    """
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
        path: Directory of modules that are imported instead of those that are installed.
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
        self.output = output
        code = _BLOCK.format(modules=list(without)) + ("" if with_tab else _NO_TAB) + _MAIN
        # Without the working directory, in which what setuptools left could hide the plugin.
        command = [sys.executable, "-P", "-c", code, "--logdir", str(log_dir)]
        command += ["--host", "127.0.0.1", "--port", "0", *flags]
        environment = os.environ | ({} if path is None else {"PYTHONPATH": str(path)})
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
            eventually(lambda: self.read("data/environment"))
        except (AssertionError, OSError) as error:
            text = self.output.read_text()
            raise RuntimeError(f"TensorBoard does not answer. It said:\n{text}") from error

    def get(self, route: str, **query: Any) -> Any:
        """Its answer, read as JSON."""
        return loads(self.read(f"{route}?{urllib.parse.urlencode(query, doseq=True)}"))

    def read(self, route: str) -> bytes:
        """Its answer."""
        with _opener.open(f"{self.address}{route}", timeout=SECONDS) as response:
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


@contextlib.contextmanager
def chromium(scratch: Path, *flags: str) -> Iterator[Any]:
    """A headless browser, driven by Selenium.

    Args:
        scratch: Directory for its profile.
        flags: More of its flags.

    Raises:
        NoBrowserError: If there is none.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        raise NoBrowserError(
            "A browser must be installed. Received: none of chromium, chromium-browser and "
            "google-chrome, or no chromedriver, on the PATH. Install chromium and chromium-driver."
        )
    try:
        from selenium import webdriver
    except ImportError as error:
        raise NoBrowserError("Selenium must be installed: `pip install selenium`.") from error
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, f"--user-data-dir={scratch / 'chromium'}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = browser
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


# What is asked of the page, in its own language.
_PAGE = """
const charts = () => [...document.querySelectorAll("[data-chart]")];
const named = (id) => charts().find((e) => e.dataset.chart === id);
const everything = function* (root) {
  for (const node of root.querySelectorAll("*")) {
    yield node;
    if (node.shadowRoot) yield* everything(node.shadowRoot);
  }
};
const documentOf = (id) =>
  Bokeh.documents.find((doc) => doc.roots().some((root) => {
    const view = Bokeh.index.find_one_by_id(root.id);
    return view && named(id)?.contains(view.el);
  }));
const figureOf = (id) => {
  const doc = documentOf(id);
  return doc.get_model_by_name("steps") ?? [...doc.all_models].find((m) => m.type === "Figure");
};
const plain = (value) => {
  if (Array.isArray(value)) return value.map(plain);
  if (!ArrayBuffer.isView(value)) return value;
  const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192)
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return {bytes: btoa(text), kind: value[Symbol.toStringTag], shape: value.shape ?? [value.length]};
};
"""
_LACKING = r"^\S+/(favicon\.ico|font-roboto/\S+) - Failed to load resource"
_KINDS = {
    "Int8": "i1",
    "Uint8": "u1",
    "Int16": "<i2",
    "Uint16": "<u2",
    "Int32": "<i4",
    "Uint32": "<u4",
    "Float32": "<f4",
    "Float64": "<f8",
}


class Box(NamedTuple):
    """Where the frame of a chart is in the window, in CSS pixels; and the ends of its axes."""

    left: float
    top: float
    width: float
    height: float
    start: float
    end: float
    bottom: float
    top_value: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point on two linear axes, from the left and top of the window."""
        right = (x - self.start) / (self.end - self.start)
        up = (y - self.bottom) / (self.top_value - self.bottom)
        return self.left + self.width * right, self.top + self.height * (1 - up)


class Tab:
    """The page of the tab in a browser, by itself or in TensorBoard.

    Args:
        driver: The browser.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.resize(1280, 800)
        self.prefer("light")

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Give the page exactly this size, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, theme: str) -> None:
        """Set the theme of the system."""
        wish = {"name": "prefers-color-scheme", "value": theme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})

    def open(self, board: TensorBoard, embedded: bool = False, **state: Any) -> None:
        """Open the page, and wait until its charts are drawn.

        Args:
            board: Where.
            embedded: In TensorBoard itself; else it stands alone.
            state: What its address says.
        """
        page = "" if embedded else "data/plugin_entry.html?name=initkit"
        self.go(f"{board.address}{page}#initkit{link(state)}", embedded)

    def go(self, address: str, embedded: bool = False) -> None:
        """Open the page by its address, and wait until its charts are drawn."""
        self.driver.switch_to.default_content()
        self.driver.get("about:blank")  # else an address that differs after the # loads nothing
        self.driver.get(address)
        if embedded:
            eventually(self.enter)
        eventually(self._check_ready)

    def enter(self) -> None:
        """Be in the page, within TensorBoard."""
        frames = self.driver.find_elements("css selector", "iframe[src*='name=initkit']")
        assert frames, "TensorBoard does not show the tab."
        self.driver.switch_to.frame(frames[0])

    def _check_ready(self) -> None:
        assert self.turn(), self.text()

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """Be in TensorBoard, around the page."""
        self.driver.switch_to.default_content()
        try:
            yield
        finally:
            self.enter()

    def js(self, code: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(_PAGE + code, *arguments)

    def turn(self) -> int:
        """How often the page has drawn all of its charts."""
        return int(self.js("return document.body?.dataset.ready ?? 0"))

    @contextlib.contextmanager
    def drawn(self) -> Iterator[None]:
        """Wait until what is done in the context has been drawn."""
        before = self.turn()
        yield

        def check() -> None:
            assert self.turn() > before, self.text()

        eventually(check)

    def show(self, **state: Any) -> None:
        """Have the address say something else, as by a link on the page around it."""
        with self.drawn():
            self.js("location.hash = arguments[0]", f"#initkit{link(state)}")

    def text(self) -> str:
        """All text that can be seen, without the charts."""
        return self.js("return document.body?.innerText ?? ''")

    def charts(self) -> list[str]:
        """Names of the charts."""
        return self.js("return charts().map((e) => e.dataset.chart)")

    def said(self, chart: str) -> str:
        """The text about a chart, or in its place."""
        return self.js("return named(arguments[0]).innerText", chart)

    def title(self, chart: str) -> str:
        """The title in a chart."""
        return self.js("return figureOf(arguments[0]).title.text", chart)

    def figure(self, chart: str) -> str:
        """What tells a figure from one that was made anew."""
        return self.js("return figureOf(arguments[0]).id", chart)

    def sources(self, chart: str) -> list[str]:
        """Names of the data that depend on the steps that are seen."""
        names = self.js(
            "return [...documentOf(arguments[0]).all_models].map((m) => m.name)"
            ".filter((name) => name?.startsWith('data-'))",
            chart,
        )
        return sorted(names)

    def data(self, chart: str, name: str = "data-cells") -> dict[str, Any]:
        """The columns of a source, arrays as arrays."""
        columns = self.js(
            "const {data} = documentOf(arguments[0]).get_model_by_name(arguments[1]);"
            "return Object.fromEntries(Object.entries(data).map(([k, v]) => [k, plain(v)]))",
            chart,
            name,
        )
        return {key: _array(value) for key, value in columns.items()}

    def values(self, chart: str) -> np.ndarray:
        """The values of a map, (rows, columns)."""
        return np.asarray(self.data(chart)["image"][0])

    def zoom(self, chart: str, first: float, last: float) -> None:
        """Zoom to some steps, and wait for their data."""
        with self.drawn():
            self.js(
                "figureOf(arguments[0]).x_range.setv({start: arguments[1], end: arguments[2]})",
                chart,
                first,
                last,
            )

    def box(self, chart: str) -> Box:
        """Where the frame of a chart is."""
        return Box(
            *self.js(
                """
                named(arguments[0]).scrollIntoView({block: "nearest"});
                const {x_range, y_range, id} = figureOf(arguments[0]);
                const view = Bokeh.index.find_one_by_id(id);
                const {left, top} = view.el.getBoundingClientRect();
                const {bbox} = view.frame;
                return [left + bbox.left, top + bbox.top, bbox.width, bbox.height,
                        x_range.start, x_range.end, y_range.start, y_range.end];
                """,
                chart,
            )
        )

    def pixels(self, chart: str) -> np.ndarray:
        """What the frame of a chart looks like: uint8 array (height, width, 3)."""
        from PIL import Image

        box = self.box(chart)
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        left, top = math.ceil(box.left), math.ceil(box.top)
        right, bottom = math.floor(box.left + box.width), math.floor(box.top + box.height)
        return np.asarray(picture)[top:bottom, left:right]

    def hover(self, chart: str, x: float, y: float) -> str:
        """What a chart says of a point on its axes."""
        return self.point(*self.box(chart).place(x, y))

    def point(self, left: float, top: float) -> str:
        """What the charts say where the mouse is moved to."""
        self.mouse(left + 3, top).mouse(left, top)

        def tooltip() -> str:
            texts = self.js(
                "return [...everything(document)]"
                ".filter((e) => e.classList.contains('bk-tooltip-content') && e.offsetHeight)"
                ".map((e) => e.innerText)"
            )
            assert texts, "Nothing is said of this place."
            return "\n".join(texts)

        return eventually(tooltip, 10)

    def mouse(self, left: float, top: float) -> Tab:
        """Move the mouse."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(round(left), round(top))
        actions.perform()
        return self

    def wheel(self, left: float, top: float, delta: int) -> None:
        """Turn the wheel of the mouse at some place."""
        event = {"type": "mouseWheel", "x": left, "y": top, "deltaX": 0, "deltaY": delta}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def text_of_legend(self, chart: str) -> list[str]:
        """The entries of the legends of a chart, sorted."""
        texts = self.js(
            "return [...documentOf(arguments[0]).all_models].filter((m) => m.type === 'LegendItem')"
            ".filter((item) => item.visible).map((item) => item.label.value)",
            chart,
        )
        return sorted(texts)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def find(self, selector: str) -> list[Any]:
        """The elements of a CSS selector that can be seen."""
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].filter((e) => e.offsetHeight)",
            selector,
        )

    def control(self, label: str) -> Any:
        """The control of a label that begins so."""
        return self._labelled("label", label, "startsWith")

    def run_box(self, title: str) -> Any:
        """The box by which a run, or a layer, is chosen."""
        return self._labelled(".list label", title, "endsWith")

    def _labelled(self, selector: str, text: str, how: str) -> Any:
        found = self.js(
            "const [selector, text, how] = arguments;"
            "return [...document.querySelectorAll(selector)]"
            ".filter((e) => e.offsetHeight && e.innerText.trim()[how](text))"
            ".sort((a, b) => a.innerText.length - b.innerText.length)"
            ".map((e) => e.querySelector('select, input'))",
            selector,
            text,
            how,
        )
        assert found, f"There is no control {text!r}."
        return found[0]

    def settle(self) -> None:
        """Wait until the page has drawn nothing for half a second."""
        last, since = self.turn(), time.monotonic()
        while time.monotonic() < since + 0.5:
            if self.turn() != last or self.js("return !!document.querySelector('[aria-busy]')"):
                last, since = self.turn(), time.monotonic()
            time.sleep(0.05)

    def picture(self, name: str) -> None:
        """Keep a picture of the window."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / f"{name}.png").write_bytes(self.driver.get_screenshot_as_png())

    def errors(self) -> list[str]:
        """What went wrong in the browser since the last call, but for what TensorBoard lacks."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and not re.search(_LACKING, entry["message"])
        ]


def link(state: Mapping[str, Any]) -> str:
    """What the address says of a state: lists as JSON."""
    parts = {
        key: json.dumps(value) if isinstance(value, list) else str(value)
        for key, value in state.items()
    }
    return "".join(
        f"&p.initkit.{key}={urllib.parse.quote(text, safe='')}" for key, text in parts.items()
    )


def _array(value: Any) -> Any:
    if isinstance(value, list):
        return [_array(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = _KINDS[value["kind"].removesuffix("Array")]
    return np.frombuffer(base64.b64decode(value["bytes"]), kind).reshape(value["shape"])
