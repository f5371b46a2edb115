"""The tab "Gradient Flow" as people see it: a real TensorBoard, looked at in a real Chromium."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from bokeh.palettes import Viridis256

from keras_initkit import read_log
from tensorboard_plugin_initkit.charts.theme import NONFINITE, ZERO
from tensorboard_plugin_initkit.charts.view import RUN_COLOURS
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tests.tensorboard_plugin_initkit.support.application import served
from tests.tensorboard_plugin_initkit.support.browser import Tab
from tests.tensorboard_plugin_initkit.support.made_logs import (
    ALL,
    HOSTILE,
    SIX,
    chunk_of,
    depth_profile,
    event_file,
    layer_names,
    layout_of,
    write_log,
)
from tests.tensorboard_plugin_initkit.support.tensorboard import TensorBoard, eventually
from tests.tensorboard_plugin_initkit.tab.conftest import PREFIX

pytestmark = pytest.mark.slow
LAYERS, STEPS = 30, 400
SPIKE_LAYER, SPIKE_STEP = 23, 6789
HOSTILE_RUN = "<img src=x onerror=alert(1)> \"quoted\" 'run' \n שלום"
RECORDS = {"healthy": STEPS, "vanishing": STEPS, "exploding": STEPS, "nan": STEPS, "dead": STEPS}
RECORDS |= {"wide": 100, "spike": 10_000, "trained": 20, HOSTILE_RUN: 50, "corrupt": 192}
CHANGING = ("growing", "doomed")


def finding(kind: str, layer: int | str, step: int, fix: str = "") -> Finding:
    name = f"dense_{layer}" if isinstance(layer, int) else layer
    message = f"The gradient of {name} is {kind} since step {step}."
    return Finding(kind, name, step, message, {"factor": 0.5, "steps": 12.0}, fix=Fix(fix))


def spiky() -> np.ndarray:
    """10,000 records, in one of which the gradient of one layer is 100,000 times as large."""
    rms = 1e-3 * depth_profile(25, 10_000, 1.0)
    rms[SPIKE_STEP, SPIKE_LAYER] = 1.0
    return rms


def damage(path: Path) -> None:
    """Write zeros into the middle of a file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)


class Logs(NamedTuple):
    """The directory of all runs, and the writers of those that go on."""

    path: Path
    writers: dict[str, LogWriter]


@pytest.fixture(scope="module")
def logs(boards, trained) -> Logs:
    path = boards.log_dir
    write_log(path / "healthy", depth_profile(LAYERS, STEPS, 0.98))
    vanishing = [finding("vanishing", 0, 40, "draw the weights wider"), finding("dead", 3, 300)]
    write_log(path / "vanishing", depth_profile(LAYERS, STEPS, 0.6), findings=vanishing)
    exploding = [finding("exploding", 0, 20)]
    write_log(path / "exploding", depth_profile(LAYERS, STEPS, 1.45), findings=exploding)
    broken = depth_profile(LAYERS, STEPS, 0.98)
    broken[200:] = np.nan
    write_log(path / "nan", broken, findings=[finding("nonfinite", 29, 200)])
    dead = depth_profile(LAYERS, STEPS, 0.98)
    dead[100:, :12] = 0
    write_log(path / "dead", dead, findings=[finding("dead", 11, 100)])
    write_log(path / "wide", depth_profile(1000, 100, 0.995, seed=1), statistics=SIX, biases=False)
    write_log(path / "spike", spiky(), statistics=SIX, biases=False)
    hostile = [finding("vanishing", HOSTILE[0], 10), finding(HOSTILE[1], HOSTILE[4], 20)]
    write_log(path / HOSTILE_RUN, depth_profile(len(HOSTILE), 50, 0.9), HOSTILE, findings=hostile)
    with mock.patch("tensorboard_plugin_initkit.record.layout.SCHEMA_VERSION", 99):
        write_log(path / "foreign", depth_profile(4, 50, 0.9))
    write_log(path / "corrupt", depth_profile(4, 500, 0.9))
    damage(event_file(path / "corrupt"))
    changing = [f"{name}-{loader}" for name in CHANGING for loader in ("rust", "python")]
    rms = depth_profile(4, 64, 0.9)
    return Logs(path, {name: write_log(path / name, rms) for name in changing})


