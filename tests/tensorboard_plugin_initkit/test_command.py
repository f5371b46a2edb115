"""The command line: what it writes, and its exit status."""

import csv
import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_initkit
from tensorboard_plugin_initkit.command import main
from tensorboard_plugin_initkit.log.read_log import read_log
from tests import ROOT
from tests.tensorboard_plugin_initkit.record.made import dense, random_chunk
from tests.tensorboard_plugin_initkit.support.made_logs import write


def test_a_table_has_the_numbers_of_all_runs(tmp_path, capsys):
    for name in ("a", "b"):
        write(tmp_path / name, random_chunk(dense("x", "y"), [0, 5], len(name), nonfinite=0))
    assert main(["csv", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    head, *rows = csv.reader(io.StringIO(text))
    assert head == ["run", "step", "layer", "norm", "signal"]
    assert [row[:3] for row in rows[:3]] == [["a", "0", "x"], ["a", "0", "y"], ["a", "5", "x"]]
    norms = np.array([row[3] for row in rows[4:]], float).reshape(2, 2)
    np.testing.assert_array_equal(norms, read_log(tmp_path / "b")["norm"])
    assert main(["csv", str(tmp_path), "-o", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_bytes().decode() == text
    capsys.readouterr()
    assert main(["csv", str(tmp_path), "--statistics", "nom"]) == 2
    assert capsys.readouterr().out == ""
    assert main(["csv", str(tmp_path), "-o", str(tmp_path / "no" / "t.csv")]) == 2
    told = f"Received: '{tmp_path}/no/t.csv': No such file or directory. Name another file."
    assert told in capsys.readouterr().err


def test_findings_as_json_and_as_an_exit_status(tmp_path, capsys):
    write(tmp_path / "a", random_chunk(dense("x", "y"), range(4), spike=np.nan))
    assert main(["findings", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["a"]["findings"][0]["kind"] == "nonfinite"
    assert main(["findings", str(tmp_path), "--ignore", "nonfinite"]) == 0


def test_an_audit_of_a_saved_model(tmp_path, capsys):
    layers = [keras.layers.Dense(8, "relu", kernel_initializer="zeros") for _ in range(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.save(tmp_path / "m.keras")
    assert main(["audit", str(tmp_path / "m.keras")]) == 1
    assert capsys.readouterr().out == f"{keras_initkit.audit(model)}\n"
    assert main(["audit", str(tmp_path / "m.keras"), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 4
    (tmp_path / "text.keras").write_text("none")
    for name, why in (("no", "which does not exist. Write"), ("text", "not readable: ")):
        assert main(["audit", str(tmp_path / f"{name}.keras")]) == 2
        told = f"a file that Keras has written. Received: '{tmp_path}/{name}.keras', {why}"
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("report", ["report.html", "signal", "auto"]),
        ("findings", ["none"]),
        ("csv", ["norm signal"]),
    ],
)
def test_help_names_defaults(capsys, name, defaults):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(f"(default: {default})" in told for default in defaults)


@pytest.mark.backends("torch")
def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "keras_initkit", "--version"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == f"{keras_initkit.__version__}\n"
