"""A real headless Chromium that shows the tab: for tests, benchmark and picture."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests import ROOT
from tests.tensorboard_plugin_initkit.support.tensorboard import SECONDS, eventually

PICTURES = Path(os.environ.get("KERAS_INITKIT_SCREENSHOTS", ROOT / "build" / "screenshots"))
_FLAGS = ["--headless=new", "--no-sandbox", "--no-first-run", "--no-proxy-server"]
_FLAGS += ["--hide-scrollbars", "--force-color-profile=srgb", "--disable-gpu", "--disable-quic"]
_FLAGS += ["--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"]
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class NoBrowserError(Exception):
    """There is no Chromium, or no driver for it."""


@contextlib.contextmanager
def chromium(scratch: Path) -> Iterator[Any]:
    """Start a headless browser; `NoBrowserError` if there is none. `scratch` has its profile."""
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
    for flag in (*_FLAGS, f"--user-data-dir={scratch / 'chromium'}"):
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
const modelsOf = (id) => [...documentOf(id).all_models];
const figureOf = (id) =>
  documentOf(id).get_model_by_name("steps") ?? modelsOf(id).find((m) => m.type === "Figure");
const plain = (value) =>
  ArrayBuffer.isView(value) ? {numbers: [...value], shape: value.shape ?? [value.length]}
    : Array.isArray(value) ? value.map(plain) : value;
"""
_LACKING = r"^\S+/(favicon\.ico|font-roboto/\S+) - Failed to load resource"


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
    """The page of the tab in a browser, by itself or in TensorBoard."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._size: tuple[float, ...] = ()
        self._here = ""  # address of the TensorBoard whose page is open by itself
        self._turns = 0
        self.resize()
        self.prefer("light")

    def resize(self, width: int = 1280, height: int = 800, scale: float = 1) -> None:
        """Give the page exactly this size, in CSS pixels."""
        if self._size != (width, height, scale):
            self._size, self._here = (width, height, scale), ""
            size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, theme: str) -> None:
        """Set the theme of the system."""
        wish = {"name": "prefers-color-scheme", "value": theme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})

    def open(self, address: str, embedded: bool = False, **state: Any) -> None:
        """Open the page of a TensorBoard, in it or alone, and wait until its charts are drawn."""
        page = "" if embedded else "data/plugin_entry.html?name=initkit"
        self.go(f"{address}{page}#initkit{link(state)}", embedded)
        self._here = "" if embedded else address

    def show(self, address: str, **state: Any) -> None:
        """Show a state, on the page that is open if it is this TensorBoard's: as by a link."""
        if self._here != address:
            self.open(address, **state)
            return
        self._turns += 1  # or else the same state again would be no change
        with self.drawn():
            self.js(
                "document.activeElement.blur(); location.hash = arguments[0]",
                f"#initkit&turn={self._turns}{link(state)}",
            )

    def leave(self) -> None:
        """Leave the page: it asks its TensorBoard for nothing more."""
        self._here = ""
        self.driver.switch_to.default_content()
        self.driver.get("about:blank")

    def go(self, address: str, embedded: bool = False) -> None:
        """Open the page by its address, and wait until its charts are drawn."""
        self.leave()  # else an address that differs after the # loads nothing
        self.driver.get(address)
        if embedded:
            eventually(self.enter)

        self._wait(self.turn)

    def _wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, SECONDS, 0.05).until(lambda driver: condition())

    def enter(self) -> None:
        """Be in the page, within TensorBoard."""
        frames = self.driver.find_elements("css selector", "iframe[src*='name=initkit']")
        assert frames, "TensorBoard does not show the tab."
        self.driver.switch_to.frame(frames[0])

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

    def busy(self) -> bool:
        """Check for a chart that is being drawn."""
        return self.js("return document.querySelector('[aria-busy]') !== null")

    @contextlib.contextmanager
    def drawn(self) -> Iterator[None]:
        """Wait until what is done in the context has been drawn."""
        before = self.turn()
        yield
        self._wait(lambda: self.turn() > before and not self.busy())

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

    def lines(self, chart: str) -> int:
        """Number of layers that have a line."""
        code = "modelsOf(arguments[0]).filter((m) => m.name?.startsWith('data-line-')).length"
        return int(self.js(f"return {code}", chart))

    def data(self, chart: str, name: str = "data-cells") -> dict[str, Any]:
        """The columns of a source, arrays as arrays; NaN where a number is not finite."""
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
        code = "figureOf(arguments[0]).x_range.setv({start: arguments[1], end: arguments[2]})"
        with self.drawn():
            self.js(code, chart, first, last)

    def box(self, chart: str) -> Box:
        """Where the frame of a chart is."""
        code = """
            named(arguments[0]).scrollIntoView({block: "nearest"});
            const {x_range, y_range, id} = figureOf(arguments[0]);
            const view = Bokeh.index.find_one_by_id(id);
            const {left, top} = view.el.getBoundingClientRect();
            const {bbox} = view.frame;
            return [left + bbox.left, top + bbox.top, bbox.width, bbox.height,
                    x_range.start, x_range.end, y_range.start, y_range.end];
        """
        return Box(*self.js(code, chart))

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
        for x in (left + 3, left):
            self._mouse("mouseMoved", round(x), round(top))

        code = (
            "return [...everything(document)]"
            ".filter((e) => e.classList.contains('bk-tooltip-content') && e.offsetHeight)"
            ".map((e) => e.innerText)"
        )
        return "\n".join(self._wait(lambda: self.js(code)))

    def wheel(self, left: float, top: float, delta: int, modifiers: int = 0) -> None:
        """Turn the wheel of the mouse at some place; with Ctrl, `modifiers` is 2."""
        self._mouse("mouseWheel", left, top, deltaX=0, deltaY=delta, modifiers=modifiers)

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        event = {"type": kind, "x": x, "y": y, **more}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def legend(self, chart: str) -> list[str]:
        """The entries of the legends of a chart, sorted."""
        code = (
            "return modelsOf(arguments[0]).filter((m) => m.type === 'LegendItem' && m.visible)"
            ".map((item) => item.label.value)"
        )
        return sorted(self.js(code, chart))

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

    def click(self, selector: str, text: str = "") -> None:
        """Click on the first element of a selector with this text, as soon as it is there."""
        self._wait(lambda: [e for e in self.find(selector) if text in ("", e.text)])[0].click()

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
            if self.turn() != last or self.busy():
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
    return np.array(value["numbers"], np.float64).reshape(value["shape"])