def check_read(board: TensorBoard) -> None:
    assert {run(name) for name in RECORDS} <= set(board.runs())
    for name, records in RECORDS.items():
        assert board.get("data/plugin/initkit/run", run=run(name))["records"] == records


def ready(board: TensorBoard) -> TensorBoard:
    """A TensorBoard that has read its logs."""
    eventually(lambda: check_read(board))
    return board


@pytest.fixture(scope="module", params=["rust", "python"])
def board(request, boards, logs) -> TensorBoard:
    """Both data servers; the slower one under a path of its own."""
    return ready(boards[request.param])


@pytest.fixture(scope="module")
def rust(boards, logs) -> str:
    """The address of the default one."""
    return ready(boards["rust"]).address


def loader_of(board: TensorBoard) -> str:
    return "python" if PREFIX in board.address else "rust"


def run(name: str) -> str:
    """TensorBoard's name of a run."""
    return f"{name}/gradients"


def chart(name: str, view: str = "map") -> str:
    """What the page calls a chart."""
    return f"{view}:{run(name)}"


def charts_of(names: list[str], view: str) -> list[str]:
    """What a view of some runs calls its charts."""
    expected = {"depth": ["depth"], "findings": []}
    return expected.get(view, [chart(name, view) for name in names])


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


VIRIDIS = np.array([rgb(colour) for colour in Viridis256])


def levels(pixels: np.ndarray) -> np.ndarray:
    """Where on the scale of colours pixels (..., 3) are, from 0 to 255; -1 if they are not."""
    distance = np.abs(pixels[..., None, :].astype(int) - VIRIDIS).max(axis=-1)
    return np.where(distance.min(axis=-1) <= 4, distance.argmin(axis=-1), -1)


def check(condition: bool) -> None:
    assert condition


def share(pixels: np.ndarray, colour: str) -> float:
    """Part of the pixels that have a colour."""
    return float((np.abs(pixels.astype(int) - rgb(colour)).max(axis=-1) <= 4).mean())


def row_of(pixels: np.ndarray, box, layer: int) -> np.ndarray:
    """The line of pixels (n, 3) through the middle of a layer of a map."""
    _, y = box.place(box.start, layer)
    return pixels[round(y - np.ceil(box.top))]


def overflow(tab: Tab) -> int:
    """Pixels by which the page, or its panel, is wider than there is room."""
    return tab.js(
        "return Math.max(...[...document.querySelectorAll('html, main, aside')]"
        ".map((e) => e.scrollWidth - e.clientWidth))"
    )


# In TensorBoard.


def background(tab: Tab, name: str) -> str:
    return tab.js("return figureOf(arguments[0]).background_fill_color", chart(name))


