"""First verdicts on recorded gradients: pure functions of a `GradientHistory`.

Each rule is a function from a record to findings. A rule looks, at every recorded step, only at
that step and at those before it, and speaks at the first one at which it holds: what was found in
a record stays found when the training goes on.

What they have in common:

- **Persistence.** Apart from numbers that are not finite, nothing is judged by one step: what is
  said must have held at all records of a window. Zero-initialised heads and residual branches give
  everything below them a gradient of exactly zero, for one update.
- **Scale.** Losses have units, and adaptive optimizers divide the scale of a gradient out: no
  magnitude is judged by itself. Gradients are compared between the layers of one model, or with
  those of the past.
- **Depth.** Layers are compared by the gradient of their *biases* (of kernels where there are no
  biases): that is the signal that comes back to their units, averaged over the batch. A kernel's
  gradient is the product of this signal and of the layer's inputs; in a ReLU network of badly
  scaled weights, where one falls over depth as the other grows, it is the same in all layers.
- **A good loss speaks for the training.** Where the loss is falling or has halved, what is only a
  sign of trouble is not reported.

The thresholds, and a reason for each, are in `THRESHOLDS`. docs/explanations/rules.md has what was
measured.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.record.history import GradientHistory

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Threshold(NamedTuple):
    """A number that a verdict depends on, and why it is this one."""

    value: float
    reason: str


THRESHOLDS: dict[str, Threshold] = {
    "window_steps": Threshold(
        10,
        "Zero-initialised heads and branches need one or two updates to pass a gradient on, and "
        "the momentum of an optimizer lasts about ten.",
    ),
    "window_records": Threshold(
        3, "Two can be alike by chance. At the default of every 10th step, three are 20 steps."
    ),
    "depth_window_steps": Threshold(
        30,
        "Adam moves all layers alike, by about 0.003 of their weights a step: it mends a mild "
        "slope over depth within 30 steps, or not at all. For the square of `depth_ratio`, which "
        "nothing mends, `window_steps` is enough.",
    ),
    "depth_layers": Threshold(
        5, "Two layers at each end, and the output layer: fewer have no trend over depth."
    ),
    "depth_ratio": Threshold(
        1e-4,
        "With plain gradient descent the layers at one end move 10,000 times less than those at "
        "the other: no training is so long. With Adam, gradients of 0.001 at the output come near "
        "its epsilon of 1e-7. Networks that learned stayed above 2.5e-4 or mended; those that "
        "failed were below 4e-5.",
    ),
    "depth_mending": Threshold(
        10, "A slope that has become ten times less steep within its window is about to be gone."
    ),
    "dead_share": Threshold(
        0.9,
        "Of a layer's ReLUs about half are inactive for one sample and hardly any for a whole "
        "batch. Narrow layers learn with 0.8 of theirs dead for good.",
    ),
    "weight_growth": Threshold(
        10,
        "What is left of the initial weights is a tenth. Working learning rates change weights by "
        "0.001 to 0.01 a step, which is at most a doubling in 100 steps.",
    ),
    "update_small": Threshold(
        2.0**-24, "Half the resolution of float32: a weight is rounded to what it was."
    ),
    "first_steps": Threshold(
        100,
        "Later on, small updates may be those of a training that has converged, and weights may "
        "have grown for good.",
    ),
    "norm_growth": Threshold(
        1e3, "Gradients grow by 10 to 100 when a healthy network leaves its first plateau."
    ),
    "loss_halved": Threshold(
        0.5, "More than is won by fitting the output's bias to targets that are nearly balanced."
    ),
    "loss_falling": Threshold(
        0.1, "From one window to the next: more than what differs between batches."
    ),
    "loss_risen": Threshold(1, "Doubled: the noise of batches is less."),
    "loss_gone": Threshold(
        1e-3, "Of the first loss: all is learned, and gradients may well be exactly zero."
    ),
}


def judge(history: GradientHistory) -> list[Finding]:
    """All findings in a history, in order of step.

    Args:
        history: What a `GradientMonitor` recorded up to now, at any schedule.

    Returns:
        Findings, each at the first record that allows it. While records are only added, those of
        now are found again later. Ask `news` what is new.
    """
    if not len(history) or not history.variables:
        return []
    record = _Record(history)
    findings = list(_nonfinite(record))
    if findings:  # What comes after it follows from it.
        record = _Record(history, findings[0].step)
    if len(record.steps):
        blocked = sorted([*_over_depth(record), *_cut_off(record)], key=_by_step)
        findings += news((), blocked)
        findings += [*_never_reached(record), *_updates(record), *_growth(record)]
        findings += _dead_units(record, findings)
    return sorted(findings, key=_by_step)


def _by_step(finding: Finding) -> int:
    return finding.rank


def news(known: Iterable[Finding], judged: Iterable[Finding]) -> list[Finding]:
    """What says something new, of a record that is judged again and again.

    A history that thins itself loses records, so that later on a finding can come a few records
    later, and with another layer.

    Args:
        known: The findings up to now.
        judged: What `judge` finds now.
    """
    said = list(known)
    count = len(said)
    for finding in judged:
        if not any(_echoes(finding, other) for other in said):
            said.append(finding)
    return said[count:]


def _echoes(finding: Finding, other: Finding) -> bool:
    return (
        finding.key == other.key
        or other.kind == "nonfinite"
        or (_is_at_input(finding) and _is_at_input(other))
        or (_is_partly_dead(finding) and _is_partly_dead(other))
    )


def _is_at_input(finding: Finding) -> bool:
    return finding.kind == "vanishing" or finding.evidence.get("from_input") == 1


def _is_partly_dead(finding: Finding) -> bool:
    return finding.kind == "dead_units" and finding.evidence["share"] < 1


class Bands(NamedTuple):
    """Where in a record the rule of vanishing and exploding gradients over depth holds.

    Attributes:
        steps: Recorded steps, (n,).
        vanishing, exploding: Whether it holds at each, and has for a window, (n,). False from the
            first record with numbers that are not finite on.
    """

    steps: Ints
    vanishing: Bools
    exploding: Bools


def depth_bands(history: GradientHistory) -> Bands:
    """Say where, and not only whether, gradients vanish or explode over depth.

    Args:
        history: A record; of a long one, some records evenly chosen will do.
    """
    vanishing, exploding = np.zeros((2, len(history)), bool)
    if len(history) and history.variables:
        record = _Record(history)
        for finding in _nonfinite(record):
            record = _Record(history, finding.step)
        if len(record.steps):
            rows = slice(0, len(record.steps))
            for optimizer in np.unique(record.optimizer_of):
                slope = _slope(record, _profile(record, int(optimizer)).signal)
                vanishing[rows] |= slope.falls
                exploding[rows] |= slope.grows
    return Bands(history.steps, vanishing, exploding)


class _Record:
    """The statistics that the rules need, with what they have in common.

    Attributes:
        steps: Recorded steps, (n,).
        layers: Paths.
        layer_of: Position of each variable's layer.
        optimizer_of: Position of each layer's optimizer.
        units: Columns of the variables that have an element a unit: biases, or kernels without.
        start: For each record, the first one of the window that ends with it, (n,).
        ready: Whether that window is long enough to judge by, (n,).
        loss: What the loss says.
    """

    def __init__(self, history: GradientHistory, end: int | None = None) -> None:
        self._history = history
        self._cache: dict[str, Floats] = {}
        rows = len(history) if end is None else int(np.searchsorted(history.steps, end))
        self._rows = slice(0, rows)
        self.steps: Ints = history.steps[self._rows]
        # Not `history.layers`: that has one for each variable, if asked to.
        paths = [path.rpartition("/")[0] or path for path in history.variables]
        self.layers = list(dict.fromkeys(paths))
        position = {layer: i for i, layer in enumerate(self.layers)}
        self.layer_of: Ints = np.array([position[path] for path in paths], np.int64)
        # Where there are several optimizers, each one's name stands before its layers.
        names = history.optimizers if len(history.optimizers) > 1 else []
        self.optimizer_of: Ints = np.array(
            [
                next((i for i, name in enumerate(names) if layer.startswith(f"{name}/")), -1)
                for layer in self.layers
            ]
        )
        # The columns of each layer side by side, for `by_layer`.
        self._order = np.argsort(self.layer_of, kind="stable")
        self._begins = np.searchsorted(self.layer_of[self._order], np.arange(len(self.layers)))
        defined = ~np.isnan(self.per_variable("dead_units")).all(axis=0)
        named = [path.endswith(("/bias", "/beta")) for path in history.variables]
        self.units: Ints = np.flatnonzero(defined | np.array(named, bool))
        self.start, self.ready = _windows(self.steps, THRESHOLDS["window_steps"].value)
        self.loss = _loss(self)

    def per_variable(self, statistic: str) -> Floats:
        """As `GradientHistory.per_variable`, of the records that are judged."""
        if statistic not in self._cache:
            self._cache[statistic] = self._history.per_variable(statistic)[self._rows]
        return self._cache[statistic]

    def total(self, statistic: str) -> Floats:
        """Of what there is one number an optimizer: the mean of those that are known, (n,)."""
        values = self._history[statistic][self._rows]
        known = ~np.isnan(values)
        return _quotient(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))

    def by_layer(self, combine: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Combine the columns of each layer's variables: (n, variables) to (n, layers)."""
        return combine.reduceat(values[:, self._order], self._begins, axis=1)

    def window_mean(self, values: npt.NDArray[Any]) -> Floats:
        """Mean over the window that ends at each record, unknown ones left out, (n,)."""
        known = np.isfinite(values)
        # Not by differences of cumulative sums: a first loss of 1e20 would drown all others.
        edges = np.stack([self.start, np.arange(len(values)) + 1], axis=1).ravel()
        sums, counts = (
            np.add.reduceat(np.append(array, 0.0), edges)[::2]
            for array in (np.where(known, values, 0.0), known)
        )
        return _quotient(sums, counts)


