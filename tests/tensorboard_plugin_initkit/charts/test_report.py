"""A report is one file that needs nothing else, and the command makes it without Keras."""

import configparser
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from tensorboard_plugin_initkit.charts.report import report_html
from tensorboard_plugin_initkit.command import main
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.log.event_file import EventFileWriter, event_files
from tensorboard_plugin_initkit.log.gradient_log import RUN
from tensorboard_plugin_initkit.record.history import GradientHistory
from tests import ROOT
from tests.tensorboard_plugin_initkit.charts.test_charts import HOSTILE
from tests.tensorboard_plugin_initkit.record.made import dense, history_of, ones
from tests.tensorboard_plugin_initkit.support.made_logs import write

CHUNK = history_of(np.ones((3, 4)))._joined()
TWO_LINES = "from keras_initkit.callbacks import GradientMonitor"


class Page(HTMLParser):
    """Tags, what they refer to, and the text outside of scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.references, self.text, self._inside = set(), [], "", ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._inside = tag
        self.references += [value for name, value in attrs if name in ("src", "href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


def report(path, histories, findings=None, **options):
    for run, history in histories.items():
        history.findings = (findings or {}).get(run, [])
    path.write_text(report_html(histories, **options), encoding="utf-8")
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_a_report_holds_every_run_and_finding_and_refers_to_nothing_outside(tmp_path):
    findings = {
        "a": [Finding("exploding", "b", 20, "Second.", {"ratio": 12345.678})],
        "b": [Finding("large_updates", "", 10, "First.")],
        "gone": [Finding("vanishing", "layer_0", 7, "Zeroth.", {"ratio": 1e-9})],
    }
    histories = {name: history_of(np.ones((3, 4))) for name in "ab"}
    histories["gone"] = GradientHistory()  # without a record
    html, page = report(tmp_path / "r.html", histories, findings, theme="dark", notes=["A note."])
    texts = ["A note.", "ratio = 1e-9", "ratio = 12,350", "3 recorded steps, 0 to 2"]
    assert all(text in page.text for text in texts)
    # Findings are in the order of steps, and lead to the run where it is shown.
    assert "b: Does not learn. First." in page.text
    places = [page.text.rindex(message) for message in ("Zeroth.", "First.", "Second.")]
    assert places == sorted(places)
    assert "<td>large updates</td><td>all</td>" in html
    assert page.references == ["#run-0", "#run-1", "#run-1", "#run-0"]  # verdicts, findings
    assert '<a href="#run-1">b</a>' in html
    assert '<section id="run-1"><h2>b</h2>' in html
    # Depth, the difference, and for each run its map and its lines.
    assert html.count("data-root-id") == 6
    assert not {"link", "iframe"} & page.tags
    assert "default-src 'none'" in html  # the browser is told not to load anything
    assert not re.search(r"@import|url\(\s*['\"]?http", html)
    html, page = report(tmp_path / "r.html", {"run": histories["a"]})
    assert page.references == ["#run-0"]
    assert "Nothing wrong was found." in page.text


@pytest.mark.newest
def test_two_runs_are_compared_where_they_can_be(tmp_path):
    def is_compared(**others):
        _, page = report(tmp_path / "r.html", {"a": history_of(np.ones((3, 4)))} | others)
        return "b relative to a" in page.text

    same = history_of(np.ones((3, 4)))
    assert is_compared(b=same)
    assert not is_compared(b=same, c=same)
    assert not is_compared(b=history_of(np.ones((3, 1)), ["other"]))
    assert not is_compared(b=history_of(np.ones((3, 4)), steps=[10, 11, 12]))
    assert not is_compared(b=GradientHistory())


def test_hostile_names_are_text_in_a_report(tmp_path):
    findings = [Finding(name, name, 0, name, {name: 1}) for name in HOSTILE]
    histories = {name: history_of(np.ones((3, len(HOSTILE))), HOSTILE) for name in HOSTILE[:3]}
    html, page = report(tmp_path / "r.html", histories, {HOSTILE[0]: findings})
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "script", "body", "h1", "h2", "p"),
        *("table", "thead", "tbody", "tr", "th", "td", "div", "section", "details", "summary"),
        *("a", "dl", "dt", "dd"),
    }
    assert "<script>alert" not in html
    assert HOSTILE[0] in page.text
    assert "x" * 600 not in page.text


def test_an_empty_record_says_why_and_what_to_write(tmp_path):
    html, page = report(tmp_path / "r.html", {"started": GradientHistory()})
    assert "holds no recorded step: the training" in page.text
    assert TWO_LINES in page.text
    assert len(html) < 10_000  # no charts, no library
    _, page = report(tmp_path / "r.html", {})
    assert TWO_LINES in page.text


@pytest.mark.parametrize("inside", [".", "runs/first"])
def test_the_command_reads_the_logs_below_a_directory(tmp_path, monkeypatch, capsys, inside):
    monkeypatch.chdir(tmp_path)
    write("runs/first", CHUNK)
    assert main(["report", inside, "-o", "out.html"]) == 0
    assert capsys.readouterr() == (f"out.html: 1 run from {inside}\n", "")
    text = Page((tmp_path / "out.html").read_text()).text
    assert "3 recorded steps" in text
    assert "first" in text


def test_the_command_imports_neither_keras_nor_tensorflow_and_bokeh_only_to_draw(tmp_path):
    write(tmp_path / "log", CHUNK)
    script = f"""