def test_the_tab_is_found_without_flags_follows_the_theme_and_reloads(tab, board, logs):
    tab.resize(1920, 1080)
    growing, doomed = (f"{name}-{loader_of(board)}" for name in CHANGING)
    tab.open(board.address, embedded=True, runs=[run(growing), run(doomed)])
    with tab.outside():
        names = [element.text for element in tab.find("[role=tab]")]
        assert tab.driver.current_url.startswith(board.address)
    assert "GRADIENT FLOW" in map(str.upper, names)
    tab.picture(f"tensorboard-{loader_of(board)}")
    assert tab.charts() == [chart(doomed), chart(growing)]
    assert "4 layers, 64 recorded steps from 0 to 63" in tab.said(chart(growing))
    assert background(tab, growing) == "#ffffff"
    for theme, colour in (("Dark", "#1e1e1e"), ("Light", "#ffffff")):
        with tab.drawn(), tab.outside():
            tab.click("app-header-dark-mode-toggle button")
            tab.click(f"[title='Force {theme.lower()} TensorBoard theme.']")
        tab.picture(f"tensorboard-{loader_of(board)}-{theme.lower()}")
        assert background(tab, growing) == colour
        assert tab.js("return getComputedStyle(document.body).backgroundColor") == (
            f"rgb{tuple(map(int, rgb(colour)))}"
        )
    # One run goes on, another is deleted.
    tab.zoom(chart(growing), 10, 20)
    rms = depth_profile(4, 64, 0.5)
    logs.writers[growing].write(chunk_of(layout_of(layer_names(4)), np.arange(64, 128), rms, ALL))
    shutil.rmtree(logs.path / doomed)

    def check_board() -> None:
        assert run(doomed) not in board.runs()
        assert board.get("data/plugin/initkit/run", run=run(growing))["records"] == 128

    def check_page() -> None:
        assert f"No longer in this log directory: {run(doomed)}." in tab.text()
        assert "128 recorded steps from 0 to 127" in tab.said(chart(growing))
        assert tab.js("return figureOf(arguments[0]).x_range.bounds[1]", chart(growing)) > 120

    eventually(check_board)
    with tab.outside():
        tab.click("button.reload-button")
    eventually(check_page)
    tab.settle()
    assert tab.charts() == [chart(growing)]
    box = tab.box(chart(growing))
    assert (box.start, box.end) == (10, 20)  # where one has zoomed to
    with tab.drawn():
        tab.click("button", "show all")
    with tab.drawn():
        tab.run_box("vanishing").click()
    for name in (growing, "vanishing"):
        expected = read_log(logs.path / name)["signal"]
        np.testing.assert_allclose(tab.values(chart(name)), expected.T, rtol=1e-6)


def test_a_link_shows_the_same_again(tab, rust):
    tab.open(rust, embedded=True, runs=[run("healthy")])
    with tab.drawn():
        tab.run_box("vanishing").click()
    with tab.drawn():
        tab.control("Statistic").find_element("css selector", "[value=max_abs]").click()
    with tab.drawn():
        tab.control("Filter layers").send_keys("dense_2")
    tab.zoom(chart("vanishing"), 100, 150)
    shown = [tab.values(chart("vanishing")), tab.title(chart("vanishing")), tab.charts()]
    with tab.outside():
        address = tab.driver.current_url
    for part in ("p.initkit.statistic=max_abs", "p.initkit.first=100", "p.initkit.last=150"):
        assert part in address
    assert "p.initkit.view" not in address  # what is not the default only
    tab.go(address, embedded=True)
    again = [tab.values(chart("vanishing")), tab.title(chart("vanishing")), tab.charts()]
    np.testing.assert_array_equal(shown[0], again[0])
    assert shown[1:] == again[1:]
    box = tab.box(chart("vanishing"))
    assert (box.start, box.end) == (100, 150)


def slid_to(tab: Tab) -> int:
    """The step of the slider."""
    return tab.js(
        "const slider = documentOf('depth').get_model_by_name('step');"
        "return slider.tags[slider.value]"
    )


def test_a_link_has_the_sliders_step_and_back_goes_back_a_view_in_tensorboard(tab, rust):
    tab.open(rust, embedded=True, runs=[run("healthy")])
    with tab.drawn():
        tab.click("#tab-depth")
    assert slid_to(tab) == STEPS - 1
    with tab.drawn():
        tab.js("documentOf('depth').get_model_by_name('step').value = 25")
    step = slid_to(tab)
    assert 90 < step < 110
    with tab.outside():
        address = tab.driver.current_url
        assert f"p.initkit.step={step}" in address
    tab.go(address, embedded=True)
    assert slid_to(tab) == step
    assert any(f"step {step}:" in entry for entry in tab.legend("depth"))
    with tab.drawn():
        tab.click("#tab-lines")
    with tab.drawn(), tab.outside():
        tab.driver.back()
    (selected,) = tab.find("[role=tab][aria-selected=true]")
    assert selected.get_attribute("id") == "tab-depth"


