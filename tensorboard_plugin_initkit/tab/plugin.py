"""The tab "Gradient Flow" of TensorBoard: the routes of its page."""

import contextlib
import importlib
import importlib.metadata
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tensorboard.plugins import base_plugin
from werkzeug.wrappers import Request, Response

from tensorboard_plugin_initkit import PLUGIN_NAME
from tensorboard_plugin_initkit.charts.view import RUN_COLOURS, colour_of_run
from tensorboard_plugin_initkit.record.layout import SCHEMA_VERSION
from tensorboard_plugin_initkit.tab import payloads
from tensorboard_plugin_initkit.tab.cache import Cache
from tensorboard_plugin_initkit.tab.experiment import EmptyLogError, Experiment, LogError, Run
from tensorboard_plugin_initkit.tab.memory import give_back_memory
from tensorboard_plugin_initkit.tab.parameters import (
    ChartParameters,
    CsvParameters,
    RunParameters,
    chart_parameters,
    parse,
)
from tensorboard_plugin_initkit.tab.web import (
    Handler,
    HttpError,
    TabPlugin,
    bokeh_file,
    respond_gzipped,
    respond_json,
)

_WARM_AFTER_SECONDS = 2.0
_MOST_BYTES = 8 * 2**20
# Runs that are judged for the list: each of them is read.
_MOST_VERDICTS = 50


class InitkitPlugin(TabPlugin):
    """The tab.

    Args:
        context: TensorBoard's, for its plugins.
    """

    def __init__(self, context: base_plugin.TBContext) -> None:
        super().__init__(context)
        samples = getattr(context.flags, "samples_per_plugin", None)
        kept = samples.get(PLUGIN_NAME, 0) if isinstance(samples, dict) else 0
        self._experiment = Experiment(context.data_provider, kept)
        self._drawn: Cache[tuple[ChartParameters, tuple[tuple[str, int], ...]], bytes] = Cache(
            _MOST_BYTES, len
        )
        # All is read and drawn in one thread: each would keep memory of its own.
        self._worker = ThreadPoolExecutor(1, "initkit")
        # The first look need not wait for Bokeh's import of half a second, nor TensorBoard's start.
        # It is done on the thread that draws: two that import it at once may get half of it.
        warm = threading.Timer(_WARM_AFTER_SECONDS, self._worker.submit, [_warm])
        warm.daemon = True
        warm.start()

    def handlers(self) -> dict[str, Handler]:
        """Return the routes besides those of static files."""
        return {
            "/runs": self._runs,
            "/verdicts": self._verdicts,
            "/run": self._run,
            "/chart": self._chart,
            "/csv": self._csv,
        }

    def _runs(self, request: Request) -> Response:
        with _answering_errors():
            runs = self._experiment.runs()
        states = {(run.state, run.place) for run in runs}
        self._drawn.keep(lambda key: states.issuperset(key[1]))
        content: dict[str, Any] = {
            "version": f"{_version()}, schema {SCHEMA_VERSION}",
            "bokeh": importlib.metadata.version("bokeh"),
            "runs": [
                {
                    "name": run.name,
                    "title": run.title,
                    "state": run.state,
                    "has_findings": run.has_findings,
                    "colour": {theme: colour_of_run(run.place, theme) for theme in RUN_COLOURS},
                }
                for run in runs
            ],
            "notes": [],
        }
        if not runs:
            content["why"] = self._why()
        return respond_json(request, content)

    def _why(self) -> str:
        """Say why there is nothing to show."""
        others = self._experiment.runs_of_all_plugins()
        found = "one run" if others == 1 else f"{others:,} runs" if others else "no run"
        return (
            "No run in this log directory was recorded by a GradientMonitor. "
            f"The directory holds {found}{' without gradients' if others else ' at all'}."
        )

    def _run(self, request: Request) -> Response:
        with _answering_errors():
            run = self._find(parse(request.args, RunParameters).run)
            return respond_json(request, payloads.overview(self._load(run)))

    def _verdicts(self, request: Request) -> Response:
        """Answer with the verdicts on the first runs, by name, without those that have none."""
        found = {}
        with _answering_errors():
            for run in self._experiment.runs()[:_MOST_VERDICTS]:
                with contextlib.suppress(LogError, EmptyLogError):
                    found[run.name] = payloads.judge(self._load(run).history)
        return respond_json(request, found)

    def _chart(self, request: Request) -> Response:
        with _answering_errors():
            parameters = chart_parameters(request.args)
            runs = [self._find(name) for name in parameters.run]
            beside = list(filter(None, map(self._experiment.run, parameters.beside)))
            key = (parameters, tuple((run.state, run.place) for run in (*runs, *beside)))
            content = self._drawn.get(
                key, lambda: self._worker.submit(self._draw, parameters, runs, beside).result()
            )
        return respond_gzipped(request, content)

    def _draw(self, parameters: ChartParameters, runs: list[Run], beside: list[Run]) -> bytes:
        logs, errors, others = [], [], []
        try:
            for run in beside:  # the chart of each says what is wrong with it
                with contextlib.suppress(LogError):
                    others.append(self._load(run))
            for run in runs:
                try:
                    logs.append(self._load(run))
                except LogError as error:
                    errors.append(error)
            if errors and (not logs or parameters.view == "difference"):
                raise errors[0]
            return payloads.chart(parameters, logs, others, [str(error) for error in errors])
        finally:
            give_back_memory()

    def _csv(self, request: Request) -> Response:
        with _answering_errors():
            parameters = parse(request.args, CsvParameters)
            run = self._find(parameters.run)
            lines = payloads.csv_lines(parameters, self._experiment.history(run))
        name = re.sub("[^A-Za-z0-9.]+", "-", f"{run.title}-{parameters.statistic}")[-80:]
        response = Response(lines, content_type="text/csv; charset=utf-8")
        response.headers["Content-Disposition"] = f'attachment; filename="{name.strip("-.")}.csv"'
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache, must-revalidate"
        return response

    def _find(self, name: str) -> Run:
        run = self._experiment.run(name)
        if run is None:
            shown = name if len(name) <= 80 else f"{name[:79]}…"
            raise HttpError(404, f"TensorBoard no longer has the run {shown!r}. Choose another.")
        return run

    def _load(self, run: Run) -> payloads.Log:
        history, notes = self._experiment.history(run), self._experiment.notes(run)
        try:
            history.findings = self._experiment.findings(run)
        except LogError as error:  # the history can be looked at without
            notes = [*notes, str(error)]
        return payloads.Log(run, history, notes)


@contextlib.contextmanager
def _answering_errors() -> Iterator[None]:
    """Answer with the sentence of an error."""
    try:
        yield
    except LogError as error:
        code = 404 if isinstance(error, EmptyLogError) else 500
        raise HttpError(code, str(error)) from error
    except (ValueError, KeyError) as error:
        raise HttpError(400, str(error.args[0])) from error


def _warm() -> None:
    importlib.import_module("tensorboard_plugin_initkit.charts.draw")
    bokeh_file("bokeh.min.js")


def _version() -> str:
    try:
        return importlib.metadata.version("keras-initkit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
