"""What TensorBoard has loaded is the same record as the log, by both of its data servers."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard import errors
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.data import server_ingester
from tensorboard.data.provider import TensorDatum
from tensorboard.util.grpc_util import ChannelCredsType

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.log import gradient_log as log
from tensorboard_plugin_initkit.log.event_file import EventFileWriter, event_files
from tensorboard_plugin_initkit.log.gradient_log import LogWriter
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.chunk import PORT_STATISTICS, RECORDED, Chunk
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.layout import Layout
from tensorboard_plugin_initkit.record.setup import LayerSetup, Setup
from tensorboard_plugin_initkit.record.statistics import STATISTICS, TOTAL_STATISTICS
from tensorboard_plugin_initkit.tab.cache import Cache
from tensorboard_plugin_initkit.tab.experiment import EmptyLogError, Experiment, LogError, Run
from tests.tensorboard_plugin_initkit.charts.test_charts import HOSTILE
from tests.tensorboard_plugin_initkit.log.test_damage import WRONG
from tests.tensorboard_plugin_initkit.record.made import PORTS, dense, random_chunk
from tests.tensorboard_plugin_initkit.support.application import python_provider
from tests.tensorboard_plugin_initkit.support.made_logs import write
from tests.tensorboard_plugin_initkit.support.tensorboard import eventually

pytestmark = pytest.mark.newest


def chunk_of(layout: Layout, steps: Any, seed: int = 0, statistics: Any = RECORDED) -> Chunk:
    """Random values of some statistics, among them missing gradients and those not finite."""
    without = dict.fromkeys(set(RECORDED) - set(statistics))
    return random_chunk(layout, steps, seed, 0.1, **without)


def chunks_of(layout: Layout, first: int, last: int, size: int, seed: int = 0) -> list[Chunk]:
    starts = range(first, last, size)
    return [chunk_of(layout, range(s, min(s + size, last)), seed + s) for s in starts]


SMALL = dense("a", "b", "c")
LARGE = dense("a", "b", "new", "c")


def plain(log_dir: Path) -> None:
    write(log_dir, *chunks_of(SMALL, 0, 200, 7))


def hostile(log_dir: Path) -> None:
    write(log_dir, *chunks_of(dense(*HOSTILE, optimizers=("body", "<b>")), 0, 30, 10))


def long_steps(log_dir: Path) -> None:
    write(log_dir, chunk_of(SMALL, [3, 2**24 - 1, 2**24 + 1, 2**40 + 1]))


def resumed_twice(log_dir: Path) -> None:
    """The second time further back, and not as far as before."""
    write(log_dir, *chunks_of(SMALL, 0, 100, 30))
    write(log_dir, *chunks_of(LARGE, 70, 200, 30, seed=1000))
    write(log_dir, *chunks_of(SMALL, 40, 60, 4, seed=2000))


def grown(log_dir: Path) -> None:
    """Layers that come and go, while the training goes on."""
    write(
        log_dir,
        *chunks_of(SMALL, 0, 50, 20),
        *chunks_of(LARGE, 50, 80, 20),
        *chunks_of(dense("c", "other", optimizers=("second",)), 80, 90, 20),
        *chunks_of(SMALL, 90, 120, 20),
    )


def later_statistics(log_dir: Path) -> None:
    """Some statistics are recorded in some chunks only."""
    some = ("norm", "nonfinite")
    write(
        log_dir,
        chunk_of(SMALL, range(10), 1, some),
        chunk_of(SMALL, range(10, 30), 2, (*some, "cosine")),
        chunk_of(SMALL, range(30, 40), 3, some),
    )


def truncated(log_dir: Path) -> None:
    """As after a crash in the middle of a write."""
    plain(log_dir)
    (path,) = event_files(log_dir / log.RUN)
    path.write_bytes(path.read_bytes()[:-100])


def supervised(log_dir: Path) -> None:
    """A log with what the losses were computed of, and the setup."""
    layout = dense("a", "b", ports=PORTS)
    writer = write(log_dir, *(random_chunk(layout, range(4 * i, 4 * i + 4), i) for i in range(3)))
    writer.write_setup(Setup((LayerSetup("a", "Dense"),), optimizer="Adam").to_json(), 0)


LOGS = {
    make.__name__: make
    for make in (
        plain,
        supervised,
        hostile,
        long_steps,
        resumed_twice,
        grown,
        later_statistics,
        truncated,
    )
}
# TensorBoard's own loader ends at the first, and makes no array of the second.
DAMAGED = WRONG.keys() - {"no protobuf", "no text"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs")
    for name, make in LOGS.items():
        make(root / name)
    for name in DAMAGED:
        EventFileWriter(root / name / log.RUN).write(WRONG[name]())
    return root


@contextlib.contextmanager
def rust_provider(root: Path) -> Iterator[Any]:
    """The data provider of `tensorboard`."""
    port_file = root.with_name("port")
    flags = [f"--logdir={root}", "--reload=1", "--port=0", f"--port-file={port_file}"]
    keep_all = [f"--samples-per-plugin={PLUGIN_NAME}=all"]
    binary = server_ingester.get_server_binary().path
    with subprocess.Popen([binary, *flags, *keep_all], stderr=subprocess.DEVNULL) as process:
        try:

            def port() -> str:
                text = port_file.read_text()
                assert text.endswith("\n")
                return text.strip()

            yield server_ingester.ExistingServerDataIngester(
                f"localhost:{eventually(port)}", channel_creds_type=ChannelCredsType.LOCAL
            ).data_provider
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=["python", "rust"])
def experiment(request: pytest.FixtureRequest, root: Path) -> Iterator[Experiment]:
    with contextlib.ExitStack() as stack:
        if request.param == "python":
            provider = python_provider(root)
        else:
            provider = stack.enter_context(rust_provider(root))
        experiment = Experiment(provider)

        def loaded() -> None:
            assert len(experiment.runs()) >= len(LOGS) + len(DAMAGED)

        eventually(loaded, also=LogError)
        yield experiment


def run_of(experiment: Experiment, name: str) -> Run:
    run = experiment.run(f"{name}/{log.RUN}".lstrip("/"))
    assert run is not None
    return run


def assert_same(history: GradientHistory, expected: GradientHistory) -> None:
    assert history.layers == expected.layers
    assert history.variables == expected.variables
    assert history.optimizers == expected.optimizers
    assert history.layout.layer_types == expected.layout.layer_types
    assert list(history) == list(expected)
    np.testing.assert_array_equal(history.steps, expected.steps)
    for name in (*STATISTICS, *TOTAL_STATISTICS):
        np.testing.assert_array_equal(history[name], expected[name], err_msg=name)
    assert (history.setup, history.ports) == (expected.setup, expected.ports)
    for name in PORT_STATISTICS:
        np.testing.assert_array_equal(history.per_port(name), expected.per_port(name))


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize("name", LOGS)
def test_a_log_is_read_as_it_was_written(experiment: Experiment, root: Path, name: str) -> None:
    expected = read_log(root / name)
    assert len(expected) > 3

    def same() -> None:
        assert_same(experiment.history(run_of(experiment, name)), expected)

    eventually(same, also=LogError)


def test_a_log_in_the_log_directory_itself_has_a_title(tmp_path: Path) -> None:
    plain(tmp_path)
    (run,) = Experiment(python_provider(tmp_path)).runs()
    assert (run.name, run.title) == ("gradients", "gradients")
    (run,) = Experiment(python_provider(tmp_path / "gradients")).runs()
    assert (run.name, run.title) == (".", "gradients")


def eventually_loaded(experiment: Experiment, name: str) -> GradientHistory:
    """The history; a log that is not loaded yet is waited for."""
    return eventually(lambda: experiment.history(run_of(experiment, name)), also=EmptyLogError)


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_of_a_damaged_log_all_is_shown_that_is_whole_and_the_rest_is_said(experiment, name):
    if name not in ("rows", "other steps", "columns", "shape", "huge shape", "dtype", "findings"):
        with pytest.raises(LogError, match=f"^The log '{name}' cannot be read: .* must "):
            eventually_loaded(experiment, name)
        return
    history = eventually_loaded(experiment, name)
    assert history.steps.tolist() == [0, 1, 2]
    if name == "findings":
        with pytest.raises(LogError, match="must be a JSON object with a version"):
            experiment.findings(run_of(experiment, name))
        return
    with contextlib.suppress(LogError):  # TensorBoard makes no array of it
        assert np.isnan(history["norm"]).all()


sizes = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 25), st.booleans()), max_size=6)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@settings(max_examples=8, deadline=None)
@given(sizes)
def test_any_order_of_chunks_is_read_as_from_the_log(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int, bool]]
) -> None:
    log_dir = tmp_path_factory.mktemp("log")
    write(log_dir, chunk_of(SMALL, range(20, 30)))
    for i, (first, size, large) in enumerate(sizes):
        layout = LARGE if large else SMALL
        write(log_dir, chunk_of(layout, range(first, first + size), i))
    experiment = Experiment(python_provider(log_dir))
    assert_same(experiment.history(experiment.runs()[0]), read_log(log_dir))


class Watched:
    """A data provider that notes what is read, and may change it."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.read: list[str] = []
        self.change: Callable[[str, list[Any]], list[Any]] = lambda tag, data: data

    def list_runs(self, *args: Any, **options: Any) -> Any:
        return self.provider.list_runs(*args, **options)

    def list_tensors(self, *args: Any, **options: Any) -> Any:
        return self.provider.list_tensors(*args, **options)

    def read_tensors(self, *args: Any, **options: Any) -> Any:
        (run,), (tag,) = options["run_tag_filter"].runs, options["run_tag_filter"].tags
        self.read.append(tag.partition("/")[2])
        read = self.provider.read_tensors(*args, **options)
        return {run: {tag: self.change(tag, data) for tag, data in read[run].items()}}


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    plain(tmp_path)
    return Watched(python_provider(tmp_path))


