"""The arguments of a monitor: what each means, and what is said of others."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import GradientMonitor


def settings(**arguments):
    return GradientMonitor(**arguments)._settings


@pytest.mark.parametrize(
    ("every_n_steps", "last", "steps"),
    [
        (None, 360, [*range(100), *range(100, 200, 10), *range(200, 360, 50)]),
        (1, 4, [0, 1, 2, 3]),
        (np.int64(4), 10, [0, 4, 8]),
        (lambda step: step in (1, 2, 9), 20, [1, 2, 9]),
    ],
)
def test_a_schedule(every_n_steps, last, steps):
    schedule = settings(every_n_steps=every_n_steps).schedule
    assert [step for step in range(last) if schedule(step)] == steps


ALWAYS = {"norm", "nonfinite", "clip_ratio", "local_norm"}


@pytest.mark.parametrize(
    ("statistics", "measured"),
    [
        ([], set()),
        (["zeros"], {"zeros"}),
        (("dead_units",), {"dead_units", "zeros"}),
        ({"update_ratio", "max_abs"}, {"weight_norm", "update_norm", "max_abs"}),
        (
            None,
            {"mean_abs", "max_abs", "zeros", "dead_units", "weight_norm", "update_norm"},
        ),
    ],
)
def test_the_measurements_of_statistics(statistics, measured):
    assert settings(statistics=statistics).statistics == ALWAYS | measured


def test_counts_are_integers():
    given = settings(sample_size=np.int32(8), histograms=1)
    assert (given.sample_size, given.histograms) == (8, 1)


def test_scalars_are_names_or_all_or_none():
    assert settings(scalars=False).scalars is None
    assert settings(scalars=["norm", "loss"]).scalars == ("norm", "loss")
    assert {"signal", "penalty"} < set(settings(scalars=True).scalars or ())


@pytest.mark.parametrize(
    ("argument", "values", "message"),
    [
        (
            "every_n_steps",
            [0, -1, 2.5, "10", True],
            "`every_n_steps` must be a positive integer, a function that says for a step (int) "
            "whether to record it, or None. Received: every_n_steps={!r}. Write "
            "`every_n_steps=1` to record every step.",
        ),
        (
            "log_dir",
            [7, "", b"runs", True],
            "`log_dir` must be the path or URL of a directory. Received: log_dir={!r}. Write one "
            'such as "runs/first"; without it the records are in `monitor.history` only.',
        ),
        (
            "layers",
            [3, [], ""],
            "`layers` must select layers: by a class of layers, a name or a part of a path, a "
            "compiled regular expression to be searched for in the path, a function of the layer "
            "that returns a bool, a list of these of which any may hold, or a tuple of which all "
            "must hold. Received: layers={!r}. Write for example `re.compile('conv')` for every "
            "layer with conv in its path.",
        ),
        (
            "per",
            ["model", None],
            '`per` must be one of "layer", "variable". Received: per={!r}. Write '
            '`per="variable"` to count every variable as a layer of its own.',
        ),
        (
            "statistics",
            ["zeros", ["norm"], 3],
            "`statistics` must be a list of names out of 'mean_abs', 'max_abs', 'zeros', "
            "'dead_units', 'weight_norm', 'update_ratio', or None for all. Received: "
            "statistics={!r}. Norms and counts of non-finite elements are always recorded: write "
            "`statistics=[]` for these alone.",
        ),
        (
            "sample_size",
            [-1, 2.5, "10", None, True],
            "`sample_size` must be an integer of 0 or more, the number of elements of each "
            "gradient to keep. Received: sample_size={!r}. Write `sample_size=0` for none.",
        ),
        (
            "scalars",
            [1, None, "norm", ["speed"]],
            "`scalars` must be a list of names out of 'norm', 'rms', 'signal', 'mean_abs', "
            "'max_abs', 'zeros', 'nonfinite', 'dead_units', 'raw_norm', 'clip_ratio', "
            "'local_norm', 'weight_norm', 'update_ratio', 'cosine', 'snr', 'loss', "
            "'learning_rate', 'loss_scale', 'skipped', 'batch_loss', 'penalty', 'spike', "
            "'global_norm', 'global_raw_norm', 'noise_scale'; or True for all, or False for no "
            "scalars. Received: scalars={!r}. Write `scalars=[]` for a few totals.",
        ),
        (
            "histograms",
            [10],
            "`histograms` are taken of sampled elements: `sample_size` must be positive. "
            "Received: histograms={!r}, sample_size=0. Write `sample_size=1024`.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "`" not in value else "",
)
def test_an_argument_is_checked(argument, values, message):
    for value in values:
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(value))}$"):
            GradientMonitor(**{argument: value})


def test_a_log_dir_is_a_url_or_a_path_from_here_and_now(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(settings(log_dir="memory://runs").log_dir) == "memory://runs"
    assert settings(log_dir="runs/first").log_dir == Path.cwd() / "runs/first"
    assert settings(log_dir=Path("~/runs")).log_dir == tmp_path / "runs"
    assert settings(log_dir=tmp_path).log_dir == tmp_path
    for name in ("x" * 300, "x/" * 3000, "a\0b"):
        with pytest.raises(ValueError, match=r"allows\. Received: log_dir='[xa].*shorter, plain"):
            settings(log_dir=name)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"which is a file\. Name another directory"):
        settings(log_dir=tmp_path / "file")


def test_other_backends_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(NotImplementedError, match=r'Received: backend "openvino"\. Set KERAS_BACK'):
        GradientMonitor()
