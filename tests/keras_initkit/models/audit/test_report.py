"""The result of an audit in all its forms, from rows made by hand."""

import io
import json
import re
import sys

import pytest

from keras_initkit.models.audit.report import Audit, WeightAudit
from tensorboard_plugin_initkit.diagnosis.finding import Finding, Severity
from tensorboard_plugin_initkit.diagnosis.fix import Fix

pytestmark = pytest.mark.backends("tensorflow", "torch")


def found(kind: str, severity: Severity = "warning", fix: str = "") -> Finding:
    return Finding(kind, "a", None, f"`a` has a fault: {kind}.", severity=severity, fix=Fix(fix))


def kernel(path, *findings, variance=1.0, fans=(64.0, 64.0)):
    given = ("Dense", (64, 64), "kernel", "GlorotUniform", (64.0, 64.0))
    return WeightAudit(path, *given, fans, variance, 2.0, "relu", findings)


def bias(path):
    return WeightAudit(path, "Dense", (64,), "bias", "Zeros")


ZERO = found("zero", "error", "no signal passes: kernel_initializer=HeNormal()")
RESULT = Audit(
    "net",
    [
        kernel("b/kernel"),
        bias("b/bias"),
        kernel("a/kernel", ZERO, found("fans", "note"), variance=0.0, fans=(9.0, 9.0)),
        bias("a/bias"),
    ],
)
SUMMARY = "4 weights, 1 error, 0 warnings, 0 notes (fans 1, zero 1)"


def test_a_row_is_as_bad_as_its_worst_finding():
    row = RESULT.rows[2]
    assert (row.kinds, row.severity) == (("zero", "fans"), "error")
    assert row.fix == "no signal passes: kernel_initializer=HeNormal()"
    assert kernel("c/kernel", found("scale", fix="one"), found("same", fix="two")).fix == "one; two"
    assert (bias("c/bias").severity, bias("c/bias").fix) == ("ok", "")


def test_problems_are_warnings_and_errors():
    rows = [kernel("a", found("zero", "note")), kernel("b", found("zero")), kernel("c", ZERO)]
    assert [row.path for row in Audit("net", rows).problems] == ["b", "c"]


def test_as_dicts_for_json():
    dicts = RESULT.to_dict()
    assert json.loads(json.dumps(dicts)) == dicts
    assert [row["path"] for row in dicts] == [row.path for row in RESULT]
    as_it_is = ("path", "layer", "role", "initializer", "variance", "intended", "follows", "fix")
    assert dicts[2] == {name: getattr(RESULT.rows[2], name) for name in as_it_is} | {
        "shape": [64, 64],
        "keras_fans": [64.0, 64.0],
        "true_fans": [9.0, 9.0],
        "findings": ["zero", "fans"],
        "severity": "error",
    }


def test_as_a_dataframe():
    pytest.importorskip("pandas")
    frame = RESULT.to_dataframe()
    assert list(frame.columns) == list(RESULT.to_dict()[0])
    assert frame.to_dict("records")[2] == RESULT.rows[2].to_dict()


def test_a_notebook_shows_the_table():
    html = RESULT._repr_html_()
    assert html.count("<tr>") == 1 + len(RESULT._shown)
    assert "What to do:" in html


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    message = (
        "`to_dataframe` needs pandas, which is not installed. Install it: "
        "`pip install keras-initkit[report]`. Without it there is `to_dict`."
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        RESULT.to_dataframe()


def test_as_text():
    assert str(RESULT).splitlines() == [
        f"net: {SUMMARY}",
        "weight    initializer    fans                variance  intended  follows  findings",
        "a/kernel  GlorotUniform  9/9 (Keras: 64/64)  0         2         relu     "
        "error: zero, fans",
        "b/kernel  GlorotUniform  64/64               1         2         relu     ok",
        "Not shown: 2 weights without findings, none of them a kernel.",
        "What to do:",
        "- a/kernel: no signal passes: kernel_initializer=HeNormal()",
    ]
    assert repr(RESULT) == f"<Audit of 'net': {SUMMARY}>"
    assert RESULT.summary == SUMMARY
    assert len(RESULT) == len(RESULT.rows) == 4


def test_a_fix_that_several_weights_need_is_printed_once():
    rows = [
        kernel(path, found("scale", fix=f"reinitialize(model, {{{path!r}: HeNormal()}})"))
        for path in ("a/kernel", "b/kernel", "c/kernel", "d/kernel")
    ]
    expected = "- a/kernel, b/kernel and 2 more: reinitialize(model, {path: HeNormal()})"
    assert str(Audit("net", rows)).splitlines()[-1] == expected


def test_as_a_table_of_rich():
    console = pytest.importorskip("rich.console").Console(width=200, file=io.StringIO())
    console.print(RESULT)
    text = console.file.getvalue()
    for part in (f"net: {SUMMARY}", "error: zero, fans", "a/kernel", "What to do:"):
        assert part in text