def only_history(experiment: Experiment) -> GradientHistory:
    return experiment.history(experiment.runs()[0])


def test_only_what_is_asked_for_is_read_and_only_once(watched: Watched) -> None:
    experiment = Experiment(watched)
    experiment.runs()
    assert watched.read == []  # a log that nobody looks at takes no memory
    history = only_history(experiment)
    assert "cosine" in history
    assert (len(history), history.steps[-1], history["loss"].shape) == (200, 199, (200, 1))
    assert watched.read == ["totals", "layout"]
    history["rms"], only_history(experiment)["norm"], history.select(slice(3))["norm"]
    assert watched.read == ["totals", "layout", "nonfinite", "norm"]


def test_an_older_request_for_a_log_that_grew_leaves_the_newer_ones_right(tmp_path):
    """Both have the same state of the log, of which more was read for the newer one."""
    write(tmp_path, chunk_of(SMALL, range(8)))
    watched = Watched(python_provider(tmp_path))
    experiment = Experiment(watched)
    (run,) = experiment.runs()
    older = experiment.history(run)
    older["norm"]
    write(tmp_path, chunk_of(SMALL, range(8, 16), 1))
    watched.provider, whole = python_provider(tmp_path), read_log(tmp_path)
    experiment.runs()
    newer = experiment.history(run)
    for name in ("zeros", "norm"):  # the older one puts back what was dropped
        np.testing.assert_array_equal(older[name], whole[name][:8])
        np.testing.assert_array_equal(newer[name], whole[name])
    assert watched.read.count("norm") == 2


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_64_clients_of_a_log_that_grows_get_what_is_in_it(tmp_path):
    chunks = chunks_of(SMALL, 0, 150, 10)
    write(tmp_path / "whole", *chunks)
    whole = read_log(tmp_path / "whole")
    writer = LogWriter(tmp_path / "log", scalars=None)
    writer.write(chunks[0])
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: 0})
    multiplexer.AddRunsFromDirectory(str(tmp_path / "log"))
    multiplexer.Reload()
    experiment = Experiment(MultiplexerDataProvider(multiplexer, str(tmp_path)))
    done = threading.Event()

    def ask(client):
        asked = 0
        while not done.is_set() or asked < 3:
            if client % 8 == 0:
                experiment.runs()
            run = run_of(experiment, "")
            history = experiment.history(run)
            for name in ("norm", "zeros", "cosine"):
                np.testing.assert_array_equal(history[name], whole[name][: len(history)])
            asked += 1

    with ThreadPoolExecutor(64) as pool:
        clients = [pool.submit(ask, client) for client in range(64)]
        for chunk in chunks[1:]:
            writer.write(chunk)
            multiplexer.Reload()
        done.set()
    for client in clients:
        client.result()