def test_runs_are_filtered_by_a_regular_expression_as_tensorboard_has_it(tab, rust):
    address = f"{rust}?runFilter=HEALTHY%7Cvan.*ing#initkit"
    tab.go(address, embedded=True)
    listed = [row.text.split()[0] for row in tab.find("fieldset .list label")]
    assert listed == ["healthy", "vanishing"]
    assert tab.charts() == [chart("vanishing")]  # the worst of these
    (field,) = tab.find("input[type=search]")[:1]
    with tab.drawn():
        field.clear()
        field.send_keys("(")
    assert "No run matches the regular expression (." in tab.text()
    assert field.get_attribute("aria-invalid") == "true"
    with tab.drawn():
        field.clear()
        field.send_keys("^(dead|healthy)/")
    with tab.outside():
        again = tab.driver.current_url
    tab.go(again, embedded=True)
    assert len(tab.find("fieldset .list label")) == 2
    # The colours are those of TensorBoard's own list, whose order is that of /data/runs.
    names = json.loads(urllib.request.urlopen(f"{rust}data/runs").read())
    for place, name in enumerate(("dead", "healthy")):
        row = tab.find("fieldset .list label")[place]
        colour = RUN_COLOURS["light"][names.index(run(name)) % 7]
        assert row.value_of_css_property("border-left-color") == (
            f"rgba({', '.join(map(str, rgb(colour)))}, 1)"
        )
    with tab.drawn():
        tab.js(
            "arguments[0].dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))",
            tab.find("fieldset .list label")[1],
        )
    assert tab.charts() == [chart("healthy")]


def test_the_keyboard_moves_between_the_views(tab, rust):
    tab.open(rust, runs=[run("healthy")])

    def focused() -> str:
        return tab.js("return document.activeElement.id")

    for _ in range(40):
        tab.keys("\ue004")  # Tab
        if focused().startswith("tab-"):
            break
    assert focused() == "tab-map"
    for name in ("depth", "lines", "findings", "map"):
        with tab.drawn():
            tab.keys("\ue014")  # to the right
        assert focused() == f"tab-{name}"
        (selected,) = tab.find("[role=tab][aria-selected=true]")
        assert selected.get_attribute("id") == f"tab-{name}"
    for name in ("findings", "lines", "depth"):
        with tab.drawn():
            tab.driver.back()
        (selected,) = tab.find("[role=tab][aria-selected=true]")
        assert selected.get_attribute("id") == f"tab-{name}"
    # All that can be reached has a name, in the shadows of Bokeh's elements as well.
    nameless = tab.js(
        "return [...everything(document)].filter((e) => e.checkVisibility?.() && "
        "e.matches('input, select, button, summary, [role=slider], [role=img]') && "
        "!(e.labels?.length || e.ariaLabel || e.innerText?.trim() || e.title))"
        ".map((e) => e.outerHTML.slice(0, 200))"
    )
    assert nameless == []


# Maps.


