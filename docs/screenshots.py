r"""Take a picture of TensorBoard's Time Series dashboard, for the README.

Starts a TensorBoard on the log directory and a headless Chromium on it:

    python docs/screenshots.py --logdir runs/textbook -o docs/images --name tensorboard \
        --runs '^(He|Xavier)' --filter 'hidden_(01|10|20|30)/norm$' --scale 1.5

Needs `pip install selenium`, and Chromium with its driver (on Debian, the packages `chromium`
and `chromium-driver`). Layers share a chart where they have the same name: call
`keras.utils.clear_session()` before each of the networks that are compared is made.
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

SECONDS = 60
T = TypeVar("T")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def wait_for(what: str, find: Callable[[], T | None]) -> T:
    """The result of `find`, as soon as it is true."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.5)
    raise TimeoutError(f"No {what} within {SECONDS} s.")


@contextlib.contextmanager
def tensorboard(log_dir: Path, scratch: Path) -> Iterator[str]:
    """A TensorBoard process on a free port, as its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
    command += ["--host", "127.0.0.1", "--port", "0"]
    output = scratch / "tensorboard.txt"
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        pattern = re.compile(r"http://127\.0\.0\.1:\d+/")
        yield wait_for("TensorBoard", lambda: pattern.search(output.read_text()))[0]
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def chromium(width: int, height: int, scale: float, scratch: Path) -> Iterator[webdriver.Chrome]:
    """A headless browser whose page has exactly this size, in CSS pixels."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={scratch / 'chromium'}"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield browser
    finally:
        browser.quit()


def open_dashboard(
    browser: webdriver.Chrome, address: str, run_filter: str, tag_filter: str, card_width: int
) -> None:
    """Show the charts of the tags that match, and nothing beside them and the runs."""
    settings = {
        "timeSeriesSettingsPaneOpened": False,
        "timeSeriesCardMinWidth": card_width,
        "stepSelectorEnabled": False,
        "ignoreOutliers": False,
        "sideBarWidthInPercent": 23,
    }
    # TensorBoard reads these from where the browser stores them for its address.
    browser.get(address)
    script = "localStorage.setItem('_tb_global_settings', arguments[0])"
    browser.execute_script(script, json.dumps(settings))
    filters = {"runFilter": run_filter, "tagFilter": tag_filter}
    query = urlencode({**filters, "smoothing": 0, "darkMode": "false"})
    browser.get(f"{address}?{query}#timeseries")


def visible_charts(browser: webdriver.Chrome) -> list[WebElement]:
    """The cards whose charts are there; TensorBoard makes those in view only."""
    cards = browser.find_elements(By.CSS_SELECTOR, "scalar-card:has(line-chart)")
    return [] if browser.find_elements(By.CSS_SELECTOR, "scalar-card mat-spinner") else cards


def click(browser: webdriver.Chrome, button: WebElement) -> None:
    """Click without the mouse, which would leave a tooltip on the chart below it."""
    browser.execute_script("arguments[0].click()", button)


def use_log_axis(browser: webdriver.Chrome, card: WebElement) -> None:
    """Toggle the y axis in a chart's menu."""

    def items() -> list[WebElement]:
        return browser.find_elements(By.XPATH, "//button[contains(., 'Y-axis log scale')]")

    more = card.find_element(By.CSS_SELECTOR, "[aria-label='More line chart options']")
    click(browser, more)
    click(browser, wait_for("menu of a chart", items)[0])
    wait_for("end of the menu", lambda: not items())
    browser.execute_script("document.activeElement.blur()")  # the menu's button stays marked


def still_picture(browser: webdriver.Chrome) -> bytes:
    """A PNG of the page, once it no longer changes."""
    last = b""

    def unchanged() -> bytes:
        nonlocal last
        before, last = last, browser.get_screenshot_as_png()
        return last if last == before else b""

    return wait_for("picture that stands still", unchanged)


def main() -> None:
    """Parse the command line and save one picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--logdir", type=Path, required=True, help="as for TensorBoard")
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory of pictures")
    parser.add_argument("--name", default="time-series", help="of the picture, without .png")
    parser.add_argument("--filter", default="/norm$", help="regular expression of the tags shown")
    parser.add_argument("--runs", default="", help="regular expression of the runs shown")
    parser.add_argument("--window", default="1400x900", help="width and height in pixels")
    parser.add_argument("--scale", type=float, default=1, help="pixels per CSS pixel")
    parser.add_argument("--card-width", type=int, default=500, help="least width, 335 to 735")
    parser.add_argument("--linear", action="store_true", help="do not use logarithmic y axes")
    arguments = parser.parse_args()
    width, height = map(int, arguments.window.split("x"))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        tensorboard(arguments.logdir, Path(scratch)) as address,
        chromium(width, height, arguments.scale, Path(scratch)) as browser,
    ):
        open_dashboard(browser, address, arguments.runs, arguments.filter, arguments.card_width)
        wait_for("chart", lambda: visible_charts(browser))
        still_picture(browser)  # the charts come one by one
        cards = visible_charts(browser)
        for card in cards if not arguments.linear else []:
            use_log_axis(browser, card)
        picture = still_picture(browser)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{arguments.name}.png"
    path.write_bytes(picture)
    print(f"{path}: {len(cards)} charts, {len(picture) // 1024} KiB")


if __name__ == "__main__":
    main()
