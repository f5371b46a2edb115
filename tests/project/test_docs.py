"""The documentation: its code runs, its links lead somewhere, its notebooks hold no outputs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from benchmarks.tables import put_row
from keras_initkit import initializers, read_log
from tests import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
# Beam has an environment of its own.
_NOT_HERE = ("apache_beam", "keras_initkit.adapt.beam")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def pages_with_code() -> Iterator[Any]:
    """Yield pages: on PyTorch, where a training begins soonest, but for those with TensorFlow."""
    for page in PAGES:
        if code := "".join(code_of(page)):
            mark = pytest.mark.backends("tensorflow" if "tensorflow" in code else "torch")
            yield pytest.param(page, marks=mark, id=name_of(page))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_initkit.callbacks.GradientWarning")
@pytest.mark.filterwarnings("ignore:.* features are constant:UserWarning")
@pytest.mark.parametrize("page", [*pages_with_code()])
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.disable_interactive_logging()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in code_of(page):
        if not any(name in block for name in _NOT_HERE):
            exec(compile(block, name_of(page), "exec"), namespace)
    if page.name == "README.md":
        vanishing, healthy = read_log("runs/keras_defaults"), read_log("runs/he")
        assert [finding.kind for finding in vanishing.findings] == ["bad_start"]
        assert vanishing.findings[0].text in " ".join(page.read_text().split())
        assert not healthy.findings


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_notebooks_are_kept_without_outputs(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs"), cell["source"]
        assert cell.get("execution_count") is None


def rows(name: str) -> list[list[str]]:
    """Return a generated table of the page on initializers, without what makes cells bold."""
    page = (ROOT / "docs" / "explanations" / "initializers.md").read_text()
    table = page.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_in_the_measured_tables_all_that_we_draw_is_right(name):
    assert len(rows(name)) >= 16
    for kernel, *_, ours in rows(name):
        assert float(ours) == pytest.approx(1, abs=0.02), kernel


def test_in_the_measured_tables_keras_is_as_its_reading_of_shapes_predicts():
    """Keras's figures follow from the shapes: true fans divided by those that are read."""
    forward = {row[0]: row for row in rows("forward")}
    for kernel, read in {
        "Dense 256 → 256": 256,
        "DepthwiseConv2D 3x3, 64 channels": 9 * 64,
        "SeparableConv2D 3x3, 64 channels, depthwise": 9 * 64,
        "Conv2DTranspose 3x3, 64 → 16": 9 * 16,
        "Conv2DTranspose 4x4, stride 2, 64 → 3": 16 * 3,
        "Embedding 1,000 → 64": 1000,
    }.items():
        _, _, true, keras_figure, *_ = forward[kernel]
        assert float(keras_figure) == pytest.approx(float(true) / read, rel=0.05), kernel


def test_every_initializer_is_in_the_catalogue():
    page = (ROOT / "docs" / "explanations" / "initializers.md").read_text()
    catalogue = page.partition("## The initializers")[2].partition("## Three ways")[0]
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", catalogue, re.MULTILINE)))
    assert sorted(listed) == sorted(initializers.__all__)


TABLE = """# Costs

<!-- step: begin -->
| model | backend | step |
|---|---|---|
| a | JAX | 1 |
<!-- step: end -->

Text.
"""


def test_a_benchmark_puts_a_row_in_the_place_of_its_own():
    other = put_row(TABLE, "step", ["a", "PyTorch", "2"])
    assert other == TABLE.replace("| 1 |\n", "| 1 |\n| a | PyTorch | 2 |\n")
    assert put_row(other, "step", ["a", "JAX", "3"]) == other.replace("| 1 |", "| 3 |")
    with pytest.raises(ValueError, match=r"must have 3 cells\. Received: 2"):
        put_row(TABLE, "step", ["a", "JAX"])
    with pytest.raises(ValueError, match="must have the lines <!-- other: begin -->"):
        put_row(TABLE, "other", ["a", "JAX", "3"])
