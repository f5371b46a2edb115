"""Damaged logs: an error with file and offset, or what is whole is read as it was written."""

import random
import re
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_FLOAT

from tensorboard_plugin_initkit.command import main
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.log import event_file
from tensorboard_plugin_initkit.log import gradient_log as log
from tensorboard_plugin_initkit.log.dashboards import make_tensor
from tensorboard_plugin_initkit.log.event_file import EventFileWriter, _record, read_events
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.chunk import RECORDED, TOTALS
from tests.tensorboard_plugin_initkit.record.made import dense, random_chunk
from tests.tensorboard_plugin_initkit.support.application import BASE, application
from tests.tensorboard_plugin_initkit.support.made_logs import event_file as file_of
from tests.tensorboard_plugin_initkit.support.made_logs import write

pytestmark = pytest.mark.numpy_alone

PLACE = re.compile(r"This is the record at byte \d+ of .*events\.out\.tfevents.*initkit\.")
STATISTICS = ("norm", "snr")
LEFT_OUT: dict[str, Any] = dict.fromkeys(RECORDED[1:-1])


def make_log(log_dir):
    """Write layouts of the same and of other widths; return the file's records, with checksums."""
    layouts = [dense("a", "b"), dense("a", "b"), dense("c", "d"), dense("a", "b", "c")]
    chunks = [
        random_chunk(layout, range(10 * i, 10 * i + 3), i, **LEFT_OUT)
        for i, layout in enumerate(layouts)
    ]
    write(log_dir, *chunks, findings=[Finding("vanishing", "a", 11, "Far less.", {"ratio": 1e-9})])
    return [_record(event.SerializeToString()) for event in read_events(file_of(log_dir))]


def values_of(history):
    """Numbers by step, column and statistic."""
    return {
        (step, path, name): value
        for name in STATISTICS
        for step, row in zip(history.steps.tolist(), history.per_variable(name), strict=True)
        for path, value in zip(history.variables, row, strict=True)
        if not np.isnan(value)
    }


def damage(records, draw):
    """Return a damaged file, and if its checksums tell of it."""
    data = b"".join(records)
    start, end = sorted(draw.choices(range(len(data)), k=2))
    place = draw.randrange(len(records))
    inner = bytearray(records[place][12:-4])
    spot = draw.randrange(len(inner))

    def patched(new):
        return b"".join([*records[:place], new, *records[place + 1 :]]), False

    kinds = [
        lambda: (data[:start], True),
        lambda: (data[:start] + data[end:], True),
        lambda: (data[:start] + bytes(end - start) + data[end:], True),
        lambda: (data[:start] + draw.randbytes(end - start) + data[end:], True),
        lambda: (data[:start] + draw.randbytes(draw.randrange(1, 60)) + data[start:], True),
        lambda: (data[:end] + data[start:], True),
        lambda: (data[:start] + draw.randbytes(1) + data[start + 1 :], True),
        lambda: patched(_record(bytes(inner[:spot]))),
        lambda: patched(_record(bytes(inner[:spot] + inner[spot + draw.randrange(9) :]))),
        lambda: patched(_record(bytes(inner[:spot] + draw.randbytes(1) + inner[spot + 1 :]))),
        lambda: patched(_record(bytes(inner[:spot] + draw.randbytes(4) + inner[spot + 4 :]))),
        lambda: patched(_header(draw.choice([2**64 - 1, 2**63, 2**40, 2**31, 10**6])) + b"abc"),
    ]
    return draw.choice(kinds)()


