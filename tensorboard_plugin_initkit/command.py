"""`keras-initkit`: charts of a log from a shell, without Keras."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tensorboard_plugin_initkit.log import remote
from tensorboard_plugin_initkit.log.read_log import read_log
from tensorboard_plugin_initkit.record.history import GradientHistory


class _Logs(NamedTuple):
    histories: dict[str, GradientHistory]
    problems: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _report(options)
    except (ImportError, OSError, ValueError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        sys.stderr.write(f"keras-initkit: {text}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="keras-initkit", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)
    report = commands.add_parser(
        "report",
        help="write charts of all trainings below a directory to one HTML file",
        description="Write charts of all trainings below a directory to one HTML file, which "
        "needs no network.",
    )
    report.add_argument("logdir", metavar="LOGDIR", help="directory that GradientMonitor logs to")
    report.add_argument("-o", "--output", default="report.html", help="file to write")
    report.add_argument("--statistic", default="rms", help="what maps and lines show")
    report.add_argument("--title", default="Gradient flow", help="heading of the report")
    report.add_argument("--theme", choices=("light", "dark"), default="light")
    return parser


def _report(options: argparse.Namespace) -> int:
    logs = _read(options.logdir)
    if logs.problems and not logs.histories:
        raise ValueError("\n".join(logs.problems))
    # After the logs: it takes a second, and a wrong directory is said at once.
    from tensorboard_plugin_initkit.charts.report import write_report

    write_report(
        logs.histories,
        options.output,
        statistic=options.statistic,
        title=options.title,
        notes=logs.problems,
        theme=options.theme,
    )
    for problem in logs.problems:
        sys.stderr.write(f"keras-initkit: {problem}\n")
    runs = "1 run" if len(logs.histories) == 1 else f"{len(logs.histories)} runs"
    sys.stdout.write(f"{options.output}: {runs} from {options.logdir}\n")
    return 0


def _read(log_dir: str) -> _Logs:
    """Read all logs below a directory; an unreadable one is a problem to report."""
    from tensorboard_plugin_initkit.log.gradient_log import RUN

    logs = _Logs({}, [])
    for name, directory in _runs(log_dir):
        try:
            history = read_log(directory)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logs.problems.append(f"The log of {name!r} cannot be read: {error}")
            continue
        if len(history) or Path(directory).name == RUN:
            logs.histories[name] = history
    if not logs.histories and not logs.problems:
        raise FileNotFoundError(_nothing_in(log_dir, "which holds no log of gradients"))
    return logs


def _runs(log_dir: str) -> Iterator[tuple[str, str]]:
    """Yield the names and directories of the runs below a directory."""
    from tensorboard_plugin_initkit.log.event_file import event_files
    from tensorboard_plugin_initkit.log.gradient_log import RUN

    if remote.is_remote(log_dir):
        yield log_dir.rstrip("/").rpartition("/")[2], log_dir
        return
    if not Path(log_dir).is_dir():
        raise FileNotFoundError(_nothing_in(log_dir, "which is no directory"))
    top = Path(log_dir).resolve()
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
