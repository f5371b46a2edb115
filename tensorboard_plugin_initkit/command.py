"""`keras-initkit`: findings, charts and numbers of logs from a shell; Keras for audits alone."""

import argparse
import csv
import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from tensorboard_plugin_initkit.diagnosis.diagnosis import diagnose_history
from tensorboard_plugin_initkit.log.paths import path_at
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.statistics import STATISTICS

_ERROR = 2
_THEMES = ("auto", "light", "dark")
_STATUS = "Exit status: 0 if nothing is wrong, 1 if something is, 2 after an error."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except BrokenPipeError:  # the reader of the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _ERROR
    except (ImportError, OSError, ValueError, KeyError, TypeError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        if isinstance(error, OSError) and error.strerror:  # of the system
            text = f"Files must be readable, or writable for output. Received: {error.filename!r}: "
            text += f"{error.strerror}. Name another file."
        sys.stderr.write(f"keras-initkit: {text}\n")
        return _ERROR
    return status


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-initkit", description="Why Keras networks do not learn, from logs and models."
    )
    parser.add_argument("--version", action="version", version=version("keras-initkit"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Any, does: str, more: str = "", epilog: str = "") -> Any:
        """Add a command with its one line of help, and what its own help says more."""
        command = commands.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}{more}.",
            epilog=epilog,
        )
        command.set_defaults(run=run)
        return command

    default = " (default: %(default)s)"

    def add_log(command: Any, output: str = "") -> None:
        command.add_argument("logdir", metavar="LOGDIR", help="a GradientMonitor's log_dir")
        if output:
            to_write = f"file to write; - for stdout{default}"
            command.add_argument("-o", "--output", default=output, help=to_write)

    statistics = f"one of {', '.join(STATISTICS)}"
    report = add(
        "report",
        _report,
        "write charts of all trainings below a directory to one HTML file",
        ", which needs no network",
    )
    add_log(report, "report.html")
    shown = f"statistic shown on the maps, {statistics}{default}"
    report.add_argument("--statistic", default="signal", help=shown)
    report.add_argument("--title", default="Gradient flow", help=f"heading of the report{default}")
    theme = f"light, dark, or auto: as the reader's system prefers{default}"
    report.add_argument("--theme", choices=_THEMES, default="auto", help=theme)
    findings = add(
        "findings",
        _tell_findings,
        "tell why trainings below a directory do not learn, and what to change",
        epilog=_STATUS,
    )
    add_log(findings)
    kinds = "kinds of findings to leave out (default: none)"
    findings.add_argument("--ignore", nargs="*", default=[], metavar="KIND", help=kinds)
    findings.add_argument("--json", action="store_true", help="write JSON instead of text")
    audit = add(
        "audit", _audit, "tell what is wrong with the weights of a saved model", epilog=_STATUS
    )
    audit.add_argument("model", metavar="MODEL.keras", help="a model saved by Keras")
    audit.add_argument("--json", action="store_true", help="write JSON instead of text")
    table = add(
        "csv",
        _write_csv,
        "write the numbers of all trainings below a directory as a table",
        ": a line for each run, recorded step and layer",
    )
    add_log(table, "-")
    names = ["norm", "signal"]
    columns = f"columns, each {statistics} (default: {' '.join(names)})"
    table.add_argument("--statistics", nargs="+", default=names, metavar="NAME", help=columns)
    return parser


def _tell_findings(options: argparse.Namespace) -> int:
    found = {
        name: diagnose_history(history, options.ignore)
        for name, history in _read(options.logdir)[0].items()
    }
    if options.json:
        _write_json({name: diagnosis.to_dict() for name, diagnosis in found.items()})
    for name, diagnosis in {} if options.json else found.items():
        sys.stdout.write(f"{name}: {diagnosis}\n\n")
    return int(any(finding.severity != "note" for each in found.values() for finding in each))


def _audit(options: argparse.Namespace) -> int:
    # By their names: everything else here works where Keras is not installed.
    keras, keras_initkit = map(importlib.import_module, ("keras", "keras_initkit"))
    try:
        model = keras.saving.load_model(options.model, compile=False)
    except (OSError, TypeError, ValueError) as error:
        why = f"not readable: {error}" if Path(options.model).exists() else "which does not exist"
        raise ValueError(
            "MODEL.keras must be a file that Keras has written. Received: "
            f"{options.model!r}, {why.rstrip('.')}. Write one with `model.save('model.keras')`."
        ) from error
    audit = keras_initkit.audit(model)
    if options.json:
        _write_json(audit.to_dict())
    else:
        sys.stdout.write(f"{audit}\n")
    return int(bool(audit.problems))


