"""The log holds what the history holds, whatever becomes of it."""

import copy
import pickle
import re
import shutil
import warnings

import numpy as np
import pytest

from keras_initkit.callbacks.sink import Sink
from tensorboard_plugin_initkit.diagnosis.finding import Finding, from_json
from tensorboard_plugin_initkit.log import event_file
from tensorboard_plugin_initkit.log.gradient_log import RUN
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.log.runs import find_runs
from tensorboard_plugin_initkit.record.chunk import RECORDED, Chunk
from tensorboard_plugin_initkit.record.layout import Layout, Variable
from tests.tensorboard_plugin_initkit.support.made_logs import read_findings

LAYOUT = Layout((Variable("dense/kernel", "dense", (3, 2)),))
SAMPLES = [np.ones((1, 6), np.float32)]
FAULTS = [Finding("vanishing", "dense", step, f"at {step}") for step in (3, 40)]


def chunk_at(*steps):
    table = np.ones((len(steps), 1), np.float32)
    return Chunk(LAYOUT, np.array(steps), dict.fromkeys(RECORDED, table))


def train(sink, steps, findings=(), resumes=False):
    sink.open()
    for step in steps:
        sink.take(chunk_at(step), SAMPLES, resumes)
    sink.report(findings)
    sink.finish()


def tags(log_dir):
    (path,) = event_file.event_files(log_dir / "gradients")
    return [v.tag for event in event_file.read_events(path) for v in event.summary.value]


@pytest.mark.parametrize("histograms", [0, 1])
def test_the_log_is_the_history_at_the_end_of_every_training(tmp_path, histograms):
    sink = Sink(tmp_path, histograms=histograms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, steps in enumerate((range(40), range(40, 60))):
            train(sink, steps, FAULTS[i : i + 1])
            for history in (sink.history, read_log(tmp_path)):
                assert history.steps.tolist() == list(range(steps.stop))
                assert history.ended
            assert tags(tmp_path).count("initkit/end") == i + 1
            assert tags(tmp_path)[-1] == "initkit/end"
    assert sink.history.findings == read_log(tmp_path).findings == FAULTS
    assert [from_json(text) for text in read_findings(tmp_path)] == [FAULTS[:1], FAULTS]
    (path,) = event_file.event_files(tmp_path / "gradients")
    assert (b"log10_gradient/dense" in path.read_bytes()) == bool(histograms)
    sink.take(chunk_at(60), SAMPLES)
    sink.finish(has_ended=False)  # what records has failed, and the training goes on
    assert not sink.history.ended
    assert not read_log(tmp_path).ended


def test_nothing_is_written_without_a_log_or_without_records(tmp_path):
    train(Sink(), range(3), FAULTS)
    train(Sink(tmp_path / "log"), [])
    unopened = Sink(tmp_path / "log")
    unopened.take(chunk_at(0), SAMPLES)
    unopened.finish()
    assert not (tmp_path / "log").exists()
    assert len(unopened.history) == 1


@pytest.mark.parametrize("place", ["file/log", "/proc/initkit/log", "/dev/full/log"])
def test_a_path_that_cannot_be_written_is_one_warning_a_training_until_it_can(tmp_path, place):
    (tmp_path / "file").write_text("")
    sink = Sink(tmp_path / place)
    for steps in (range(5), range(5, 9)):
        with pytest.warns(UserWarning, match="Training goes on, and writing is tried") as caught:
            train(sink, steps, FAULTS)
        assert len(caught) == 1
    assert len(sink.history) == 9
    if place == "file/log":
        (tmp_path / "file").unlink()
        with pytest.warns(UserWarning, match="It can again, and no recorded steps are missing"):
            train(sink, range(9, 11))
        assert read_log(tmp_path / place).steps.tolist() == list(range(11))


@pytest.mark.parametrize(
    ("left", "read"), [(0, [2, 3]), (100, [2, 3]), (-500, [0, 2, 3]), (-7, [0, 1, 2, 3])]
)
def test_a_log_that_was_cut_goes_on_in_a_new_file_with_its_layout(tmp_path, left, read):
    sink = Sink(tmp_path, scalars=None)
    train(sink, range(2))
    (path,) = event_file.event_files(tmp_path / "gradients")
    path.write_bytes(path.read_bytes()[:left])
    with warnings.catch_warnings(record=True) as said:  # of the failure, too, if there was time
        warnings.simplefilter("always")
        train(sink, [2, 3])
    lost = 4 - len(read) or "no"
    text = f"was cut: .* bytes are left. It can again, and {lost} recorded"
    assert re.search(text, str(said[-1].message))
    assert len(event_file.event_files(tmp_path / "gradients")) == 2
    assert read_log(tmp_path).steps.tolist() == read


def test_a_copy_has_the_history_and_a_log_of_its_own(tmp_path):
    sink = Sink(tmp_path)
    train(sink, range(3), FAULTS)
    for copied in (copy.deepcopy(sink), pickle.loads(pickle.dumps(sink))):
        assert copied.history.findings == FAULTS
        train(copied, range(3, 4), resumes=True)
        assert copied.history.steps.tolist() == [0, 1, 2, 3]
    read = {run.name: read_log(run).steps.tolist() for run in tmp_path.iterdir()}
    assert read == {"gradients": [0, 1, 2], "gradients_2": [3], "gradients_3": [3]}


def test_no_training_hides_another_in_one_directory(tmp_path):
    def runs():
        paths = find_runs(tmp_path, RUN).values()
        return {path.name: read_log(path).steps.tolist() for path in paths if any(path.iterdir())}

    train(Sink(tmp_path, scalars=None), range(4))
    again = Sink(tmp_path, scalars=None)
    train(again, range(3))
    train(again, range(3, 5), resumes=True)
    assert runs() == {"gradients": [0, 1, 2, 3], "gradients_2": [0, 1, 2, 3, 4]}
    for steps in (range(5, 7), range(9, 12), range(10, 13)):  # in other processes
        other = Sink(tmp_path, scalars=None)
        other.open()
        other.report(FAULTS)  # before it is known whether the training is resumed
        train(other, steps, resumes=True)
    last = read_log(tmp_path)
    assert last.steps.tolist() == runs()["gradients_2"] == [*range(7), *range(9, 13)]
    gap, several = last.notes
    assert gap == "Steps 7 to 8 are not in the log: the training stopped and resumed."
    assert several.startswith(f"This is the last of 2 trainings in '{tmp_path}': '{tmp_path}/gra")
    shutil.rmtree(tmp_path / "gradients")
    (tmp_path / "gradients_7").mkdir()
    assert read_log(tmp_path).notes == [gap]
    train(Sink(tmp_path, scalars=None), range(2))
    assert list(runs()) == ["gradients_2", "gradients_8"]