def _windows(steps: Ints, span: float) -> tuple[Ints, Bools]:
    """For each record, the first one of its window; and whether that is long enough."""
    records = int(THRESHOLDS["window_records"].value)
    start = np.minimum(np.searchsorted(steps, steps - span), np.arange(len(steps)) - records + 1)
    ready = (start >= 0) & (steps - steps[:1] >= span)
    return np.maximum(start, 0), ready


def _persists(condition: Bools, start: Ints, ready: Bools) -> Bools:
    """Where a condition, of shape (n,) or (n, …), has held at all records of the window."""
    shape = (-1, *[1] * (condition.ndim - 1))
    index = np.arange(len(condition)).reshape(shape)
    last_miss = np.maximum.accumulate(np.where(condition, -1, index), axis=0)
    return (last_miss < start.reshape(shape)) & ready.reshape(shape)


class _Loss(NamedTuple):
    """What the loss says at each record, (n,). Where it is not known, all are False."""

    halved: Bools
    falling: Bools
    gone: Bools
    risen: Bools

    @property
    def good(self) -> Bools:
        return self.halved | self.falling


def _loss(record: _Record) -> _Loss:
    loss = record.total("loss")
    known = loss[np.isfinite(loss)]
    first = known[0] if len(known) else np.nan
    recent = record.window_mean(loss)
    # The window before; at the beginning there is none, and the first loss stands for it.
    previous = np.where(record.start > 0, recent[np.maximum(record.start - 1, 0)], first)
    with np.errstate(invalid="ignore"):
        return _Loss(
            halved=first - recent >= THRESHOLDS["loss_halved"].value * abs(first),
            falling=previous - recent >= THRESHOLDS["loss_falling"].value * np.abs(previous),
            gone=np.abs(recent) <= THRESHOLDS["loss_gone"].value * abs(first),
            risen=recent - first >= THRESHOLDS["loss_risen"].value * abs(first),
        )


