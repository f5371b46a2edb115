"""Every example, run as the README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_initkit import read_log
from tests import ROOT

pytestmark = pytest.mark.slow


def run_example(name, directory, *arguments):
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_existing_pipeline(tmp_path):
    output = run_example("existing_pipeline.py", tmp_path, "--epochs", "2")
    assert "conv_1" in output
    log_dir = tmp_path / "runs" / "existing_pipeline"
    assert {"best.keras", "gradients", "train", "validation"} <= {p.name for p in log_dir.iterdir()}
    history = read_log(log_dir)
    assert history.layers == ["conv_1", "conv_2", "dense", "logits"]
    assert history.steps.tolist() == [0, 10, 20, 30, 40]


def test_custom_initializers(tmp_path):
    output = run_example("custom_initializers.py", tmp_path, "--epochs", "2")
    squares = [float(x) for x in re.findall(r"^  \w+ +([\d.]+)$", output, flags=re.MULTILINE)]
    assert len(squares) == 8
    # The initializers hold the signal: neither shrinking nor growing through the layers.
    assert all(0.2 < square < 3 for square in squares)
    assert "Epoch 2/2" in output


def test_save_and_serve(tmp_path):
    output = run_example("save_and_serve.py", tmp_path, "--epochs", "2")
    assert "The same, from raw inputs." in output


def test_separable_blocks(tmp_path):
    output = run_example("separable_blocks.py", tmp_path, "--seeds", "1", "--epochs", "4")
    accuracies = re.findall(r"^  .*? ([\d.]+)% to", output, flags=re.MULTILINE)
    defaults, _, ours = map(float, accuracies)
    assert defaults < 20 < 40 < ours


def test_tabular(tmp_path):
    output = run_example("tabular.py", tmp_path, "--epochs", "5")
    assert "The same, from raw rows." in output


def test_textbook(tmp_path):
    output = run_example("textbook.py", tmp_path, "--depth", "5", "--epochs", "1")
    assert "Where training ended" in output
    assert "The rules" in output
    assert re.search(r"tensorboard --logdir runs/textbook\n", output)
    assert len(read_log(tmp_path / "runs" / "textbook" / "He_ReLU")) == 29


def test_audit_applications(tmp_path):
    output = run_example("audit_applications.py", tmp_path, "--models", "MobileNetV2")
    assert "block_16_depthwise/kernel" in output
    assert "keras_initkit.layer_aware" in output
    assert "of 52 batch normalizations do not normalize" in output


def test_every_example_is_tested():
    tested = set(re.findall(r'run_example\("(\w+\.py)"', Path(__file__).read_text()))
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert examples - tested == {"serve.py"}  # which save_and_serve.py runs