import sys
import tensorboard_plugin_initkit.record.history
from tensorboard_plugin_initkit.command import main
assert not {{"bokeh", "keras", "tensorflow", "tensorboard"}} & set(sys.modules)
assert main(["report", {str(tmp_path / "log")!r}, "-o", {str(tmp_path / "out.html")!r}]) == 0
assert not {{"keras", "tensorflow", "keras_initkit", "torch", "jax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "out.html").exists()


def test_all_runs_below_the_directory_are_named_by_their_paths(tmp_path, capsys):
    findings = [Finding("vanishing", "layer_0", 2, "It vanishes.")]
    for name in ("a", "b/c", "b/d"):
        write(tmp_path / name, CHUNK, findings=findings)
    EventFileWriter(tmp_path / "a" / "activations")  # another log, without gradients
    EventFileWriter(tmp_path / "started" / RUN)  # which holds no step yet
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "out.html")]) == 0
    assert "4 runs" in capsys.readouterr().out
    html = (tmp_path / "out.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", html)[2:] == ["a", "b/c", "b/d", "started"]
    assert html.count("<td>It vanishes.<br>More: docs/explanations/kinds.md#vanishing</td>") == 3


def test_the_command_tells_the_findings_of_all_logs(tmp_path, capsys):
    unknown = dict.fromkeys(("loss", "batch_loss", "penalty", "spike"))
    write(tmp_path / "short", ones(dense("a"), range(12), nonfinite=0, dead_units=0, **unknown))
    write(
        tmp_path / "dead",
        ones(dense("a", "b"), range(30), nonfinite=0, norm=0, zeros=1, penalty=0, spike=None),
    )
    assert main(["findings", str(tmp_path)]) == 1
    dead, short = capsys.readouterr().out.strip().split("\n\nshort: ")
    assert dead.startswith("dead: Does not learn. No gradient: from step 0 to 10 the gradient is")
    assert "1. warning, likely: no_gradient, step 10\n" in dead
    assert short == "Too early to say: 12 of 30 steps."
    assert main(["findings", str(tmp_path), "--ignore", "no_gradient"]) == 0
    assert "No gradient" not in capsys.readouterr().out
    assert main(["findings", str(tmp_path), "--ignore", "no"]) == 2
    assert capsys.readouterr().err.startswith("keras-initkit: `ignore` must be a list of kinds")


def test_the_worst_verdict_comes_first_below_what_and_when(tmp_path, capsys):
    unknown = dict.fromkeys(("loss", "batch_loss", "penalty", "spike"))
    write(tmp_path / "a", ones(dense("a"), range(12), nonfinite=0, dead_units=0, **unknown))
    fault = [Finding("no_gradient", "a", 3, "It is zero.")]
    write(tmp_path / "b", CHUNK, findings=fault)
    assert main(["report", str(tmp_path), "-o", "-"]) == 0
    text = Page(capsys.readouterr().out).text
    parts = ["Made", "UTC", "Log directory", str(tmp_path), "keras-initkit0.1.0"]
    parts += ["b: Does not learn", "a: Too early to say", "Findings"]
    places = [text.replace("\n", "").index(part) for part in parts]
    assert places == sorted(places)


def test_the_command_is_installed_under_its_name():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    assert "keras-initkit = tensorboard_plugin_initkit.command:main" in scripts


def test_a_log_that_is_damaged_is_named_and_the_others_are_shown(tmp_path, capsys):
    for name in ("good", "bad"):
        write(tmp_path / name, CHUNK)
    (file,) = event_files(tmp_path / "bad" / RUN)
    data = bytearray(file.read_bytes())
    data[data.rindex(b"initkit/totals")] ^= 1
    file.write_bytes(data)
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "out.html")]) == 0
    told = "The log of 'bad': Left out of the log: 1 damaged part. The first: An event"
    assert told in capsys.readouterr().err
    text = Page((tmp_path / "out.html").read_text()).text
    assert told in text
    assert "good" in text
    assert main(["report", str(tmp_path / "bad"), "-o", str(tmp_path / "none.html")]) == 2
    assert "must hold whole events that match their checksums" in capsys.readouterr().err
    assert not (tmp_path / "none.html").exists()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("text"), "which is not an existing directory"),
        (lambda path: EventFileWriter(path), "which holds no log of gradients"),
    ],
    ids=["a file", "foreign"],
)
def test_a_directory_without_a_log_is_an_error_that_says_what_to_write(tmp_path, make, why):
    make(tmp_path / "log")
    command = [sys.executable, "-m", "tensorboard_plugin_initkit.command", "report", "log"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "keras-initkit: LOGDIR must be a directory that a GradientMonitor has written to, or one "
        f"above that. Received: 'log', {why}. These two lines write a log:"
    )
    assert "GradientMonitor('log')" in result.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--statistic", "nom"], "The statistic must be one of"),
        (["--statistic", "loss"], "`statistic` must be one of those of layers"),
        (["-o", "no/such/place.html"], "No such file or directory"),
    ],
)
def test_wrong_options_are_said_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write("log", CHUNK)
    assert main(["report", "log", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