def test_maps_show_and_tell_the_values_of_the_logs(tab, rust, logs):
    names = ["healthy", "vanishing", "exploding", "nan", "dead", "trained"]
    tab.resize(1920, 1080)
    tab.show(rust, runs=[run(name) for name in names])
    assert sorted(tab.charts()) == sorted(map(chart, names))
    for name in names:
        history = read_log(logs.path / name)
        expected, broken = history["signal"].T, history["nonfinite"].T > 0
        values = tab.values(chart(name))
        np.testing.assert_allclose(np.where(broken, 0, values), np.where(broken, 0, expected), 1e-6)
        assert not np.isfinite(values[broken]).any()
        # What is on the screen: the middle of each row, at some steps.
        pixels, box = tab.pixels(chart(name)), tab.box(chart(name))
        # Not where the axis or a mark of a finding is.
        some = np.linspace(3, len(history) - 4, 7).astype(int)
        at = [round(box.place(history.steps[i] + 0.5, 0)[0] - np.ceil(box.left)) for i in some]
        for layer in range(0, len(history.layers), 3):
            shown = row_of(pixels, box, layer)[at]
            cells = zip(shown, expected[layer, some], broken[layer, some], strict=True)
            for pixel, value, no in cells:
                if no:
                    assert share(pixel, NONFINITE) == 1
                elif value == 0:
                    assert share(pixel, ZERO) == 1
                else:
                    level = 255 * np.clip((np.log10(value) + 9) / 10, 0, 1)
                    assert abs(levels(pixel) - level) <= 6
    # The mouse is told exact values and what is marked.
    history = read_log(logs.path / "vanishing")
    for layer, step in ((0, 0), (17, 200), (29, 398)):
        said = tab.hover(chart("vanishing"), step + 0.5, layer)
        lines = dict(re.findall(r"(\w+):\s+(.*)", said))
        assert lines["step"] == str(step)
        assert lines["layer"] == f"dense_{layer}, Dense"
        assert float(lines["value"]) == pytest.approx(history["signal"][step, layer], rel=1e-3)
        assert lines["weights"] == "kernel (16, 16) HeNormal(), bias (16,) Zeros()"
    assert re.search(r"value:\s+(exactly )?(zero|0)", tab.hover(chart("dead"), 200.5, 3))
    assert re.search(r"value:\s+NaN or infinite", tab.hover(chart("nan"), 300.5, 3))


def test_no_layer_of_a_thousand_is_invisible(tab, rust):
    tab.show(rust, runs=[run("wide")])
    tab.picture("map-wide")
    assert "1,000 layers, 100 recorded steps" in tab.said(chart("wide"))
    rows = tab.js(
        "return documentOf(arguments[0]).get_model_by_name('data-cells').data.image[0].shape[0]",
        chart("wide"),
    )
    assert rows <= tab.box(chart("wide")).height
    assert (rows == 1000) or "of several layers" in tab.title(chart("wide"))
    assert (levels(tab.pixels(chart("wide"))[::5, ::5]) >= 0).mean() > 0.97


def test_a_spike_of_one_step_is_visible_at_every_zoom_level_of_the_same_chart(tab, rust):
    tab.show(rust, runs=[run("spike")], statistic="rms")
    figure, all_steps = tab.figure(chart("spike")), tab.data(chart("spike"), "data-columns")
    assert all_steps["records"].max() > 1
    for seen in (None, (6000, 7500), (6780, 6800)):
        if seen:
            tab.zoom(chart("spike"), *seen)
        assert tab.figure(chart("spike")) == figure
        tab.picture(f"spike-{seen[0] if seen else 'all'}")
        row = tab.values(chart("spike"))[SPIKE_LAYER]
        assert row.max() == pytest.approx(1.0)
        assert (row > 1e-2).sum() == 1
        pixels, box = tab.pixels(chart("spike")), tab.box(chart("spike"))
        bright = np.flatnonzero(levels(row_of(pixels, box, SPIKE_LAYER)) > 150)
        first, last = (box.place(SPIKE_STEP + end, 0)[0] - np.ceil(box.left) for end in (0, 1))
        assert len(bright)
        assert first - 2 <= bright.min() <= bright.max() <= last + 2
        others = levels(row_of(pixels, box, SPIKE_LAYER - 2))
        assert not (others > 150).any()
    # The data are those of the steps that are seen.
    columns = tab.data(chart("spike"), "data-columns")
    assert 6775 <= columns["first"].min() <= 6780
    assert 6799 <= columns["last"].max() <= 6805
    assert columns["records"].max() == 1
    assert "several records" not in tab.title(chart("spike"))
    with tab.drawn():
        tab.click("button", "show all")
    assert tab.figure(chart("spike")) == figure
    columns = tab.data(chart("spike"), "data-columns")
    np.testing.assert_array_equal(columns["records"], all_steps["records"])
    tab.show(rust, runs=[run("spike")], how="min")
    assert tab.values(chart("spike"))[SPIKE_LAYER].max() < 1e-2
    assert "each column is the min of several steps" in tab.title(chart("spike"))
    assert "min keeps a layer that is dead for one step, and hides spikes." in tab.text()