def _header(length):
    """The beginning of a record that claims a length, with the right checksum of it."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", event_file._masked_crc(packed))


def check_mutant(log_dir, records, whole, number):
    """Read a damaged log; return what became of it."""
    data, told = damage(records, random.Random(number))
    file_of(log_dir).write_bytes(data)
    outcome, history = "read", None
    try:
        history = read_log(log_dir)
    except ValueError as error:
        outcome = "refused" if PLACE.search(str(error)) else f"{error}"
    part = read_log(log_dir, damaged="skip")
    assert bool(part.notes) == (outcome == "refused")
    assert (np.diff(part.steps) > 0).all()
    numbers = values_of(part)
    if told:
        assert numbers.items() <= whole.items()
    if history is not None:
        assert values_of(history).keys() == numbers.keys()
    return outcome


def test_a_damaged_log_is_an_error_with_its_place_or_read_right(tmp_path):
    """`python -m benchmarks.fuzz_logs` tries thousands."""
    records = make_log(tmp_path)
    whole = values_of(read_log(tmp_path))
    outcomes = [check_mutant(tmp_path, records, whole, number) for number in range(150)]
    assert set(outcomes) == {"read", "refused"}


# Logs that are wrong below right checksums.

LAYOUT = dense("a")


def events(layout=None, **tables):
    """A layout, and tables with steps before their columns; serialised."""
    text = LAYOUT.to_json() if layout is None else layout
    written = [log._text_event(log.LAYOUT_TAG, text, 0, 1.0)]
    content = log._name_layout(text)
    for name, table in ({"norm": table_of(2), "totals": table_of(len(TOTALS))} | tables).items():
        tensor = make_tensor(np.asarray(table, "<f4"), DT_FLOAT)
        written.append(log._event(f"initkit/{name}", tensor, 0, 1.0, content))
    return written


def table_of(columns, steps=(0, 1, 2)):
    return [[0, step, *[1] * columns] for step in steps]


def with_tensor(change):
    """The events, with a change of the tensor of the norm."""
    first, norm, totals = map(Event.FromString, events())
    change(norm.summary.value[0].tensor)
    return [one.SerializeToString() for one in (first, norm, totals)]


def reshape(*sizes):
    def change(tensor):
        del tensor.tensor_shape.dim[:]
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)

    return with_tensor(change)


def without_text():
    (first, *rest) = events()
    layout = Event.FromString(first)
    del layout.summary.value[0].tensor.string_val[:]
    return [layout.SerializeToString(), *rest]


WRONG = {
    "no protobuf": lambda: [b"\xff" * 20, *events()],
    "no text": without_text,
    "nested": lambda: events("[" * 100_000),
    "layer type": lambda: events(LAYOUT.to_json().replace('"Dense"', "null")),
    "rows": lambda: events(norm=table_of(2, (0, 1))),
    "other steps": lambda: events(norm=table_of(2, (0, 1, 3))),
    "equal steps": lambda: events(norm=table_of(2, (1, 1, 1)), totals=table_of(4, (1, 1, 1))),
    "steps of NaN": lambda: events(totals=table_of(4, (np.nan, 1, 2))),
    "columns": lambda: events(norm=table_of(3)),
    "totals": lambda: events(totals=table_of(8)),
    "no layout": lambda: events()[1:],
    "no rows": lambda: events(totals=np.zeros((0, 6))),
    "vector": lambda: events(totals=[0, 1, 1]),
    "steps back": lambda: events(totals=table_of(4, (2, 1, 0))),
    "shape": lambda: reshape(-1, 4),
    "huge shape": lambda: reshape(2**40, 4),
    "dtype": lambda: with_tensor(lambda tensor: setattr(tensor, "dtype", DT_DOUBLE)),
    "findings": lambda: [*events(), log._text_event(log.FINDINGS_TAG, "[]", 0, 1.0)],
}

# Those in which the records are whole, but for a norm.
WHOLE = ("no protobuf", "findings", "shape", "huge shape", "dtype")


def place(name):
    """Two end TensorBoard's own loader, before the tab sees anything."""
    return f"{'report' if name in ('no protobuf', 'length') else 'tab'}/{name}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("logs")
    for name, make in WRONG.items():
        EventFileWriter(root / place(name) / log.RUN).write(make())
    for name in ("good", "length"):
        write(root / place(name), random_chunk(dense("a", "b"), range(9)))
    with file_of(root / place("length")).open("ab") as file:
        file.write(_header(2**64 - 1) + b"abc")
    return root


@pytest.mark.parametrize("name", [*WRONG, "length"])
def test_what_is_wrong_is_a_value_error_with_its_place(root, name):
    with pytest.raises(ValueError, match=PLACE) as error:
        read_log(root / place(name))
    assert str(error.value).endswith(" `damaged='skip'` reads what is intact.")
    history = read_log(root / place(name), damaged="skip")
    assert len(history) == {"length": 9, **dict.fromkeys(WHOLE, 3)}.get(name, 0)
    (note,) = history.notes
    assert note.startswith("Left out of the log: ")


def test_what_is_wrong_is_a_sentence_in_the_report_and_the_tab_and_others_are_drawn(root, capsys):
    assert main(["report", str(root), "-o", str(root / "out.html")]) == 0
    output = capsys.readouterr()
    assert ": 7 runs from" in output.out  # those of which something is whole
    html = (root / "out.html").read_text()
    for name in (*WRONG, "length"):
        assert f"The log of '{place(name)}': Left out of the log: " in output.err
        assert f"The log of &#x27;{place(name)}&#x27;: Left out" in html
    client = application(root / "tab")
    query = "&".join(f"run={name}/gradients" for name in ("good", "rows", "columns", "shape"))
    answer = client.get(f"{BASE}/chart?view=depth&{query}")
    assert answer.status_code == 200, answer.text


OTHERS = {
    "layout": (
        events(LAYOUT.to_json().replace('"version": 4', '"version": 3')),
        "The layout of a log must have version 4. Received: version 3. Read it with the "
        "keras-initkit that wrote it.",
    ),
    "totals": (
        events(totals=table_of(6)),
        "A record of a log of version 4 must have 7 totals of optimizers. Received: 6 at step 0. "
        "Read it with the keras-initkit that wrote it, or copy the log again from where it was "
        "written.",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_log_of_another_version_says_so_however_it_is_read(name, tmp_path, capsys):
    written, sentence = OTHERS[name]
    EventFileWriter(tmp_path / "old" / log.RUN).write(written)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_log(tmp_path / "old")
    assert main(["findings", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    answer = application(tmp_path).get(f"{BASE}/run?run=old/gradients")
    assert answer.json == {"error": f"The log 'old' cannot be read: {sentence}"}


def test_a_claimed_length_takes_no_memory(tmp_path):
    write(tmp_path, random_chunk(LAYOUT, range(3)))
    with file_of(tmp_path).open("ab") as file:
        file.write(_header(2**30) + b"abc")
    read_log(tmp_path)
    tracemalloc.start()
    assert len(read_log(tmp_path)) == 3
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_word_for_damage_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r'must be one of "error", "skip"\. Received: damaged=7'):
        read_log(tmp_path, damaged=7)  # type: ignore[arg-type]
