"""What the page of the tab is answered, by a real TensorBoard."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import gzip
import io
import json
import math
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import bokeh
import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from werkzeug.test import Client

from tensorboard_plugin_initkit.charts.scales import SCALES
from tensorboard_plugin_initkit.diagnosis.finding import Finding, to_json
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.kinds import explain
from tensorboard_plugin_initkit.log import gradient_log as log
from tensorboard_plugin_initkit.log.event_file import EventFileWriter
from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record import layout
from tensorboard_plugin_initkit.record.chunk import RECORDED
from tensorboard_plugin_initkit.tab import payloads, web
from tensorboard_plugin_initkit.tab.loader import InitkitLoader
from tests.tensorboard_plugin_initkit.record.made import dense, random_chunk
from tests.tensorboard_plugin_initkit.support.application import BASE, application
from tests.tensorboard_plugin_initkit.support.made_logs import write
from tests.tensorboard_plugin_initkit.support.tensorboard import loads

HOSTILE = ["=HYPERLINK(1)", "+1", "@x", "-x", "\tx", "\rx", 'with "quotes", commas', "x" * 10_000]
HOSTILE += ["\n=1", "＝1", "＋1", "－1", "＠x", "<script>alert(1)</script>", "line\nbreak", "مرحبا"]
HOSTILE += ["\ud800"]
RUN_NAME = "run & <b>, مرحبا"
chunk_of = functools.partial(random_chunk, nonfinite=0)

LAYERS = [f"block/dense_{i}" for i in range(4)]
FINDINGS = [
    Finding(
        "vanishing",
        LAYERS[0],
        30,
        "Far less.",
        {"ratio": 1.23456789e-9, "at": math.inf},
        fix=Fix("Draw wider."),
    ),
    Finding("zero", "", 10, "All <b>zero</b>.", {}),
]


def make_logs(root: Path) -> None:
    layout = dense(*LAYERS, types=("Dense", "Conv2D"))
    writer = LogWriter(root / "first")
    writer.write(chunk_of(layout, range(0, 100, 2)))
    writer.write(chunk_of(layout, range(100, 160, 2)))
    writer.write_findings(to_json(FINDINGS[:1]), 30)
    writer.write_findings(to_json(FINDINGS), 100)  # all that are known, each time
    writer.end()
    write(root / "second", chunk_of(dense(*LAYERS[1:]), range(50, 200)))
    others: Any = dict.fromkeys(set(RECORDED) - {"norm", "nonfinite"})
    write(root / "norm_only", chunk_of(dense("a", "b"), range(9), **others))
    write(root / RUN_NAME, chunk_of(dense(*HOSTILE), range(9)))
    LogWriter(root / "empty").write_findings(to_json([]), 0)
    writer = LogWriter(root / "bad_findings")
    writer.write(chunk_of(dense("a"), range(9)))
    writer.write_findings('{"version": 99}', 0)
    writer.end()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs")
    make_logs(root)
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Client:
    return application(root)


def get(client: Client, route: str, **query: Any) -> Any:
    """The answer as JSON, which must be valid."""
    response = client.get(f"{BASE}{route}?{urllib.parse.urlencode(query, doseq=True)}")
    assert response.status_code == 200, response.text
    assert response.content_type == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return loads(response.data)


def error(client: Client, url: str) -> tuple[int, str]:
    response = client.get(f"{BASE}{url}")
    assert response.content_type == "application/json", response.data
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    content = loads(response.data)
    assert list(content) == ["error"]
    return response.status_code, content["error"]


def chart(client: Client, view: str, *runs: str, **options: Any) -> Any:
    runs = tuple(f"{run}/{log.RUN}" for run in runs)
    return get(client, "/chart", view=view, run=runs, **options)


def sources(answer: Any) -> dict[str, Any]:
    """Data of the named sources of a chart, as a page has them."""
    document = Document.from_json(answer["item"]["doc"])
    found = document.select({"type": ColumnDataSource})
    return {source.name: source.data for source in found if source.name}


# Runs


def test_the_verdicts_are_of_all_runs_that_can_be_read(client: Client) -> None:
    verdicts = get(client, "/verdicts")
    assert {"first/gradients", "second/gradients"} <= verdicts.keys()
    assert "empty/gradients" not in verdicts
    for name, verdict in verdicts.items():
        assert verdict == get(client, "/run", run=name)["verdict"]


def test_runs_are_listed(client: Client) -> None:
    answer = get(client, "/runs")
    names = ["bad_findings", "empty", "first", "norm_only", RUN_NAME, "second"]
    assert [run["title"] for run in answer["runs"]] == names
    assert [run["name"] for run in answer["runs"]] == [f"{name}/gradients" for name in names]
    assert len({run["state"] for run in answer["runs"]}) == len(names)
    assert answer["bokeh"] == bokeh.__version__
    assert answer["version"].endswith(f", schema {layout.SCHEMA_VERSION}")
    assert set(answer) == {"version", "bokeh", "runs", "notes"}
    found = [run["title"] for run in answer["runs"] if run["has_findings"]]
    assert found == ["bad_findings", "empty", "first"]
    assert get(client, "/runs") == answer


def test_a_directory_without_our_logs_says_why_there_is_nothing(tmp_path: Path) -> None:
    why = "No run in this log directory was recorded by a GradientMonitor. The directory holds "
    answer = get(application(tmp_path), "/runs")
    assert (answer["runs"], answer["why"]) == ([], f"{why}no run at all.")
    scalar = Summary(value=[Summary.Value(tag="loss", simple_value=1.0)])
    event = Event(step=1, wall_time=1.0, summary=scalar).SerializeToString()
    for name in ("train", "validation"):
        EventFileWriter(tmp_path / name).write([event])
    answer = get(application(tmp_path), "/runs")
    assert (answer["runs"], answer["why"]) == ([], f"{why}2 runs without gradients.")


def test_a_run_is_described(client: Client, root: Path) -> None:
    answer = get(client, "/run", run="first/gradients")
    (listed,) = (r for r in get(client, "/runs")["runs"] if r["title"] == "first")
    assert listed.pop("has_findings") is True
    assert listed.pop("colour").keys() == {"light", "dark"}
    assert listed.items() <= answer.items()
    numbers = {name: answer[name] for name in ("records", "first", "last", "thinned")}
    assert numbers == {"records": 80, "first": 0, "last": 158, "thinned": False}
    assert answer["layers"] == [
        {"path": path, "type": kind}
        for path, kind in zip(LAYERS, ["Dense", "Conv2D"] * 2, strict=True)
    ]
    assert answer["optimizers"] == [""]
    assert [item["name"] for item in answer["statistics"]] == list(SCALES)
    assert answer["statistics"][1] == {"name": "rms", **SCALES["rms"]._asdict()}
    vanishing, zero = (
        dataclasses.asdict(f)
        | {"consequences": [], "fix": str(f.fix), "explanation": explain(f.kind)}
        for f in FINDINGS
    )
    vanishing["evidence"] = {"ratio": "1.235e-9", "at": "inf"}
    assert answer["findings"] == [zero, vanishing]
    verdict = answer["verdict"]
    assert verdict == {
        "level": "warning",  # the loss falls
        "text": f"Learns, but something is wrong. {zero['message']}",
        "fix": zero["fix"],
        "cause": zero["cause"],
        "explanation": zero["explanation"],
    }
    assert vanishing["explanation"][0].startswith("Seen: ")
    assert answer["notes"] == []


def test_names_of_any_kind_arrive_as_they_are(client: Client) -> None:
    answer = get(client, "/run", run=f"{RUN_NAME}/gradients")
    assert (answer["name"], answer["title"]) == (f"{RUN_NAME}/gradients", RUN_NAME)
    assert [layer["path"] for layer in answer["layers"]] == HOSTILE


def test_findings_that_cannot_be_read_are_a_note(client: Client) -> None:
    answer = get(client, "/run", run="bad_findings/gradients")
    assert answer["findings"] == []
    (note,) = answer["notes"]
    assert note.startswith("The log 'bad_findings' cannot be read: The findings of a log must")
    assert chart(client, "map", "bad_findings")["notes"] == [note]


# Charts


@pytest.mark.newest
def test_a_column_of_several_records_is_what_was_asked_for(client: Client, root: Path) -> None:
    answer = chart(client, "map", "first", how="min", columns=8, statistic="norm")
    (image,) = sources(answer)["data-cells"]["image"]
    blocks = read_log(root / "first")["norm"].reshape(8, 10, 4)
    np.testing.assert_allclose(image.T, blocks.min(axis=1), rtol=1e-6)


@pytest.mark.newest
def test_a_zoom_changes_data_and_not_the_structure(client: Client) -> None:
    for view, *runs in (("map", "first"), ("lines", "first"), ("difference", "first", "second")):
        whole = chart(client, view, *runs)
        part = chart(client, view, *runs, first=60, last=90, columns=5)
        assert whole["key"] == part["key"]
        assert set(sources(whole)) == set(sources(part))
        changing = [name for name in sources(whole) if name.startswith("data-")]
        assert changing
        assert json.dumps(whole["item"]["doc"]) != json.dumps(part["item"]["doc"])


@pytest.mark.newest
def test_what_changes_the_structure_changes_the_key(client: Client) -> None:
    asked = [("map", word) for word in ("", "statistic=norm", "how=min", "theme=dark", "low=1e-3")]
    asked += [("map", "filter=conv2d"), ("depth", ""), ("depth", "step=0")]
    asked += [("lines", word) for word in ("", "smoothing=0.5", *(f"layer={x}" for x in LAYERS))]
    keys = [
        chart(client, view, "first", **dict(urllib.parse.parse_qsl(words)))["key"]
        for view, words in asked
    ]
    keys.append(chart(client, "map", "second")["key"])
    assert len(set(keys)) == len(keys)


@pytest.mark.newest
def test_a_filter_is_of_words_in_path_or_type(client: Client) -> None:
    def shown(words: str) -> int:
        answer = chart(client, "map", "first", filter=words)
        return len(sources(answer)["data-cells"]["image"][0])

    assert shown("CONV2D") == 2
    assert shown(" dense_1  Block ") == 1
    assert shown("dense") == 4
    for view in ("map", "depth", "lines"):
        query = urllib.parse.urlencode({"view": view, "run": "first/gradients", "filter": "x y"})
        assert error(client, f"/chart?{query}") == (
            400,
            "No layer has all of these words in its name or type: 'x y'. Use fewer or other words.",
        )


@pytest.mark.newest
def test_lines_are_of_ten_layers_of_those_that_are_left(tmp_path: Path) -> None:
    layers = [f"{'odd' if i % 2 else 'even'}_{i}" for i in range(60)]
    LogWriter(tmp_path / "x").write(chunk_of(dense(*layers), range(5)))
    answer = chart(application(tmp_path), "lines", "x", filter="odd")
    text = json.dumps(answer)
    assert len(set(re.findall(r"odd_\d+", text))) == 10
    assert {"odd_1", "odd_59"} <= set(re.findall(r"odd_\d+", text))
    assert "even_" not in text


@pytest.mark.newest
def test_a_layer_that_is_gone_is_a_note(client: Client) -> None:
    answer = chart(client, "lines", "first", layer=["gone", LAYERS[2], "x" * 99])
    assert answer["notes"] == [
        f"Layers that this run does not have: gone, {'x' * 24}…{'x' * 23}.",
    ]
    assert LAYERS[2] in json.dumps(answer["item"])
    assert LAYERS[1] not in json.dumps(answer["item"])
    answer = chart(client, "lines", "first", layer=["a", "b", "c", "d", "e"])
    assert answer["notes"] == ["Layers that this run does not have: a, b, c and 2 more."]


def test_only_what_was_recorded_is_offered(client: Client) -> None:
    answer = get(client, "/run", run="norm_only/gradients")
    names = [item["name"] for item in answer["statistics"]]
    assert names == ["signal", "rms", "norm", "nonfinite"]
    answer = chart(client, "map", "norm_only", statistic="cosine")
    assert answer["notes"] == [
        "'cosine with the previous gradient' was not recorded in 'norm_only'."
    ]


@pytest.mark.newest
def test_columns_are_bounded_for_many_layers(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "_MOST_PIXELS", 40)
    monkeypatch.setattr(payloads, "_FEWEST_COLUMNS", 3)
    answer = chart(client, "map", "first", columns=3999)
    assert len(sources(answer)["data-columns"]["first"]) == 10
    monkeypatch.setattr(payloads, "_MOST_PIXELS", 1)
    answer = chart(client, "map", "first", columns=3998)
    assert len(sources(answer)["data-columns"]["first"]) == 3


@pytest.mark.newest
def test_a_picture_is_drawn_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, drawn = application(root), []
    draw = payloads.chart

    def noted(parameters: Any, *args: Any) -> bytes:
        drawn.append(parameters.view)
        return draw(parameters, *args)

    monkeypatch.setattr(payloads, "chart", noted)
    first = chart(client, "map", "first")
    assert chart(client, "map", "first", columns=1200, theme="light") == first
    assert drawn == ["map"]
    chart(client, "map", "first", how="min")
    assert drawn == ["map", "map"]


def test_an_answer_is_compressed_where_the_browser_takes_it(client: Client) -> None:
    url = f"{BASE}/chart?view=map&run=first/gradients"
    plain = client.get(url)
    packed = client.get(url, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["Cache-Control"] == "no-cache, must-revalidate"


# Errors

CHART = "view=map&run=first/gradients"
GARBAGE = [
    ("/run", "`run` must be given. Received: no such parameter."),
    ("/run?run=a&run=b", "`run` must be given once. Received: 2 values."),
    ("/run?run=a&x=1", "A parameter must be one of `run`. Received: 'x'."),
    ("/csv?run=first/gradients&how=max", "A parameter must be one of `run`, `statistic`, "
     "`first`, `last`, `filter`. Received: 'how'."),
    ("/chart", "`view` must be given once. Received: 0 values."),
    ("/chart?view=pie", '`view` must be one of "map", "difference", "depth", "lines". '
     "Received: view='pie'."),
    (f"/chart?{CHART}&run=b", "`run` must be given 1 times for the view 'map'. Received: 2 runs."),
    ("/chart?view=difference&run=b", "`run` must be given 2 times for the view 'difference'. "
     "Received: 1 runs."),
    ("/chart?view=depth" + 101 * "&run=b", "`run` must be given 1 to 100 times for the view "
     "'depth'. Received: 101 runs."),
    (f"/chart?{CHART}&columns=0", "`columns` must be an integer from 1 to 4000. "
     "Received: columns='0'."),
    (f"/chart?{CHART}&columns=1e3", "`columns` must be an integer from 1 to 4000. "
     "Received: columns='1e3'."),
    (f"/chart?{CHART}&columns={'9' * 5000}", "`columns` must be an integer from 1 to 4000. "
     f"Received: columns='{'9' * 79}…'."),
    (f"/chart?{CHART}&last=%D9%A3", "`last` must be an integer from 0 to 281474976710656. "
     "Received: last='٣'."),
    (f"/chart?{CHART}&first=7&last=6", "`first` must not be larger than `last`. "
     "Received: first=7, last=6."),
    (f"/chart?{CHART}{'&step=1' * 21}", "`step` must be given at most 20 times. Received: 21."),
    (f"/chart?{CHART}&high=inf", "`high` must be a finite number. Received: high='inf'."),
    (f"/chart?{CHART}&high=x", "`high` must be a finite number. Received: high='x'."),
    (f"/chart?{CHART}&low=0", "The colour range must go from a lower to a higher number, above 0 "
     "if logarithmic. Received: 0 to 10. Write for example 1e-6 to 1."),
    (f"/chart?{CHART}&high=1e-10", "The colour range must go from a lower to a higher number, "
     "above 0 if logarithmic. Received: 1e-09 to 1e-10. Write for example 1e-6 to 1."),
    (f"/chart?{CHART}&smoothing=1", "`smoothing` must be at least 0 and less than 1. "
     "Received: smoothing='1'."),
    (f"/chart?{CHART}&how=<b>", '`how` must be one of "max", "min", "mean". '
     "Received: how='<b>'."),
    (f"/chart?{CHART}&filter={'x' * 1001}", "`filter` must be at most 1000 characters long. "
     "Received: 1001."),
    (f"/chart?{CHART}&statistic=loss", "`statistic` must be one of "
     + ", ".join(f'"{name}"' for name in SCALES) + ". Received: statistic='loss'."),
    (f"/chart?{CHART}&path=/etc/passwd", "A parameter must be one of `view`, `run`, `statistic`, "
     "`how`, `columns`, `first`, `last`, `low`, `high`, `filter`, `layer`, `smoothing`, `step`, "
     "`theme`, `height`, `beside`. Received: 'path'."),
]  # fmt: skip


@pytest.mark.parametrize(("url", "sentence"), GARBAGE)
def test_a_wrong_parameter_is_explained(client: Client, url: str, sentence: str) -> None:
    assert error(client, url) == (400, sentence)


@pytest.mark.parametrize("name", ["first", "", "../../etc/passwd"])
def test_a_run_that_is_not_there_is_not_found(client: Client, name: str) -> None:
    expected = 404, f"TensorBoard no longer has the run {name!r}. Choose another."
    for route in ("/run?", "/csv?", "/chart?view=map&", "/chart?view=depth&"):
        assert error(client, f"{route}run={urllib.parse.quote(name)}") == expected


def test_a_run_without_records_is_not_found_with_the_reason(client: Client) -> None:
    for url in ("/run?run=empty/gradients", "/chart?view=lines&run=empty/gradients"):
        code, sentence = error(client, url)
        assert code == 404
        assert sentence.startswith("The log 'empty' holds no recorded step: ")


def test_a_log_of_another_version_is_an_error_and_others_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(layout, "SCHEMA_VERSION", 99)
        LogWriter(tmp_path / "other").write(chunk_of(dense("a"), range(5)))
    write(tmp_path / "mine", chunk_of(dense("a"), range(5)))
    client = application(tmp_path)
    assert [run["title"] for run in get(client, "/runs")["runs"]] == ["mine", "other"]
    sentence = (
        f"The log 'other' cannot be read: The layout of a log must have version "
        f"{layout.SCHEMA_VERSION}. Received: version 99. Read it with the keras-initkit that "
        "wrote it."
    )
    difference = "/chart?view=difference&run=mine/gradients&"
    for route in ("/run?", "/csv?", "/chart?view=map&", difference):
        assert error(client, f"{route}run=other/gradients") == (500, sentence)
    assert chart(client, "map", "mine")["notes"] == []
    answer = chart(client, "depth", "mine", "other")
    assert answer["notes"] == [sentence]
    assert len(json.dumps(answer["item"])) == len(
        json.dumps(chart(client, "depth", "mine")["item"])
    )


def test_a_fault_of_our_own_is_an_answer(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(payloads, "overview", fail)
    code, sentence = error(application(root), "/run?run=first/gradients")
    assert (code, sentence) == (500, "ZeroDivisionError: by nothing")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_get_is_answered(client: Client, method: str) -> None:
    for route in ("/runs", "/run", "/chart", "/csv", "/static/index.js"):
        response = client.open(f"{BASE}{route}", method=method)
        assert response.status_code == 405
        assert response.headers["Allow"] == "GET, HEAD"
        sentence = f"The method must be GET or HEAD. Received: {method}."
        assert loads(response.data) == {"error": sentence}


def test_head_is_answered_as_get_without_the_content(client: Client) -> None:
    for route in ("/runs", "/run?run=first/gradients", "/run?run=gone", "/static/index.js"):
        head, got = client.head(BASE + route), client.get(BASE + route)
        assert (head.status_code, head.data) == (got.status_code, b"")
        assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert client.head(f"{BASE}/csv?run=first/gradients").status_code == 200


def test_a_sample_is_said_wherever_it_is_shown(root: Path) -> None:
    client = application(root, samples=1)
    (note,) = get(client, "/run", run="first/gradients")["notes"]
    assert note.startswith(
        "TensorBoard keeps only a random sample of this log: 1 of its blocks of steps."
    )
    assert chart(client, "map", "first")["notes"] == [note]
    assert get(client, "/run", run="first/gradients")["records"] == 30
    assert get(application(root, samples=0), "/run", run="first/gradients")["notes"] == []


# Tables


def table(client: Client, **query: Any) -> list[list[str]]:
    response = client.get(f"{BASE}/csv?{urllib.parse.urlencode(query)}")
    assert response.status_code == 200, response.text
    assert response.content_type == "text/csv; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return list(csv.reader(io.StringIO(response.text, newline="")))


def test_a_table_has_the_exact_numbers(
    client: Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "_BLOCK", 50)  # of which there are several
    head, *rows = table(client, run="first/gradients", statistic="cosine")
    history = read_log(root / "first")
    assert head == ["step", *LAYERS]
    assert [int(row[0]) for row in rows] == history.steps.tolist()
    values = np.array([[float(text) for text in row[1:]] for row in rows])
    np.testing.assert_array_equal(values, history["cosine"])


def test_a_table_is_of_the_range_and_the_layers_that_are_seen(client: Client) -> None:
    head, *rows = table(client, run="first/gradients", first=99, last=104, filter="conv2d block")
    assert head == ["step", LAYERS[1], LAYERS[3]]
    assert [row[0] for row in rows] == ["100", "102", "104"]
    assert len(table(client, run="first/gradients", first=999)) == 1


def test_a_table_runs_no_formula_and_has_a_plain_file_name(client: Client) -> None:
    (head, *_) = table(client, run=f"{RUN_NAME}/gradients")
    expected = [f"'{name}" if name[0] in "=+@-\t\r\n＝＋－＠" else name for name in HOSTILE]
    assert head == ["step", *(name.replace("\ud800", "?") for name in expected)]
    assert sum(name.startswith("'") for name in head) == 11
    response = client.get(f"{BASE}/csv?run={urllib.parse.quote(RUN_NAME)}/gradients")
    assert response.headers["Content-Disposition"] == 'attachment; filename="run-b-signal.csv"'
    response.close()


def test_a_table_that_is_too_large_says_what_to_do(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "_MOST_CELLS", 319)
    assert error(client, "/csv?run=first/gradients") == (
        400,
        "A table must have at most 319 numbers. Received: 80 steps of 4 layers. "
        "Zoom in, or filter layers.",
    )
    monkeypatch.setattr(payloads, "_MOST_CELLS", 320)
    assert len(table(client, run="first/gradients")) == 81


# Files of the page


def test_the_page_is_served(client: Client) -> None:
    own = Path(web.__file__).parent / "static"
    assert sorted(path.name for path in own.iterdir()) == sorted(web.OWN_FILES)
    for name, kind in web.OWN_FILES.items():
        response = client.get(f"{BASE}/static/{name}")
        assert response.status_code == 200
        assert response.data == (own / name).read_bytes()
        assert response.content_type == f"{kind}; charset=utf-8"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-cache, must-revalidate"


@pytest.mark.parametrize("name", ["bokeh.min.js", "bokeh-widgets.min.js"])
def test_bokehs_own_files_are_served_and_kept_by_the_browser(client: Client, name: str) -> None:
    url = f"{BASE}/static/{name}?v=3"
    response = client.get(url, headers={"Accept-Encoding": "gzip"})
    assert response.content_type == "text/javascript; charset=utf-8"
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Cache-Control"] == "private, max-age=31536000"
    file = Path(bokeh.__file__).parent / "server" / "static" / "js" / name
    assert gzip.decompress(response.data) == file.read_bytes()
    assert client.get(url).data == file.read_bytes()


def test_no_other_file_is_served(client: Client) -> None:
    names = ["", "../plugin.py", "..%2fplugin.py", "%2e%2e/plugin.py", "index.js/../../plugin.py"]
    names += ["/etc/passwd", "%2fetc%2fpasswd", "index.js%00", "bokeh.min.js.map", "INDEX.JS"]
    for name in names:
        response = client.get(f"{BASE}/static/{name}")
        assert response.status_code == 404, name
        assert b"import" not in response.data


# How TensorBoard finds it


def test_the_tab_has_a_name_and_a_page(client: Client) -> None:
    listing = loads(client.get("/data/plugins_listing").data)["initkit"]
    assert listing["tab_name"] == "Gradient Flow"
    path = "/data/plugin/initkit/static/index.js"
    assert listing["loading_mechanism"] == {"type": "IFRAME", "module_path": path}
    assert listing["enabled"]
    assert not loads(application(Path("/nowhere")).get("/data/plugins_listing").data)["initkit"][
        "enabled"
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"scalars": 5}, {"scalars": 5, "initkit": 0}),
        ({"initkit": 7}, {"initkit": 7}),
        (None, None),  # of another TensorBoard
    ],
)
def test_all_records_are_kept_unless_the_user_has_said_how_many(given: Any, kept: Any) -> None:
    flags = argparse.Namespace(samples_per_plugin=given)
    InitkitLoader().fix_flags(flags)
    assert flags.samples_per_plugin == kept
    InitkitLoader().fix_flags(argparse.Namespace())


def test_a_plugin_that_cannot_be_loaded_says_so_in_its_tab(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard_plugin_initkit.tab.plugin", None)
    client = application(root)
    answer = get(client, "/runs")
    assert answer["runs"] == []
    assert re.fullmatch(
        r"The tab cannot be loaded \(ModuleNotFoundError: .*plugin.*\)\. Run `pip install "
        r"--upgrade keras-initkit tensorboard`, and start TensorBoard again\.",
        answer["problem"],
    )
    assert client.get(f"{BASE}/static/index.js").status_code == 200
    assert client.get(f"{BASE}/run?run=x").status_code == 404


def python(code: str, *path: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, Path.cwd())))}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loader_imports_nothing_that_is_slow() -> None:
    code = """
import argparse, sys, time
import tensorboard.plugins.base_plugin
before, start = set(sys.modules), time.process_time()
from tensorboard_plugin_initkit.tab.loader import InitkitLoader
InitkitLoader().fix_flags(None)
print(time.process_time() - start, *set(sys.modules) - before)
"""
    seconds, *modules = python(code).split()
    assert sorted(modules) == [
        "tensorboard_plugin_initkit",
        "tensorboard_plugin_initkit.tab",
        "tensorboard_plugin_initkit.tab.loader",
    ]
    assert float(seconds) < 0.05


def test_tensorboard_starts_without_what_draws(root: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.modules["tensorflow"] = None  # which TensorBoard itself would import, and with it Keras
from tests.tensorboard_plugin_initkit.support.application import BASE, application
client = application(Path({str(root)!r}))
assert client.get(BASE + "/runs").status_code == 200
assert not {{"bokeh", "keras"}} & set(sys.modules)
assert client.get(BASE + "/chart?view=map&run=first/gradients").status_code == 200
assert "bokeh" in sys.modules and "keras" not in sys.modules
"""
    python(code)
