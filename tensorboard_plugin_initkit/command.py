"""`keras-initkit`: findings and charts of logs from a shell, without Keras."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tensorboard_plugin_initkit.diagnosis.diagnosis import diagnose_history
from tensorboard_plugin_initkit.log.paths import path_at
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.history import GradientHistory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="keras-initkit", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)
    report = commands.add_parser(
        "report",
        help="write charts of all trainings below a directory to one HTML file",
        description="Write charts of all trainings below a directory to one HTML file, which "
        "needs no network.",
    )
    report.set_defaults(run=_report)
    report.add_argument("logdir", metavar="LOGDIR", help="directory that GradientMonitor logs to")
    report.add_argument("-o", "--output", default="report.html", help="file to write")
    report.add_argument("--statistic", default="signal", help="what maps and lines show")
    report.add_argument("--title", default="Gradient flow", help="heading of the report")
    report.add_argument("--theme", choices=("light", "dark"), default="light")
    findings = commands.add_parser(
        "findings",
        help="tell why trainings below a directory do not learn, and what to change",
        description="Judge all trainings below a directory: what is seen, why it stops learning, "
        "and what to change.",
    )
    findings.set_defaults(run=_tell_findings)
    findings.add_argument("logdir", metavar="LOGDIR", help="directory that GradientMonitor logs to")
    findings.add_argument("--ignore", nargs="*", default=[], help="kinds to leave out")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ImportError, OSError, ValueError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        sys.stderr.write(f"keras-initkit: {text}\n")
        return 1
    return 0


def _tell_findings(options: argparse.Namespace) -> None:
    histories, problems = _read(options.logdir)
    for name, history in histories.items():
        diagnosis = diagnose_history(history, options.ignore)
        sys.stdout.write(f"{name}: {diagnosis}\n\n")
    for problem in problems:
        sys.stderr.write(f"keras-initkit: {problem}\n")


def _report(options: argparse.Namespace) -> None:
    histories, problems = _read(options.logdir)
    # After the logs: it takes a second, and a wrong directory is said at once.
    from tensorboard_plugin_initkit.charts.report import write_report

    write_report(
        histories,
        options.output,
        statistic=options.statistic,
        title=options.title,
        notes=problems,
        theme=options.theme,
    )
    for problem in problems:
        sys.stderr.write(f"keras-initkit: {problem}\n")
    runs = "1 run" if len(histories) == 1 else f"{len(histories)} runs"
    sys.stdout.write(f"{options.output}: {runs} from {options.logdir}\n")


def _read(log_dir: str) -> tuple[dict[str, GradientHistory], list[str]]:
    """Read all logs below a directory; damage is a problem to report."""
    from tensorboard_plugin_initkit.log.gradient_log import RUN

    histories, problems = {}, []
    for name, directory in _runs(log_dir):
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
        raise FileNotFoundError(_nothing_in(log_dir, "which is no directory"))
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
        f"LOGDIR must be a directory that a GradientMonitor has written to, or one above it. "
        f"Received: {log_dir!r}, {why}. These two lines write one:\n\n"
        "    from keras_initkit.callbacks import GradientMonitor\n"
        f"    model.fit(x, y, callbacks=[GradientMonitor({log_dir!r})])"
    )


if __name__ == "__main__":
    sys.exit(main())