def _quotient(part: Any, whole: Any) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole)


def _first(condition: Any) -> int | None:
    return int(condition.argmax()) if condition.any() else None


def _runs(mask: Bools) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(begin), int(end) - 1) for begin, end in edges.reshape(-1, 2)]


def _nonfinite(record: _Record) -> Iterator[Finding]:
    """NaN or infinite gradients: one record is enough, as the weights are lost with it.

    The backward pass begins at the output: of the layers with such numbers, the last one of the
    model is where they come from. Where that is the last layer, it is the forward pass.
    """
    count = record.per_variable("nonfinite")
    weights = record.per_variable("weight_norm")
    # Where the first are not known, they are not recorded.
    lost = ~np.isnan(count) & ~np.isfinite(weights) & np.isfinite(weights[:1])
    affected = (count > 0) | lost
    row = _first(affected.any(axis=1))
    if row is None:
        return
    bad = record.by_layer(np.logical_or, affected)
    step, last = int(record.steps[row]), int(np.flatnonzero(bad[row])[-1])
    number, layers = float(np.nansum(count[row])), int(bad[row].sum())
    what = f"{number:.0f} elements of the gradient are" if number else "weights are"
    where = (
        "the last recorded layer"
        if last == len(record.layers) - 1
        else "the layers after it are not"
    )
    yield Finding(
        "nonfinite",
        record.layers[last],
        step,
        f"Non-finite numbers: at step {step} {what} NaN or infinite, in {layers} of "
        f"{len(record.layers)} layers, the last of them `{record.layers[last]}` ({where}).",
        {"elements": number, "layers": float(layers)},
        severity="error",
    )


