"""What becomes of findings: `on_finding` and `ignore`."""

import re

import keras
import numpy as np
import pytest

from keras_initkit import Finding
from keras_initkit.callbacks import FindingError, GradientMonitor, GradientWarning

layers = keras.layers
# Nothing here depends on the backend; on PyTorch it is quickest.
pytestmark = pytest.mark.backends("torch")


def train(monitor, epochs=1, of_fit=0):
    """Train weights of zeros, which learn nothing; return the number of batches."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "relu", kernel_initializer="zeros"),
            layers.Dense(8, "relu", kernel_initializer="zeros"),
            layers.Dense(1, kernel_initializer="zeros"),
        ]
    )
    model.compile("sgd", "mse")
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(0))
    x = np.random.default_rng(0).normal(size=(320, 4))
    model.fit(x, x[:, :1], 8, epochs=epochs, verbose=of_fit, callbacks=[monitor, count])
    return len(batches)


def test_a_warning_tells_what_is_seen_and_training_goes_on():
    monitor = GradientMonitor()
    with pytest.warns(GradientWarning) as caught:
        assert train(monitor) == 40
    said = [warning for warning in caught if warning.category is GradientWarning]
    texts = [f.text for f in monitor.findings if f.severity != "note"]
    assert [str(warning.message) for warning in said] == texts
    assert all(warning.filename == __file__ for warning in said)


def test_a_fault_stops_the_training():
    monitor = GradientMonitor(on_finding="stop")
    with pytest.warns(GradientWarning):
        assert train(monitor, epochs=5) < 200
    assert monitor.findings


def test_a_fault_is_raised_and_the_record_is_whole():
    monitor = GradientMonitor(on_finding="raise")
    with pytest.raises(FindingError, match="begin with the same value") as raised:
        train(monitor, epochs=5)
    finding = raised.value.finding
    assert finding in monitor.findings
    assert monitor.history.steps[-1] >= finding.step


def test_a_function_gets_each_finding_and_its_error_is_the_users():
    found: list[Finding] = []
    monitor = GradientMonitor(on_finding=found.append)
    assert train(monitor) == 40
    assert found == [f for f in monitor.findings if f.severity != "note"]

    def fail(finding):
        raise KeyError(finding.kind)

    with pytest.raises(KeyError, match=found[0].kind):
        train(GradientMonitor(on_finding=fail))


def test_kinds_that_are_ignored_are_not_said():
    with pytest.warns(GradientWarning):
        train(monitor := GradientMonitor())
    kinds = [finding.kind for finding in monitor.findings]
    with pytest.warns(GradientWarning, match="No gradient: "):
        assert train(ignoring := GradientMonitor(ignore=kinds)) == 40
    assert kinds == ["equal_weights"]
    assert [finding.kind for finding in ignoring.findings] == ["no_gradient"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_finding": "mail"}, "`on_finding` must be one of .*'mail'"),
        ({"ignore": ["vanish"]}, r"`ignore` must be a list of kinds .* Received: 'vanish'\."),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        GradientMonitor(**arguments)


@pytest.mark.parametrize(("verbose", "of_fit", "lines"), [(None, 0, 0), (None, 2, 1), (True, 0, 1)])
def test_one_line_at_the_end_says_what_there_is_and_how_to_see_it(
    tmp_path, monkeypatch, capsys, verbose, of_fit, lines
):
    monkeypatch.chdir(tmp_path)
    monitor = GradientMonitor("runs/a b", on_finding=lambda finding: None, verbose=verbose)
    train(monitor, of_fit=of_fit)
    said = [line for line in capsys.readouterr().out.splitlines() if "Monitor" in line]
    assert len(said) == lines
    for line in said:
        assert line.startswith(
            "GradientMonitor: 40 recorded steps of 3 layers, steps 0 to 39 in runs/a b/gradients. "
            "Does not learn. "
        )
        assert line.endswith("To see it: `tensorboard --logdir 'runs/a b'`")
    assert "Does not learn. " in monitor._repr_html_()
