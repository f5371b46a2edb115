"""Take the README's picture of the tab, in TensorBoard, of the runs of the demonstration.

    make demo
    python -m docs.screenshots --logdir runs/textbook -o docs/images/tensorboard.png

Needs Chromium with its driver (on Debian, the packages `chromium` and `chromium-driver`).
"""

import argparse
import tempfile
from pathlib import Path

from tests.tensorboard_plugin_initkit.support.browser import Tab, chromium
from tests.tensorboard_plugin_initkit.support.tensorboard import (
    TensorBoard,
    eventually,
    tensorboard,
)

RUNS = ("He_ReLU", "He_x_0.7_ReLU")


def check_read(board: TensorBoard, names: list[str]) -> None:
    """Check the names of the runs in TensorBoard."""
    assert set(board.runs()) >= set(names), f"The runs must be {names}. Received: {board.runs()}."


def main() -> None:
    """Parse the command line and save one picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--logdir", type=Path, required=True, help="as for TensorBoard")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    parser.add_argument("--runs", nargs="+", default=RUNS, help="directories of the runs")
    parser.add_argument("--view", default="map", help="map, depth, lines or findings")
    parser.add_argument("--statistic", default="signal", help="colour of the map")
    parser.add_argument("--theme", default="light", choices=("light", "dark"))
    parser.add_argument("--window", default="1440x830", help="width and height in pixels")
    parser.add_argument("--scale", type=float, default=1, help="pixels per CSS pixel")
    arguments = parser.parse_args()
    width, height = map(int, arguments.window.split("x"))
    names = [f"{name}/gradients" for name in arguments.runs]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        tensorboard(arguments.logdir, Path(scratch) / "output.txt") as board,
        chromium(Path(scratch)) as driver,
    ):
        eventually(lambda: check_read(board, names))
        tab = Tab(driver)
        tab.resize(width, height, arguments.scale)
        tab.prefer(arguments.theme)
        state = {"view": arguments.view, "statistic": arguments.statistic, "runs": names}
        tab.open(board.address, embedded=True, **state)
        picture = driver.get_screenshot_as_png()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(picture)
    print(f"{arguments.output}: {len(picture) // 1024} KiB")


if __name__ == "__main__":
    main()