def _never_reached(record: _Record) -> Iterator[Finding]:
    """Trainable layers that the loss does not depend on: the framework gives them no gradient."""
    missing = np.isnan(record.per_variable("nonfinite"))
    if not missing.any():
        return
    missing = record.by_layer(np.logical_and, missing)
    # An optimizer may wait for others, as in adversarial training: its own records count.
    heard = np.zeros(missing.shape, np.int64)
    for optimizer in np.unique(record.optimizer_of):
        own = record.optimizer_of == optimizer
        heard[:, own] = np.cumsum(~missing[:, own].all(axis=1))[:, None]
    never = np.logical_and.accumulate(missing, axis=0) & record.ready[:, None]
    never &= heard >= THRESHOLDS["window_records"].value
    row = _first(never.any(axis=1))
    if row is None:
        return
    for begin, end in _runs(never[row]):
        step, layer = int(record.steps[row]), record.layers[begin]
        others = f" nor any of the {end - begin} layers after it" if end > begin else ""
        yield Finding(
            "no_gradient",
            layer,
            step,
            f"No gradient: up to step {step} `{layer}` has received no gradient{others}; the loss "
            "does not depend on its weights.",
            {"layers": float(end - begin + 1)},
        )


class _Profile(NamedTuple):
    """Gradients over depth: one column a layer, input first, without the output layer.

    The output layer is left out since its gradient does not come through weights: a small one in
    front of it (zeros, at first) makes a step there, not a slope.

    Attributes:
        signal: RMS of the elements that are not zero, (n, depth).
        layers: Position of each column's layer.
    """

    signal: Floats
    layers: Ints


def _profile(record: _Record, optimizer: int = -1) -> _Profile:
    columns = record.units[record.optimizer_of[record.layer_of[record.units]] == optimizer][:-1]
    zeros = np.nan_to_num(record.per_variable("zeros")[:, columns])
    # Of an embedding, most rows are in no sample: the others count.
    signal = _quotient(record.per_variable("rms")[:, columns], np.sqrt(1 - zeros))
    return _Profile(np.where(zeros == 1, 0.0, signal), record.layer_of[columns])


