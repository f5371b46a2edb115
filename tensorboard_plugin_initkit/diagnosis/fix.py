"""`Fix`: the change for a finding, as text and as repairs of a model."""

import dataclasses
import importlib
from collections.abc import Iterable
from typing import Any

from tensorboard_plugin_initkit.stored_json import Checks, check_fields, is_text

# Learning rates to begin with: that of an optimizer, and of all others.
USUAL_RATES, USUAL_RATE = {"SGD": 1e-2, "Adadelta": 1.0}, 1e-3


@dataclasses.dataclass(frozen=True)
class Fix:
    """The change to make for a finding.

    `str(fix)` is its text. A fix without a text is false: there is no advice.

    Attributes:
        text: Code to paste, or advice in a few words; "" for none.
        repairs: The changes made by `apply`, in order: arguments by the name of the repair, plain
            data. Empty where the change is one of the data, or of your code.
    """

    text: str = ""
    repairs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)

    def apply(self, model: Any, x: Any = None, y: Any = None) -> Any:
        """Make the change in a model; return the model to train on.

        All else stays as it is: other weights, the optimizer with its state, metrics, settings.
        The model is changed in place where that can be done. Otherwise a new one is returned:
        around the given one, to normalize its data, or with copies of its weights.

        Example:
        ```python
        for finding in keras_initkit.check(model, x, y):
            model = finding.fix.apply(model, x, y)
        ```

        Args:
            model: A `keras.Model`, as it was when it was diagnosed, or one built alike.
            x: Data as for `fit`. Needed to normalize them.
            y: Targets, if `x` is arrays.

        Returns:
            The model, or the new one, compiled.

        Raises:
            ValueError: If the change cannot be made in a model, or in this one; with the advice to
                follow by hand.
        """
        # By its name, as in this wing no module imports Keras or the packages above.
        repair = importlib.import_module("keras_initkit.models.repair.apply")
        return repair.apply_fix(self, model, x, y)


def activate(paths: Iterable[str], activation: str) -> dict[str, dict[str, Any]]:
    """Write the repair to give layers another activation, "linear" for none."""
    return {"activation": {"layers": dict.fromkeys(paths, activation)}}


def remove(path: str) -> dict[str, dict[str, Any]]:
    """Write the repair to leave out a layer."""
    return {"rebuild": {"layers": {path: None}}}


def read_fix(item: Any) -> Fix:
    """Read a fix from JSON; raise ValueError for anything else."""
    return Fix(**check_fields(item, _FIELDS, "fix of a finding"))


def _are_repairs(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


_FIELDS: Checks = {"text": is_text, "repairs": _are_repairs}
