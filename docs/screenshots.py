"""Take pictures of the tab in TensorBoard: that of the README, and of every view.

    make demo
    python -m docs.screenshots --train runs/textbook    # a few other models beside the demo's
    python -m docs.screenshots --logdir runs/textbook                     # all, in build/pictures
    python -m docs.screenshots --logdir runs/textbook --only readme       # the README's alone

Needs Chromium with its driver (on Debian, the packages `chromium` and `chromium-driver`).
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.tensorboard_plugin_initkit.support.browser import Tab, chromium
from tests.tensorboard_plugin_initkit.support.tensorboard import (
    TensorBoard,
    eventually,
    tensorboard,
)

README = Path("docs/images/tensorboard.png")
PAIR = ("He_ReLU", "He_x_0.7_ReLU")
WIDTHS = {1280: 800, 1440: 900, 1920: 1080}


class Picture(NamedTuple):
    """A picture to take: its file, the window and the state of the tab."""

    path: Path
    runs: tuple[str, ...] | None = PAIR  # None: as the tab chooses
    view: str = "map"
    theme: str = "light"
    width: int = 1440
    height: int = 0
    more: tuple[tuple[str, Any], ...] = ()


def list_pictures(folder: Path, runs: list[str]) -> Iterator[Picture]:
    """List the pictures of all views, themes and widths; and the map of each run."""
    yield Picture(README, height=960)
    yield Picture(folder / "first_look.png", None, width=1280)
    for view, theme, width in itertools.product(
        ("map", "depth", "lines", "findings"), ("light", "dark"), WIDTHS
    ):
        yield Picture(folder / f"{view}_{theme}_{width}.png", PAIR, view, theme, width)
    yield Picture(folder / "difference.png", more=(("difference", "true"),), width=1920)
    for run, (view, theme) in itertools.product(runs, (("map", "light"), ("depth", "dark"))):
        yield Picture(folder / f"run_{run}_{view}.png", (run,), view, theme)


def train_others(folder: Path) -> None:
    """Train models of other kinds, a few steps each, beside those of the demo."""
    import keras
    import numpy as np

    from keras_initkit.callbacks import GradientMonitor
    from tests.pipelines.base import Pipeline
    from tests.pipelines.generative import wgan_gp
    from tests.pipelines.text import transformer_classifier

    constant = keras.initializers.Constant
    rng = np.random.default_rng(0)
    x, y = rng.random((160, 32, 32, 3), np.float32), rng.integers(0, 10, 160)

    def deep(rate: float, **arguments: Any) -> Any:
        layers = [keras.layers.Dense(32, "relu", **arguments) for _ in range(8)]
        layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), *layers]
        model = keras.Sequential([*layers, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss)
        return model

    def mobile_net() -> Any:
        model = keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=10)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    def tiny() -> Any:
        model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(8, "relu"))
        model.add(keras.layers.Dense(10, "softmax"))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    made = {
        "NaN": lambda: Pipeline(deep(1e6), (x, y)),
        "dead": lambda: Pipeline(deep(0.01, bias_initializer=constant(-9)), (x, y)),
        "tiny": lambda: Pipeline(tiny(), (x, y)),
        "Transformer": transformer_classifier,
        "GAN": wgan_gp,
        "MobileNetV2": lambda: Pipeline(mobile_net(), (x, y)),
    }
    for name, make in made.items():
        keras.utils.set_random_seed(0)
        monitor = GradientMonitor(folder / name, on_finding=lambda finding: None)
        make().train(monitor)
        print(f"{folder / name}: {monitor.history}", flush=True)


def check_read(board: TensorBoard, names: set[str]) -> None:
    """Check the names of the runs in TensorBoard."""
    assert names <= set(board.runs()), f"The runs must be {names}. Received: {board.runs()}."


def check_marked(tab: Tab, count: int) -> None:
    """Check that all runs in the list have their verdicts, which come after the charts."""
    marks = len(tab.find("aside .mark"))
    assert marks == count, f"All {count} runs must have a mark. Received: {marks}."


def take(tab: Tab, board: TensorBoard, picture: Picture) -> None:
    """Open the tab as the picture asks, and save it."""
    tab.resize(picture.width, picture.height or WIDTHS[picture.width])
    tab.prefer(picture.theme)
    state: dict[str, Any] = {"view": picture.view, **dict(picture.more)}
    if picture.runs is not None:
        state["runs"] = [f"{name}/gradients" for name in picture.runs]
    tab.open(board.address, embedded=True, **state)
    eventually(lambda: check_marked(tab, len(board.runs())))
    content = tab.driver.get_screenshot_as_png()
    picture.path.parent.mkdir(parents=True, exist_ok=True)
    picture.path.write_bytes(content)
    print(f"{picture.path}: {len(content) // 1024} KiB", flush=True)


def main() -> None:
    """Parse the command line and save the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, metavar="DIRECTORY", help="train other models only")
    parser.add_argument(
        "--logdir", type=Path, default=Path("runs/textbook"), help="for TensorBoard"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("build/pictures"), help="folder")
    parser.add_argument("--only", default="", help="part of the names of files; or readme")
    arguments = parser.parse_args()
    if arguments.train:
        train_others(arguments.train)
        return
    runs = sorted(path.parent.name for path in arguments.logdir.glob("*/gradients"))
    pictures = list_pictures(arguments.output, runs)
    only = README.name if arguments.only == "readme" else arguments.only
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        tensorboard(arguments.logdir, Path(scratch) / "output.txt") as board,
        chromium(Path(scratch)) as driver,
    ):
        eventually(lambda: check_read(board, {f"{run}/gradients" for run in runs}))
        for picture in pictures:
            if only in picture.path.name:
                take(Tab(driver), board, picture)


if __name__ == "__main__":
    main()
