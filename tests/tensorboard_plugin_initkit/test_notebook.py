"""What notebooks and data frames show of histories and diagnoses."""

import html
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.diagnosis import Diagnosis
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.notebook import make_card
from tensorboard_plugin_initkit.plotting import plot
from tests.tensorboard_plugin_initkit.record.made import dense, history_of, random_chunk
from tests.tensorboard_plugin_initkit.support.made_logs import HOSTILE

pytestmark = pytest.mark.numpy_alone


class Card(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"style"}  # nothing is loaded, nothing runs
        assert not any("url" in value or "background" in value for _, value in attrs)

    def handle_data(self, data):
        self.text += data


def test_histories_and_diagnoses_show_their_findings_whatever_their_names(rng):
    history = history_of(rng.random((3, 2)))
    history.findings = [Finding(n, n, None, n, cause=n, fix=Fix(n)) for n in HOSTILE]
    history.notes = list(HOSTILE)
    for thing in (history, Diagnosis(history.findings, "Does <b>not</b>", HOSTILE)):
        card = Card(thing._repr_html_())
        assert {"script", "img", "b"}.isdisjoint(card.tags)
        assert card.tags.count("tr") == 1 + len(HOSTILE)
    assert "Does <b>not</b>" in card.text
    assert "3 recorded steps of 2 layers, steps 0 to 2" in history._repr_html_()


@pytest.mark.parametrize("kind", ["map", "depth", "player", "lines"])
def test_a_chart_shows_itself_and_needs_nothing_from_elsewhere(kind, rng):
    frame = plot(history_of(rng.random((3, 8))), kind)._repr_html_()
    (page,) = re.findall(r'^<iframe srcdoc="([^"]*)" style="[^"]*"></iframe>$', frame)
    page = html.unescape(page)
    assert "embed_items" in page
    assert not re.findall(r"\n *<(?:script|link)[^>]* (?:src|href)=", page)
    assert len(page) < 3e6
    assert 300 < int(re.findall(r"height: (\d+)px", frame)[0]) < 1500


def test_a_long_table_is_cut_and_it_is_said():
    card = Card(make_card("", rows=[["a"]] * 60))
    assert (card.tags.count("tr"), "50 of 60 rows" in card.text) == (51, True)


def test_data_frames_have_a_row_a_step_and_layer_or_optimizer():
    pytest.importorskip("pandas")
    history = history_of([[1.0]])
    chunk = random_chunk(dense("a", "b", "c", optimizers=("x", "y")), [3, 7])
    history = history.select(slice(0, 0))
    history.append(chunk)
    frame = history.to_dataframe()
    assert frame.index.names == ["step", "layer"]
    np.testing.assert_array_equal(frame["norm"].unstack().to_numpy(), history["norm"])
    assert frame.loc[(7, "b"), "signal"] == history["signal"][1, 1]
    optimizers = history.to_dataframe("optimizers")
    np.testing.assert_array_equal(optimizers["loss"].unstack().to_numpy(), history["loss"])
    with pytest.raises(ValueError, match='`of` must be "layers" or "optimizers"'):
        history.to_dataframe("weights")


def test_without_pandas_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas.*Without it there is `history"):
        history_of([[1.0]]).to_dataframe()