def test_runs_move_together_side_by_side_with_their_difference(tab, rust, logs):
    tab.resize(1920, 1080)
    tab.open(rust, runs=[run("healthy")])
    with tab.drawn():
        tab.run_box("vanishing").click()
    with tab.drawn():
        tab.control("difference").click()
    tab.picture("difference")
    assert tab.charts() == [chart("healthy"), chart("vanishing"), "difference"]
    first, second = tab.box(chart("healthy")), tab.box(chart("vanishing"))
    assert first.top == second.top
    assert first.left + first.width < second.left
    a, b = (read_log(logs.path / name)["signal"] for name in ("healthy", "vanishing"))
    np.testing.assert_allclose(tab.values("difference"), np.log10(b / a).T, atol=1e-4)
    assert tab.said("difference").split("\n")[0].startswith("vanishing")
    assert "log10(vanishing / healthy)" in tab.title("difference")
    before = tab.box(chart("healthy"))
    place = before.place(100, 15)
    tab.wheel(*place, 300)  # the page scrolls
    eventually(lambda: check(tab.box(chart("healthy")).top < before.top))
    assert tab.box(chart("healthy")).start == before.start
    with tab.drawn():
        tab.wheel(*tab.box(chart("healthy")).place(100, 15), -300, modifiers=2)  # Ctrl
    first, second = tab.box(chart("healthy")), tab.box(chart("vanishing"))
    assert 0 < first.start < 100 < first.end < 399
    assert second.start == pytest.approx(first.start, abs=1)
    assert second.end == pytest.approx(first.end, abs=1)
    assert tab.values(chart("vanishing")).shape[1] < STEPS


# Other views.


def test_a_finding_leads_to_its_place_on_the_map(tab, rust):
    tab.show(rust, view="findings", runs=[run("vanishing"), run("exploding")])
    tab.picture("findings")
    cells = [
        [cell.text for cell in row.find_elements("css selector", "td")]
        for row in tab.find("tbody tr")
    ]
    assert [row[:4] for row in cells] == [
        ["20", "exploding\nwarning", "exploding", "dense_0"],
        ["40", "vanishing\nwarning", "vanishing", "dense_0"],
        ["300", "dead\nwarning", "vanishing", "dense_3"],
    ]
    verdict, other = tab.find(".verdict")  # above the charts, with what to change to be copied
    assert verdict.text.startswith("exploding: ")
    assert "draw the weights wider" in other.text
    other.find_element("css selector", "summary").click()  # why, and the documentation on it
    assert "Seen: " in other.text
    assert "since step 300" in cells[2][4]
    assert "factor = 0.5" in cells[2][5]
    assert "What to change: draw the weights wider" in cells[1][4]
    assert tab.find("#tab-findings")[0].text.split() == ["Findings", "3"]
    with tab.drawn():
        tab.find("tbody tr")[2].click()
    tab.picture("findings-place")
    assert tab.charts() == [chart("vanishing")]
    box = tab.box(chart("vanishing"))
    assert 250 < box.start < 300 < box.end < 350
    assert "The gradient of dense_3 is dead since step 300." in tab.said(chart("vanishing"))
    left, top = box.place(300, 3)
    assert box.left < left < box.left + box.width
    assert 0 < top < 800  # it is in view
    assert "The gradient of dense_3 is dead since step 300." in tab.point(left, top)


def test_lines_of_several_runs_are_on_the_same_axes(tab, rust):
    names = ["vanishing", "healthy"]
    tab.show(rust, view="lines", runs=[run(name) for name in names])
    ends = [
        tab.js(
            "return modelsOf(arguments[0]).filter((m) => m.type === 'Figure')"
            ".map((m) => [m.y_range.start, m.y_range.end, m.y_scale.type])",
            chart(name, "lines"),
        )
        for name in names
    ]
    tab.picture("lines-of-two")
    assert len(ends[0]) == 3  # with loss and learning rate
    assert ends[0] == ends[1]


