"""Every example, run as the README says."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from keras_initkit import read_log
from tests import ROOT

pytestmark = [
    # Where they take least time, but for what is TensorFlow's.
    pytest.mark.backends("torch"),
    pytest.mark.slow,
    # As of any script, Keras's warnings are shown, and end nothing.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def run_example(monkeypatch, capsys):
    """A function that runs an example as a script in a directory, and returns its output."""

    def run(name, directory, *arguments):
        monkeypatch.chdir(directory)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.backends("tensorflow")
def test_existing_pipeline(tmp_path, run_example):
    output = run_example("existing_pipeline.py", tmp_path, "--epochs", "2")
    assert "conv_1" in output
    log_dir = tmp_path / "runs" / "existing_pipeline"
    assert {"best.keras", "gradients", "train", "validation"} <= {p.name for p in log_dir.iterdir()}
    history = read_log(log_dir)
    assert history.layers == ["conv_1", "conv_2", "dense", "logits"]
    assert history.steps.tolist() == list(range(46))


@pytest.mark.backends("tensorflow")
def test_custom_initializers(tmp_path, run_example):
    output = run_example("custom_initializers.py", tmp_path, "--epochs", "2")
    squares = [float(x) for x in re.findall(r"^  \w+ +([\d.]+)$", output, flags=re.MULTILINE)]
    assert len(squares) == 8
    # The initializers hold the signal: neither shrinking nor growing through the layers.
    assert all(0.2 < square < 3 for square in squares)
    assert "Epoch 2/2" in output


def test_deep(tmp_path, run_example):
    arguments = ("--depth", "9", "--steps", "33", "--seeds", "1", "--only", "initialize")
    output = run_example("deep.py", tmp_path, "resnet", *arguments)
    row = r"^\| resnet \| 9 \| initialize \| [\d.e-]+ \| ([\d.]+)%"
    (accuracy,) = re.findall(row, output, re.MULTILINE)
    assert float(accuracy) > 30


def test_save_and_serve(tmp_path, run_example):
    output = run_example("save_and_serve.py", tmp_path, "--epochs", "1")
    assert "The same, from raw inputs." in output


def test_separable_blocks(tmp_path, run_example):
    output = run_example("separable_blocks.py", tmp_path, "--seeds", "1", "--epochs", "3")
    accuracies = re.findall(r"^  .*? ([\d.]+)% to", output, flags=re.MULTILINE)
    defaults, _, ours = map(float, accuracies)
    assert defaults < 20 < 40 < ours


def test_tabular(tmp_path, run_example):
    output = run_example("tabular.py", tmp_path, "--epochs", "2")
    assert "The same, from raw rows." in output


def test_audit_applications(tmp_path, run_example):
    output = run_example("audit_applications.py", tmp_path, "--models", "MobileNetV2")
    assert "block_16_depthwise/kernel" in output
    assert "keras_initkit.layer_aware" in output
    assert "of 52 batch normalizations do not normalize" in output


def test_every_example_is_tested():
    tested = set(re.findall(r'run_example\("(\w+\.py)"', Path(__file__).read_text()))
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert examples - tested == {"serve.py", "textbook.py"}
    # save_and_serve.py runs the first, test_textbook.py the second.
