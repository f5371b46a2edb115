"""Faults that rules find in these tests are told in plain words, with cause and what to change."""

import re

import pytest

from tensorboard_plugin_initkit.diagnosis.finding import Finding

# They are told as consequences alone.
BARE = ("no_better_than_guessing", "constant_loss")
JARGON = re.compile(r"\b(nats|sds?|RMS|norm of)\b|(the|of their) norm\b")


@pytest.fixture(autouse=True)
def whole_findings(monkeypatch):
    found, initialize = [], Finding.__init__

    def keep(finding, *args, **kwargs):
        initialize(finding, *args, **kwargs)
        found.append(finding)

    monkeypatch.setattr(Finding, "__init__", keep)
    yield
    for finding in found:
        is_whole = finding.cause and finding.fix
        assert is_whole or finding.severity == "note" or finding.kind in BARE, finding
        assert not JARGON.search(finding.text)