def test_lines_of_chosen_layers_are_smoothed(tab, rust, logs):
    tab.show(rust, view="lines", runs=[run("healthy")])
    name = chart("healthy", "lines")

    assert tab.lines(name) == 10
    for layer in ("dense_2", "dense_28"):
        with tab.drawn():
            tab.run_box(layer).click()
    assert tab.lines(name) == 2
    plain = tab.data(name, "data-line-0")["value"]
    expected = read_log(logs.path / "healthy")["signal"][:, 2]
    np.testing.assert_allclose(plain, expected, rtol=1e-6)
    with tab.drawn():
        tab.js(
            "arguments[0].value = 0.6;"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            tab.control("Smoothing"),
        )
    tab.picture("lines-smoothed")
    assert "smoothed by 0.6" in tab.title(name)
    data = tab.data(name, "data-line-0")
    np.testing.assert_allclose(data["raw"], plain)
    assert np.diff(data["value"]).std() < 0.5 * np.diff(plain).std()


def test_the_depth_profile_has_a_slider_or_lies_over_itself(tab, rust):
    tab.show(rust, view="depth", runs=[run("vanishing"), run("exploding")])
    before = tab.legend("depth")
    assert len(before) == 2
    assert "per layer towards the input" in before[0]
    handle = "[...everything(document)].find((e) => e.classList.contains('noUi-handle'))"
    assert tab.js(f"const handle = {handle}; handle.focus(); return handle")
    for _ in range(3):
        tab.keys("\ue012")  # to the left

    def moved() -> list[str]:
        assert tab.legend("depth") != before
        return tab.legend("depth")

    after = eventually(moved)
    tab.picture("depth-slider")
    assert re.match(r"exploding, step \d+: ×1\.4\d? per layer", after[0])
    assert re.match(r"vanishing, step \d+: ×0\.(59|6)\d* per layer", after[1])
    # It plays, and pauses.
    tab.js("documentOf('depth').get_model_by_name('step').value = 0")
    play = "[...everything(document)].find((e) => e.matches('button') && e.innerText === {!r})"
    tab.js(f"{play.format('Play')}.click()")
    eventually(lambda: check(slid_to(tab) > 0))
    tab.js(f"{play.format('Pause')}.click()")
    paused = slid_to(tab)
    time.sleep(0.3)
    assert slid_to(tab) == paused < STEPS - 1
    with tab.drawn():
        tab.control("Overlay steps").send_keys("0, 200\n")
    tab.picture("depth-overlay")
    assert len(tab.legend("depth")) == 4
    assert tab.js(f"return {handle} ?? null") is None


def test_the_numbers_can_be_downloaded(tab, rust, logs):
    tab.show(rust, runs=[run("trained")], statistic="norm")
    (address,) = (e.get_attribute("href") for e in tab.find("a") if e.text == "CSV")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as response:
        assert response.headers["Content-Disposition"].startswith("attachment")
        rows = [line.split(",") for line in response.read().decode().splitlines()]
    history = read_log(logs.path / "trained")
    assert rows[0] == ["step", *history.layers]
    table = np.array(rows[1:], np.float64)
    np.testing.assert_array_equal(table[:, 0], history.steps)
    np.testing.assert_array_equal(table[:, 1:], history["norm"])


# What goes wrong.


def test_an_empty_directory_is_explained(tab, tmp_path):
    with served(tmp_path) as address:
        tab.open(address)
        tab.picture("empty")
        assert "Nothing recorded yet" in tab.text()
        assert "No run in this log directory was recorded by a GradientMonitor" in tab.text()
        assert tab.find("pre")[0].text == (
            "from keras_initkit.callbacks import GradientMonitor\n"
            'model.fit(x, y, callbacks=[GradientMonitor("runs/first")])'
        )
        assert tab.charts() == []


