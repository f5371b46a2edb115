"""`Facts`: the input of all rules, read from a history once."""

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.diagnosis.loss import Loss, read_loss
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import (
    Bools,
    Floats,
    Ints,
    find_windows,
    lower_median,
    mean_of_known,
    quotient,
)
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.record.setup import Setup
from tensorboard_plugin_initkit.record.signal import shows_units


class Facts:
    """Some records of a history: statistics of variables, by layer, in windows.

    Layers are those of the variables' paths, not `history.layers`: there, each variable may be a
    layer of its own. The rows are a slice or sorted positions, with the first record and whole
    windows; the loss is read of all records, always.

    Attributes:
        steps: Recorded steps, (n,).
        layers: Paths.
        layer_of: Position of each variable's layer.
        optimizers: Their names.
        optimizer_of: Position of each layer's optimizer.
        units: Mask of the variables for the units of their layers.
        start: For each record, the first one of the window ending with it, (n,).
        ready: For each record, if this window is long enough to judge by, (n,).
        loss: Course of the loss.
        setup: The model as it is built and compiled; empty if it is not known.
        records: The records themselves.
        ports: Inputs, targets, predictions and sample weights.
    """

    def __init__(
        self, history: GradientHistory, rows: slice | Ints = slice(None), ended: bool = False
    ) -> None:
        self.records = history.select(rows)
        self.setup = history.setup or Setup()
        self.ports = history.ports
        self._cache: dict[str, Floats] = {}
        self.steps: Ints = self.records.steps
        variables = history.layout.variables
        paths = [variable.path.rpartition("/")[0] or variable.path for variable in variables]
        self.layers = list(dict.fromkeys(paths))
        position = {layer: i for i, layer in enumerate(self.layers)}
        self.layer_of: Ints = np.array([position[path] for path in paths], np.int64)
        # The columns of each layer side by side, for `by_layer`.
        self._order = np.argsort(self.layer_of, kind="stable")
        self._begins = np.searchsorted(self.layer_of[self._order], np.arange(len(self.layers)))
        self.optimizers = history.optimizers
        optimizers = [self.optimizers.index(variable.optimizer) for variable in variables]
        self.optimizer_of: Ints = np.array(optimizers, np.int64)[self._order[self._begins]]
        self._receivers = [variable.receivers for variable in variables]
        self.units: Bools = shows_units(history.variables, self.per_variable("dead_units"))
        self.start, self.ready = self.find_windows("window_steps")
        self.loss: Loss = read_loss(history, self.setup, ended).at(rows)

    def find_windows(self, span: str) -> tuple[Ints, Bools]:
        """Find the windows of a threshold: the first record of each, and if it is long enough."""
        spread = self.per_port("batch_std")[:1, self.ports_of("x") + self.ports_of("y")]
        is_single = bool(spread.size) and not spread.any()
        return find_windows(self.steps, THRESHOLDS[span].value, self.setup.steps, is_single)

    def per_variable(self, statistic: str) -> Floats:
        """Return a statistic of every variable, (n, variables)."""
        if statistic not in self._cache:
            self._cache[statistic] = self.records.per_variable(statistic)
        return self._cache[statistic]

    def per_port(self, statistic: str) -> Floats:
        """Return a statistic of every port, (n, ports)."""
        return self.records.per_port(statistic)

    def ports_of(self, role: str) -> list[int]:
        """Return the positions of the ports of a role, in the order of inputs or outputs."""
        return [i for i, port in enumerate(self.ports) if port.role == role]

    def total(self, statistic: str) -> Floats:
        """Return a statistic of optimizers: the mean of the known ones, (n,)."""
        return mean_of_known(self.records[statistic])

    def by_layer(self, combine: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Combine the columns of each layer's variables: (n, variables) to (n, layers)."""
        return combine.reduceat(values[:, self._order], self._begins, axis=1)

    def norm_of_layers(self, norms: Floats) -> Floats:
        """Return the norm of each layer from those of its variables; unknown ones are left out."""
        return np.sqrt(self.by_layer(np.add, np.square(np.nan_to_num(norms))))

    @functools.cached_property
    def receivers(self) -> list[dict[int, str]]:
        """For each layer, the recorded ones that take its output, and the activation before each.

        The position -1 is for an output of the model. Nothing is known of a layer without any.
        """
        inside: dict[str, list[int]] = {"": [-1]}
        for position, layer in enumerate(self.layers):
            for prefix in itertools.accumulate(layer.split("/"), "{}/{}".format):
                inside.setdefault(prefix, []).append(position)
        receivers: list[dict[int, str]] = [{} for _ in self.layers]
        for layer, pairs in zip(self.layer_of, self._receivers, strict=True):
            for path, activation in pairs:
                receivers[layer].update(dict.fromkeys(inside.get(path, ()), activation))
        return receivers

    def update_ratios(self, rows: slice) -> Floats:
        """Return the norm of the update of each layer with weights at first, relative to theirs."""
        norms, ratios = (self.per_variable(name)[rows] for name in ("weight_norm", "update_ratio"))
        began = self.norm_of_layers(self.per_variable("weight_norm")[:1])[0] > 0
        updates = self.norm_of_layers(np.nan_to_num(ratios, posinf=0.0) * norms)
        return quotient(updates, self.norm_of_layers(norms))[:, began]

    @functools.cached_property
    def median_update(self) -> Floats:
        """Median of the update ratios over layers, (n,); nothing if no layer has weights."""
        return lower_median(self.update_ratios(slice(None)))

    @property
    def is_begin(self) -> bool:
        """Whether the records begin with the first step of a training that is not resumed."""
        return bool(len(self.steps)) and int(self.steps[0]) == 0

    @property
    def first_rows(self) -> slice:
        """Rows of the first steps of the training: updates are judged there."""
        last = self.steps[0] + THRESHOLDS["first_steps"].value
        return slice(0, int(np.searchsorted(self.steps, last, side="right")))

    def find_late(self, patience: str) -> Bools:
        """Find the records that are so many steps after the first one, of `THRESHOLDS`: (n,)."""
        return self.steps - self.steps[:1] >= THRESHOLDS[patience].value

    def find_nonfinite(self) -> Bools:
        """Find the variables with NaN or infinite gradients or weights, (n, variables)."""
        count = self.per_variable("nonfinite")
        weights = self.per_variable("weight_norm")
        # Where the first are not known, they are not recorded.
        lost = ~np.isnan(count) & ~np.isfinite(weights) & np.isfinite(weights[:1])
        return (count > 0) | lost

    def layer_of_head(self, head: int) -> str:
        """Return the path of the layer of an output of the model; "" if it is not known."""
        heads = self.setup.heads
        if head >= len(heads) or heads[head].layer < 0:
            return ""
        return self.setup.layers[heads[head].layer].path