def test_threads_that_ask_for_the_same_wait_for_one_read(watched: Watched) -> None:
    experiment = Experiment(watched)

    def slowly(tag: str, data: list[Any]) -> list[Any]:
        time.sleep(0.02)
        return data

    watched.change = slowly
    results: list[float] = []

    def ask() -> None:
        results.append(float(np.nansum(only_history(experiment)["zeros"])))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1
    assert sorted(watched.read) == ["layout", "nonfinite", "totals", "zeros"]


def test_a_statistic_larger_than_the_room_for_it_is_read_once_a_history(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorboard_plugin_initkit.tab.experiment._MOST_BYTES", 1000)
    experiment = Experiment(watched)
    history = only_history(experiment)
    for start in range(0, 200, 10):
        assert history.select(slice(start, start + 10))["norm"].shape == (10, 3)
    assert watched.read == ["totals", "layout", "nonfinite", "norm"]
    assert only_history(experiment)["norm"].shape == (200, 3)
    assert watched.read[4:] == ["nonfinite", "norm"]


def test_nothing_is_kept_of_a_run_that_is_gone(watched: Watched) -> None:
    experiment = Experiment(watched)
    array = weakref.ref(only_history(experiment)._joined().values["norm"])
    gc.collect()
    assert array() is not None
    watched.list_tensors = lambda *args, **options: {}  # type: ignore[method-assign]
    assert experiment.runs() == []
    gc.collect()
    assert array() is None


def test_a_table_that_does_not_fit_is_missing(watched: Watched) -> None:
    def narrower(tag: str, data: list[Any]) -> list[Any]:
        if tag != "initkit/norm":
            return data
        cut = [TensorDatum(d.step, d.wall_time, d.numpy[:, :-1]) for d in data[:2]]
        return [*cut, *data[2:-1]]

    expected = only_history(Experiment(watched)).per_variable("norm")
    watched.change = narrower
    norm = only_history(Experiment(watched)).per_variable("norm")
    assert np.isnan(norm[:14]).all()
    np.testing.assert_array_equal(norm[14:196], expected[14:196])
    assert np.isnan(norm[196:]).all()
    assert len(norm) == 200


def test_a_sampled_log_says_so(tmp_path: Path) -> None:
    plain(tmp_path)  # 29 chunks
    experiment = Experiment(python_provider(tmp_path, samples=5), samples=5)
    (run,) = experiment.runs()
    assert experiment.notes(run) == [
        "TensorBoard keeps only a random sample of this log: 5 of its blocks of steps. Spikes of "
        "single steps may be missing. Start TensorBoard without "
        "`--samples_per_plugin initkit=…` to see all."
    ]
    history, expected = experiment.history(run), read_log(tmp_path)
    assert 0 < len(history) <= 35
    rows = np.searchsorted(expected.steps, history.steps)
    np.testing.assert_array_equal(history["norm"], expected["norm"][rows])
    assert Experiment(python_provider(tmp_path), samples=30).notes(run) == []


def test_a_log_that_breaks_off_says_so_until_it_is_ended(tmp_path: Path) -> None:
    def notes() -> list[str]:
        experiment = Experiment(python_provider(tmp_path))
        (run,) = experiment.runs()
        told = experiment.notes(run)
        is_broken = any(note.startswith("The log ends") for note in told)
        assert experiment.history(run).ended == read_log(tmp_path).ended == (not is_broken)
        return told

    broken = "The log ends at step {}: the training is still going on, was killed, or the file "
    writer, first, second = LogWriter(tmp_path), *chunks_of(SMALL, 0, 20, 10)
    writer.write(first)
    assert notes() == [broken.format(9) + "is damaged there."]
    writer.end()
    writer.end()
    assert notes() == []
    writer.write(second)
    assert notes() == [broken.format(19) + "is damaged there."]
    writer.write(chunk_of(SMALL, [5, 6]))  # resumed from an earlier step
    assert notes() == [broken.format(6) + "is damaged there."]
    writer.end()
    assert notes() == []
    assert read_log(tmp_path).steps.tolist() == [*range(7)]
    resumed = LogWriter(tmp_path)
    resumed.write(chunk_of(SMALL, [*range(9, 12)]))
    resumed.end()
    gap = "Steps 7 to 8 are not in the log: the training stopped and resumed."
    assert notes() == read_log(tmp_path).notes == [gap]


class FailingError(Exception):
    """As gRPC's: many lines, and one for people."""

    def __str__(self) -> str:
        return "<RPC that terminated with:\n\tstatus = StatusCode.RESOURCE_EXHAUSTED>"

    def details(self) -> str:
        return "Received message larger than max"


def test_a_statistic_that_is_too_large_for_the_data_server_says_what_to_do(
    watched: Watched,
) -> None:
    def fail(tag: str, data: list[Any]) -> list[Any]:
        if tag == "initkit/norm":
            raise FailingError
        return data

    watched.change = fail
    history = only_history(Experiment(watched))
    with pytest.raises(LogError) as error:
        history["norm"]
    assert str(error.value) == (
        "'initkit/norm' of the log 'gradients' is larger than the 256 MB that TensorBoard's data "
        "server can send. Start TensorBoard with `--load_fast=false`, or record fewer steps "
        "with `GradientMonitor(every_n_steps=…)`."
    )
    assert history["zeros"].shape == (200, 3)


def test_a_data_server_that_fails_is_said(watched: Watched) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise errors.NotFoundError("no such thing")

    watched.change = fail
    with pytest.raises(LogError) as error:
        only_history(Experiment(watched))
    assert str(error.value) == (
        "TensorBoard cannot read 'initkit/totals' of the log 'gradients': "
        "NotFoundError: Not found: no such thing"
    )
    watched.list_tensors = fail  # type: ignore[method-assign]
    with pytest.raises(LogError, match=r"^TensorBoard cannot list its runs: NotFoundError: Not"):
        Experiment(watched).runs()


def test_a_cache_drops_what_was_not_used_for_longest() -> None:
    made: list[str] = []

    def get(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key

        return cache.get(key, make)

    cache: Cache[str, str] = Cache(6, len)
    for key in ("aa", "bb", "cc", "aa", "dd", "aa", "cc"):
        assert get(key) == key
    assert made == ["aa", "bb", "cc", "dd"]
    assert get("bb") == "bb"  # instead of dd, which was not used for longest
    get("aa"), get("cc")
    assert made[4:] == ["bb"]
    get("too large")
    get("too large")
    assert made[5:] == ["too large", "too large"]


def test_a_cache_makes_room_before_a_value_is_made() -> None:
    cache: Cache[str, np.ndarray] = Cache(100, lambda array: array.nbytes)
    held = weakref.ref(cache.get("a", lambda: np.zeros(60, np.uint8)))

    def make() -> np.ndarray:
        assert held() is None
        return np.zeros(60, np.uint8)

    assert held() is not None
    cache.get("b", make, 60)


def test_a_cache_goes_on_after_an_error() -> None:
    cache: Cache[str, int] = Cache(10, lambda value: 1)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 7) == 7
    cache.keep(lambda key: key != "a")
    assert cache.get("a", lambda: 8) == 8