def test_hostile_names_are_shown_as_text(tab, rust):
    starts = {3: "two\\nlines", 4: "longlong", 5: "שלום", 6: "$"}
    names = [HOSTILE_RUN, "healthy"]
    for view in ("findings", "depth", "lines", "map"):
        tab.show(rust, view=view, runs=[run(name) for name in names])
        tab.picture(f"hostile-{view}")
        assert tab.charts() == charts_of(names, view)
        assert overflow(tab) <= 0
        assert "<img src=x onerror=alert(1)>" in tab.text()
        if view == "findings":
            text = "\n".join(row.text for row in tab.find("tbody tr"))
            assert "gradient of <img src=x onerror=alert(1)> is vanishing since step 10." in text
            assert all(row.size["height"] < 500 for row in tab.find("tbody tr"))
        if view == "lines":
            titles = [row.text for row in tab.find("fieldset .list label")]
            assert any(title.startswith("=HYPERLINK") for title in titles)
        if view == "map":
            for layer, name in enumerate(HOSTILE):
                said = tab.hover(chart(HOSTILE_RUN), 25.5, layer)
                assert starts.get(layer, name[:20]) in said
                assert len(said) < 800
        there = tab.js(
            "return [...everything(document)].filter((e) => e.matches('img[src=x]')"
            " || (e.matches('script') && e.textContent.includes('alert'))).map((e) => e.outerHTML)"
        )
        assert there == []


def test_damaged_and_foreign_logs_say_so_and_the_others_are_shown(tab, board):
    tab.resize(1920, 1080)
    tab.show(board.address, runs=[run("corrupt"), run("foreign"), run("healthy")])
    tab.picture(f"corrupt-{loader_of(board)}")
    assert "version 99" in tab.said(chart("foreign"))
    assert [link.text for link in tab.find("a")].count("CSV") == 2  # there is no other table
    said = tab.said(chart("corrupt"))
    assert "4 layers, 192 recorded steps from 0 to 191" in said
    assert "The log ends at step 191" in said
    assert "The log ends" not in tab.said(chart("healthy"))
    assert tab.values(chart("healthy")).shape == (LAYERS, STEPS)
    tab.leave()
    # The browser logs each answer that is an error.
    assert all("run=foreign" in message for message in tab.errors())


# All views in both themes: for readers of screens, and as pictures to be looked at.


def inspect(tab: Tab, **options: object) -> list[object]:
    """Run axe on the page; return what it finds serious."""
    package = pytest.importorskip("axe_core_python", reason="It brings axe-core along.")
    if not tab.js("return Boolean(window.axe)"):
        tab.driver.execute_script((Path(package.__file__).parent / "axe.min.js").read_text())
    result = tab.driver.execute_async_script(
        "const [options, done] = arguments;"
        "axe.run(options).then(done, (error) => done({error: `${error}`}))",
        options,
    )
    assert result["passes"]
    return [
        (v["id"], v["impact"], [node["html"][:200] for node in v["nodes"]])
        for v in result["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def test_every_view_is_accessible_in_both_themes_and_fits_a_wide_window(tab, rust):
    names = ["dead", "exploding", "vanishing"]
    tab.resize(1920, 1080)
    rules = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}  # what a theme can change
    for theme, colour in (("light", "#ffffff"), ("dark", "#1e1e1e")):
        tab.prefer(theme)
        for view in ("map", "depth", "lines", "findings"):
            tab.show(rust, runs=[run(name) for name in names], view=view)
            assert (tab.js("return document.body.className") == "dark") == (theme == "dark")
            if view == "map":
                assert background(tab, "vanishing") == colour
            tab.picture(f"{view}-{theme}-1920")
            assert tab.charts() == charts_of(names, view)
            assert overflow(tab) <= 0
            assert inspect(tab, **rules[theme]) == [], (view, theme)