def _over_depth(record: _Record) -> Iterator[Finding]:
    """Vanishing and exploding: the gradient at one end of the depth relative to the other.

    The slope is that between the medians of the first and the last third, extrapolated to all of
    the depth. Besides, no layer of the small end may come near the large one: a stem or a branch
    with a gradient of its own makes up for others. A single layer without one, such as the biases
    of attention's keys (zero in theory: a softmax does not change with them) or those in front of
    a normalization, is filled from its neighbours, and does not count.

    A falling loss is no excuse for exploding gradients: theirs begins so large that any training
    at all makes it fall.
    """
    for optimizer in np.unique(record.optimizer_of):
        signal, layers = _profile(record, int(optimizer))
        slope = _slope(record, signal)
        for kind, steep in (("vanishing", slope.falls), ("exploding", slope.grows)):
            row = _first(steep)
            if row is not None:
                yield _depth_finding(record, kind, row, slope.filled[slope.known[row]], layers)


class _Slope(NamedTuple):
    """Whether the gradient falls or grows too steeply on its way back, (n,), and what was judged.

    Attributes:
        falls, grows: Whether it does at each record, and has for a window.
        filled: The signal in which single layers without one are filled, (n, depth).
        known: For each record the last one up to it in which all layers have a signal, (n,); -1
            if there is none.
    """

    falls: Bools
    grows: Bools
    filled: Floats
    known: Ints


