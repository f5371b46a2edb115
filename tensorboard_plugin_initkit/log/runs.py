"""Runs in a directory: no training writes over, or into, the run of another one."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from tensorboard_plugin_initkit.log.paths import path_at


def find_runs(log_dir: str | os.PathLike[str], kind: str) -> dict[int, Any]:
    """Return paths of runs in a directory or URL by number: 1 is `kind`, 2 `kind_2`, and so on."""
    place = path_at(log_dir)
    if not isinstance(place, Path):
        place.fs.invalidate_cache()
    runs = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in place.iterdir():
            if match := re.fullmatch(rf"{re.escape(kind)}(?:_([2-9]|[1-9]\d+))?", path.name):
                runs[int(match[1] or 1)] = path
    return dict(sorted(runs.items()))


class RunPlace:
    """The run that a callback logs to, chosen once, when there is something to write.

    It is the last one in the directory where a training goes on from earlier steps, and a new one
    otherwise, as for a copy of the callback.
    """

    def __init__(self, log_dir: Path | str, kind: str) -> None:
        self.log_dir = log_dir
        self._kind = kind
        self._name = ""
        self._is_copy = False
        self.resumes: bool | None = None  # if the training goes on from earlier steps

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy: another training's, whatever its first step is."""
        return self.__dict__ | {"_name": "", "_is_copy": True, "resumes": None}

    def choose(self) -> str:
        """Return the run's name; raise OSError if its directory cannot be made."""
        if not self._name:
            last = max(runs := find_runs(self.log_dir, self._kind), default=0)
            goes_on = bool(runs) and self.resumes and not self._is_copy
            self._name = runs[last].name if goes_on else self._make(last + 1)
        return self._name

    def _make(self, number: int) -> str:
        place, name = path_at(self.log_dir), self._kind if number == 1 else f"{self._kind}_{number}"
        if isinstance(place, Path):
            try:
                (place / name).mkdir(parents=True)
            except FileExistsError:  # another process was quicker
                return self._make(number + 1)
        return name
