"""The page on initializers: its tables, its catalogue and its code."""

import re
from typing import Any

import pytest

from keras_initkit import initializers
from tests import ROOT

PAGE = (ROOT / "docs" / "explanations" / "initializers.md").read_text()


def rows(name):
    """The rows of a generated table: cells, without what makes them bold."""
    table = PAGE.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_all_that_we_draw_is_right(name):
    assert len(rows(name)) >= 16
    for kernel, *_, ours in rows(name):
        assert float(ours) == pytest.approx(1, abs=0.02), kernel


def test_what_keras_reads_from_shapes_is_what_was_measured():
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
        _, _, true, keras, *_ = forward[kernel]
        assert float(keras) == pytest.approx(float(true) / read, rel=0.05), kernel


def test_every_initializer_is_in_the_catalogue():
    catalogue = PAGE.partition("## The initializers")[2].partition("## Three ways")[0]
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", catalogue, re.MULTILINE)))
    assert sorted(listed) == sorted(initializers.__all__)


def test_the_code_of_the_page():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "initializers.md", "exec"), namespace)
    assert len(namespace["drawn"]) == 5
    assert namespace["audit"].problems