def _slope(record: _Record, signal: Floats) -> _Slope:
    depth, filled = signal.shape[1], _filled(signal)
    known = np.where((filled > 0).all(axis=1), np.arange(len(signal)), -1)
    known = np.maximum.accumulate(known)
    if depth + 1 < THRESHOLDS["depth_layers"].value:
        never = np.zeros(len(signal), bool)
        return _Slope(never, never, filled, known)
    third = max(2, depth // 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(np.stack([signal, filled]))
        # Of each end: the largest of all, and the median of the filled ones.
        front_most = np.fmax.reduce(level[0, :, :third], axis=1)
        back_most = np.fmax.reduce(level[0, :, -third:], axis=1)
        front, back = (
            np.median(level[1, :, :third], axis=1),
            np.median(level[1, :, -third:], axis=1),
        )
        total = (front - back) * (depth - 1) / (depth - third)
        falls = _is_steep(record, total, front_most - back) & ~record.loss.good
        grows = _is_steep(record, -total, back_most - front)
    # Of a window in which nothing at all comes back, `_cut_off` speaks.
    seen = known >= record.start
    return _Slope(falls & seen, grows & seen, filled, known)


def _is_steep(record: _Record, total: Floats, nearest: Floats) -> Bools:
    """Whether the logarithm of one end's gradient relative to the other's is steep and stays so."""
    limit = np.log(THRESHOLDS["depth_ratio"].value)
    start, ready = _windows(record.steps, THRESHOLDS["depth_window_steps"].value)
    mending = total - total[start] > np.log(THRESHOLDS["depth_mending"].value)
    steep = _persists((total < limit) & (nearest < limit / 2), start, ready) & ~mending
    hopeless = (total < 2 * limit) & (nearest < limit)
    return steep | _persists(hopeless, record.start, record.ready)


def _filled(signal: Floats) -> Floats:
    """The largest of each column and its neighbours, of those that received a gradient."""
    filled = signal.copy()
    filled[:, 1:] = np.fmax(filled[:, 1:], signal[:, :-1])
    filled[:, :-1] = np.fmax(filled[:, :-1], signal[:, 1:])
    return filled


def _depth_finding(record: _Record, kind: str, row: int, signal: Floats, layers: Ints) -> Finding:
    step = int(record.steps[row])
    first, last = record.layers[layers[0]], record.layers[layers[-1]]
    ratio, between = float(signal[0] / signal[-1]), len(signal) - 1
    factor = ratio ** (1 / between)
    changes = "falls" if kind == "vanishing" else "grows"
    return Finding(
        kind,
        first,
        step,
        f"{kind.capitalize()} gradients: by step {step} the RMS gradient of `{first}` is "
        f"{ratio:.2g} of that of `{last}`; on its way back it {changes} by x{factor:.2g} per "
        f"layer over {between} layers.",
        {"ratio": ratio, "factor": factor, "layers": float(between)},
    )


def _cut_off(record: _Record) -> Iterator[Finding]:
    """Layers whose whole gradient is exactly zero, up to one that passes nothing back.

    Where they begin at the input, a loss that has halved is no excuse: fitting the output's bias
    can do that, after a start with a large loss. One that is still falling is, and where all layers
    are without gradient, one that is gone. Further on it may be a branch that others go around:
    there any good loss is enough.
    """
    norm = record.per_variable("norm")
    if (norm != 0).all():
        return
    nothing = record.by_layer(np.logical_and, (norm == 0) | np.isnan(norm))
    zero = _persists(
        nothing & record.by_layer(np.logical_or, norm == 0), record.start, record.ready
    )
    from_input = np.logical_and.accumulate(zero, axis=1)
    loss = record.loss
    at_input = loss.falling | (loss.gone & zero.all(axis=1))
    zero &= ~np.where(from_input, at_input[:, None], loss.good[:, None])
    said = np.zeros(len(record.layers), bool)
    for row in np.unique(zero.argmax(axis=0)[zero.any(axis=0)]):
        for begin, end in _runs(zero[row]):
            if not said[begin : end + 1].any():
                yield _cut_finding(record, int(row), begin, end)
            said[begin : end + 1] = True


def _cut_finding(record: _Record, row: int, begin: int, end: int) -> Finding:
    step, count = int(record.steps[row]), end - begin + 1
    evidence = {"layers": float(count), "from_input": float(begin == 0)}
    since = f"from step {record.steps[record.start[row]]} to {step}"
    if count == len(record.layers):
        message = (
            f"No gradient: {since} the gradient is exactly zero in all {count} recorded layers."
        )
        return Finding("no_gradient", "", step, message, evidence)
    layer = record.layers[end]
    others = f" and in the {end - begin} layers before it" if end > begin else ""
    message = f"{since} the gradient is exactly zero in `{layer}`{others}"
    if end + 1 < len(record.layers) and _weighs_nothing(record, row, end + 1):
        after = record.layers[end + 1]
        message = f"No gradient: {message}; the weights of `{after}` after it are all zero."
        return Finding("no_gradient", layer, step, message, evidence)
    message = f"Dead units: {message}; all of its units are inactive or saturated."
    return Finding("dead_units", layer, step, message, evidence | {"share": 1.0})


def _weighs_nothing(record: _Record, row: int, layer: int) -> bool:
    """Whether all weights but biases are zero."""
    columns = np.flatnonzero(record.layer_of == layer)
    weights = np.setdiff1d(columns, record.units) if len(columns) > 1 else columns
    return bool((record.per_variable("weight_norm")[row, weights] == 0).all())


def _dead_units(record: _Record, found: list[Finding]) -> Iterator[Finding]:
    """Most units of a layer receive exactly no gradient, in bias and kernel, while others do.

    Both are asked for: the bias of attention's keys can be zero by theory, a kernel's columns
    because of inputs that are zero. Of several layers, it is said of the one nearest the output:
    units before it may be dead because of it.
    """
    units, limit = record.units, THRESHOLDS["dead_share"].value
    share = record.per_variable("dead_units")[:, units]
    if not (share >= limit).any():
        return
    share = np.minimum(share, _zeros(record)[:, units])
    dead = (share >= limit) & (record.per_variable("norm")[:, units] > 0)
    lasting = _persists(dead, record.start, record.ready) & ~record.loss.good[:, None]
    row = _first(lasting.any(axis=1))
    if row is None:
        return
    column = int(np.flatnonzero(lasting[row])[-1])
    layer, step = record.layers[record.layer_of[units[column]]], int(record.steps[row])
    if any(f.kind in ("dead_units", "vanishing") and f.rank <= step for f in found):
        return
    number, value = int(lasting[row].sum()), float(share[row, column])
    others = f", and at least {number - 1} layers more are like it" if number > 1 else ""
    yield Finding(
        "dead_units",
        layer,
        step,
        f"Dead units: from step {record.steps[record.start[row]]} to {step} {value:.0%} of the "
        f"units of `{layer}` receive no gradient{others}.",
        {"share": value, "layers": float(number)},
    )


def _zeros(record: _Record) -> Floats:
    """Share of exact zeros in the gradient of each variable's whole layer, (n, variables)."""
    norm, rms = record.per_variable("norm"), record.per_variable("rms")
    size = np.nanmax(np.square(_quotient(norm, rms)), axis=0, initial=1.0)
    size = np.where(np.isfinite(size), size, 1.0) * np.ones_like(norm)
    zeros = record.by_layer(np.add, np.nan_to_num(record.per_variable("zeros")) * size)
    return _quotient(zeros, record.by_layer(np.add, size))[:, record.layer_of]


def _updates(record: _Record) -> Iterator[Finding]:
    """Updates that overwrite the initial weights, or that are too small to change any.

    The first is said of the median of the layers that began with weights: a zero-initialised head
    rightly grows. The second is said of all layers, and not while the learning rate is warming up.
    """
    last = record.steps[0] + THRESHOLDS["first_steps"].value
    rows = slice(0, int(np.searchsorted(record.steps, last, side="right")))
    squares = np.square(np.nan_to_num(record.per_variable("weight_norm")[rows]))
    weights = np.sqrt(record.by_layer(np.add, squares))
    began = weights[0] > 0
    if not began.any():
        return
    yield from _large_updates(record, weights[:, began])
    ratios = record.per_variable("update_ratio")[rows]
    if np.isnan(ratios).all():  # Not recorded.
        return
    ratios = np.nan_to_num(ratios, posinf=0.0)
    updates = np.sqrt(record.by_layer(np.add, np.square(ratios) * squares))
    yield from _small_updates(record, _quotient(updates, weights)[:, began].max(axis=1))


def _large_updates(record: _Record, weights: Floats) -> Iterator[Finding]:
    growth = np.median(weights / weights[0], axis=1)
    judged = (record.ready & ~record.loss.halved)[: len(growth)]
    row = _first(judged & (growth >= THRESHOLDS["weight_growth"].value))
    if row is None:
        return
    step, value = int(record.steps[row]), float(growth[row])
    yield Finding(
        "large_updates",
        "",
        step,
        f"Large updates: from step {record.steps[0]} to {step} the weights of the median layer "
        f"grew to {value:.2g} times their norm; what they began with is lost.",
        {"growth": value},
    )


def _small_updates(record: _Record, ratio: Floats) -> Iterator[Finding]:
    rows = slice(0, len(ratio))
    start, rate = record.start[rows], record.total("learning_rate")
    moved = (record.per_variable("norm")[rows] > 0).any(axis=1)
    small = (ratio < THRESHOLDS["update_small"].value) & moved
    warming = rate[rows] > rate[start]
    row = _first(_persists(small, start, record.ready[rows]) & ~warming)
    if row is None:
        return
    step, value = int(record.steps[row]), float(ratio[row])
    yield Finding(
        "small_updates",
        "",
        step,
        f"Small updates: from step {record.steps[record.start[row]]} to {step} an update changes "
        f"the weights of no layer by more than {value:.2g} of their norm, which float32 rounds "
        "away.",
        {"update_ratio": value},
    )


def _growth(record: _Record) -> Iterator[Finding]:
    """Gradients that explode from step to step, as those of a training that diverges do."""
    norm = np.sqrt(np.nansum(np.square(record.per_variable("norm")), axis=1))
    ready = _first(record.ready)
    if ready is None:
        return
    before = record.window_mean(norm)[ready]
    grown = _persists(norm > THRESHOLDS["norm_growth"].value * before, record.start, record.ready)
    grown &= record.loss.risen
    if (row := _first(grown)) is not None:
        step, factor = int(record.steps[row]), float(norm[row] / before)
        yield Finding(
            "exploding",
            "",
            step,
            f"Exploding gradients: at step {step} the norm of all gradients is {factor:.2g} times "
            f"what it was up to step {record.steps[ready]}, and the loss has doubled.",
            {"factor": factor, "norm": float(norm[row])},
        )