def _write_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def _write_csv(options: argparse.Namespace) -> int:
    histories, _ = _read(options.logdir)
    for history, name in itertools.product(histories.values(), options.statistics):
        history.select(slice(0, 1))[name]  # an unknown one is said before anything is written
    if options.output == "-":
        _write_table(histories, options.statistics, sys.stdout)
        return 0
    with open(options.output, "w", encoding="utf-8", newline="") as file:
        _write_table(histories, options.statistics, file)
    return 0


def _write_table(
    histories: dict[str, GradientHistory], statistics: Sequence[str], file: TextIO
) -> None:
    writer = csv.writer(file)
    writer.writerow(["run", "step", "layer", *statistics])
    for name, history in histories.items():
        columns = [history[statistic].ravel().tolist() for statistic in statistics]
        places = itertools.product([name], history.steps.tolist(), history.layers)
        writer.writerows([*place, *row] for place, *row in zip(places, *columns, strict=True))


def _report(options: argparse.Namespace) -> int:
    histories, problems = _read(options.logdir)
    # After the logs: it takes a second, and a wrong directory is said at once.
    from tensorboard_plugin_initkit.charts.report import report_html

    html = report_html(
        histories,
        statistic=options.statistic,
        title=options.title,
        notes=problems,
        theme=options.theme,
        head={"Log directory": options.logdir, "keras-initkit": version("keras-initkit")},
    )
    if options.output == "-":
        sys.stdout.write(html)
        return 0
    Path(options.output).write_text(html, encoding="utf-8")
    runs = "1 run" if len(histories) == 1 else f"{len(histories)} runs"
    sys.stdout.write(f"{options.output}: {runs} from {options.logdir}\n")
    return 0


def _read(log_dir: str) -> tuple[dict[str, GradientHistory], list[str]]:
    """Read all logs below a directory; damage is a problem to report, and said."""
    from tensorboard_plugin_initkit.log.gradient_log import RUN

    histories, problems = {}, []
    for name, directory in _runs(log_dir):
        if sys.stderr.isatty():
            sys.stderr.write(f"reading {name}\n")
        try:
            history = read_log(directory, damaged="skip")
        except (OSError, ValueError) as error:
            problems.append(f"The log of {name!r} cannot be read: {error}")
            continue
        problems.extend(f"The log of {name!r}: {note}" for note in history.notes)
        if len(history) or (not history.notes and Path(directory).name.startswith(RUN)):
            histories[name] = history
    if problems and not histories:
        raise ValueError("\n".join(problems))
    if not histories:
        raise FileNotFoundError(_nothing_in(log_dir, "which holds no log of gradients"))
    for problem in problems:
        sys.stderr.write(f"keras-initkit: {problem}\n")
    return histories, problems


def _runs(log_dir: str) -> Iterator[tuple[str, str]]:
    """Yield the names and directories of the runs below a directory."""
    from tensorboard_plugin_initkit.log.event_file import event_files
    from tensorboard_plugin_initkit.log.gradient_log import RUN

    top = path_at(log_dir)
    if not isinstance(top, Path):
        yield log_dir.rstrip("/").rpartition("/")[2], log_dir
        return
    if not top.is_dir():
        raise FileNotFoundError(_nothing_in(log_dir, "which is not an existing directory"))
    top = top.resolve()
    # Links are not followed: they may lead in circles.
    for directory, below, _ in os.walk(top):
        below.sort()
        here = Path(directory)
        if event_files(here):
            place = here.parent if here.name == RUN else here
            inside = place.relative_to(top).as_posix() if place.is_relative_to(top) else "."
            yield place.name if inside == "." else inside, directory


def _nothing_in(log_dir: str, why: str) -> str:
    return (
        f"LOGDIR must be a directory that a GradientMonitor has written to, or one above that. "
        f"Received: {log_dir!r}, {why}. These two lines write a log:\n\n"
        "    from keras_initkit.callbacks import GradientMonitor\n"
        f"    model.fit(x, y, callbacks=[GradientMonitor({log_dir!r})])"
    )


if __name__ == "__main__":
    sys.exit(main())
