"""The gradient over the depth of a model: its slope, and the word for it.

"Vanishing" and "exploding" over depth are said here alone: the callback's findings,
the strip on the map and the depth profile all ask here.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import count_layers
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS
from tensorboard_plugin_initkit.diagnosis.windows import (
    Bools,
    Floats,
    Ints,
    persists,
    prevails,
    rows_in_windows,
)
from tensorboard_plugin_initkit.record.history import GradientHistory
from tensorboard_plugin_initkit.safe_text import write_number

# Records by which layers are folded; and what is rounding, relative to its neighbours.
_SAMPLE = 50
_ROUNDING = 1e-4


class Slope(NamedTuple):
    """The line through a profile at one record, and the word for it.

    Attributes:
        word: `"vanishing"` or `"exploding"` where the rule holds; else `"falling"` or `"rising"`
            from the square root of its threshold on, `"healthy"` below; or why there is no slope.
        factor: Change per layer towards the input; NaN where there is no slope.
        total: Change over all of the depth.
        ends: The line's values at the first and last layer.
        layers: Positions of these in `history.layers`.
        optimizer: Name of the optimizer; "" for a model's only one.
    """

    word: str
    factor: float = np.nan
    total: float = np.nan
    ends: tuple[float, float] = (np.nan, np.nan)
    layers: tuple[int, int] = (0, 0)
    optimizer: str = ""

    def __str__(self) -> str:
        if np.isnan(self.factor):
            return self.word
        factors = (
            f"×{self.factor:.3g} per layer towards the input, ×{write_number(self.total, 2)} in all"
        )
        return f"{factors}: {self.word}" if self.word else factors


_BROKEN = Slope("NaN or infinite: no slope")


class Trend(NamedTuple):
    """A statistic over depth: the medians of its ends, at n records.

    Attributes:
        profile: Values of the layers, input first, (n, depth).
        filled: The same, each the largest of itself and its neighbours.
        front, back: Logarithms of the medians of the first and the last third, (n,).
        is_whole: Mask of the records with a value in all layers, (n,).
    """

    profile: Floats
    filled: Floats
    front: Floats
    back: Floats
    is_whole: Bools

    @property
    def total(self) -> Floats:
        """Logarithm of the change over all of the depth, towards the input, (n,)."""
        depth = self.filled.shape[1]
        with np.errstate(invalid="ignore"):
            return (self.front - self.back) * (depth - 1) / max(1, depth - _third(depth))

    def line_at(self, row: int) -> Slope:
        """Return the line at a record, without a word; or the reason why there is none."""
        depth, total = self.filled.shape[1], self.total[row]
        if depth + 1 < THRESHOLDS["depth_layers"].value or not self.is_whole[row]:
            return Slope(_say_why_none(self.filled[row]))
        if not np.isfinite(total):
            return Slope("too large for a slope")
        # Filled values are too high: half of the layers themselves lie above the line.
        there = np.flatnonzero(self.profile[row] > 0)
        level = np.log(self.profile[row, there]) - total * (1 - there / (depth - 1))
        logs = total / (depth - 1), total, total + np.median(level), np.median(level)
        with np.errstate(over="ignore", under="ignore"):
            factor, whole, first, last = np.exp(logs).tolist()
        return Slope("", factor, whole, (first, last))


class Judgement(NamedTuple):
    """The rule over depth, at n records, for the layers of one optimizer.

    Attributes:
        optimizer: Its name; a model's only one is called "".
        variables: For each layer the column of a variable for its units, (depth,).
        trend: The signal over depth, without the output layer.
        broken: Number of layers without finite numbers, (n,).
        falls, grows: Masks of the records where the signal vanishes or explodes towards the
            input, and has for a window, (n,).
        known: For each record the last whole one up to it, (n,); -1 if there is none.
    """

    optimizer: str
    variables: Ints
    trend: Trend
    broken: Ints
    falls: Bools
    grows: Bools
    known: Ints

    def line_at(self, row: int) -> Slope:
        """Return the line at a record, or the last whole one where the rule holds, and its word."""
        falls, grows = self.falls[row], self.grows[row]
        if self.broken[row]:
            return _BROKEN
        line = self.trend.line_at(int(self.known[row]) if falls or grows else row)
        if np.isnan(line.factor):
            return line
        word = "vanishing" if falls else "exploding" if grows else _name(self.trend.total[row])
        return line._replace(word=word)


class Folded(NamedTuple):
    """Layers whose units show no signal, by their paths.

    Attributes:
        blind: Those without a bias or kernel that would show it, as embeddings and depthwise
            convolutions without a bias.
        idle: Those whose biases change nothing, as attention's keys and what a normalization takes
            back.
    """

    blind: list[str]
    idle: list[str]

    def notes(self) -> list[str]:
        """Say for a title how many there are."""
        count = len(self.blind) + len(self.idle)
        return [f"{count_layers(count)} without a signal not shown"] if count else []

    def __str__(self) -> str:
        def tell(layers: list[str], why: str) -> str:
            names = f"{layers[0]}, …" if len(layers) > 1 else layers[0]
            return f"{count_layers(len(layers))} {why} ({names})"

        parts = [
            *([tell(self.blind, "without a bias")] if self.blind else []),
            *([tell(self.idle, "whose bias changes nothing")] if self.idle else []),
        ]
        return " and ".join(parts)


class Bands(NamedTuple):
    """Steps of a history where gradients vanish or explode over depth.

    Attributes:
        steps: Recorded steps, (n,).
        vanishing, exploding: Masks of these, (n,). False from the first record on with NaN or
            infinite numbers.
    """

    steps: Ints
    vanishing: Bools
    exploding: Bools


def fit_trend(profile: Floats) -> Trend:
    """Fill single gaps of a profile (n, depth), and take medians of its first and last third.

    A single layer without a gradient, or with hardly any, is filled from its neighbours: such are
    the biases of attention's keys (zero in theory: a softmax does not change with them) and those
    in front of a normalization.
    """
    filled = profile.copy()
    filled[:, 1:] = np.fmax(filled[:, 1:], profile[:, :-1])
    filled[:, :-1] = np.fmax(filled[:, :-1], profile[:, 1:])
    if not filled.shape[1]:
        nothing = np.full(len(filled), np.nan)
        return Trend(profile, filled, nothing, nothing, np.zeros(len(filled), bool))
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(filled)
        front, back = (np.median(level[:, part], axis=1) for part in _ends(profile))
        return Trend(profile, filled, front, back, np.all(filled > 0, axis=1))


def judge_depth(facts: Facts) -> Iterator[Judgement]:
    """Apply the rule: the gradient at one end of the depth relative to the other.

    The slope is the one between the medians of the first and the last third, extrapolated to all of
    the depth. Besides, no layer of the small end may come near the large one: a stem or a branch
    with a gradient of its own makes up for others.

    The output layer is left out, since its gradient does not come through weights: a small one in
    front of it (zeros, at first) makes a step there, not a slope.

    Where the loss does not fall, a slope that is as steep per layer as that of sigmoids is enough.
    A falling loss is no excuse for exploding gradients: theirs begins so large that any training
    at all makes it fall.
    """
    shown = np.where(facts.units, facts.per_variable("signal"), np.nan)
    signal = facts.by_layer(np.fmax, shown)
    bad = facts.find_nonfinite()
    is_sound = ~np.logical_or.accumulate(bad.any(axis=1))
    broken = facts.by_layer(np.logical_or, bad)
    for position, name in enumerate(facts.optimizers):
        first = {facts.layer_of[i]: i for i in np.flatnonzero(facts.units)[::-1]}
        own = [i for i in sorted(first) if facts.optimizer_of[i] == position][:-1]
        trend = fit_trend(signal[:, own])
        known = np.maximum.accumulate(np.where(trend.is_whole, np.arange(len(signal)), -1))
        falls, grows = _judge(trend, signal[:, own], facts)
        # Of a window in which nothing at all comes back, another rule speaks.
        seen = is_sound & (known >= facts.start)
        variables = np.array([first[i] for i in own], np.int64)
        count = broken[:, own].sum(axis=1)
        yield Judgement(name, variables, trend, count, falls & seen, grows & seen, known)


def _judge(trend: Trend, signal: Floats, facts: Facts) -> tuple[Bools, Bools]:
    """Find where the signal falls, and where it grows, too steeply and for a window."""
    if signal.shape[1] + 1 < THRESHOLDS["depth_layers"].value:
        return np.zeros(len(signal), bool), np.zeros(len(signal), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(signal)
        front_most, back_most = (np.fmax.reduce(level[:, part], axis=1) for part in _ends(signal))
        gaps = signal.shape[1] - 1
        falls = _is_steep(facts, trend.total, front_most - trend.back, gaps)
        grows = _is_steep(facts, -trend.total, back_most - trend.front, gaps)
    return falls & ~facts.loss.good, grows


def _is_steep(facts: Facts, total: Floats, nearest: Floats, gaps: int) -> Bools:
    """Find where the logarithm of one end relative to the other is steep, and stays so.

    Where the loss does not fall, less is enough: end to end, or per layer.
    """
    limit, flat, layer = (
        np.log(THRESHOLDS[name].value)
        for name in ("depth_ratio", "depth_ratio_flat", "depth_factor")
    )
    flat = max(flat, gaps * layer)
    start, ready = facts.find_windows("depth_window_steps")
    mending = total - total[start] > np.log(THRESHOLDS["depth_mending"].value)
    steep, steep_for_flat = (
        prevails((total < least) & (nearest < least / 2), start, ready) for least in (limit, flat)
    )
    hopeless = persists((total < 2 * limit) & (nearest < limit), facts.start, facts.ready)
    return (steep | steep_for_flat & facts.loss.flat) & ~mending | hopeless


def depth_bands(history: GradientHistory, rows: Ints | None = None) -> Bands:
    """Find the records where gradients vanish or explode over depth.

    Only the records of `rows`, sorted positions without repeats, are read, with their windows; by
    default all.
    """
    chosen = np.arange(len(history)) if rows is None else rows
    vanishing, exploding = np.zeros((2, len(chosen)), bool)
    if len(chosen) and history.variables:
        facts, places = _read_windows(history, chosen)
        for judgement in judge_depth(facts):
            vanishing |= judgement.falls[places]
            exploding |= judgement.grows[places]
    return Bands(history.steps[chosen], vanishing, exploding)


def depth_slopes(history: GradientHistory, rows: Ints) -> list[list[Slope]]:
    """Return the line of the rule and its word at some records, for each optimizer.

    Only the records of `rows`, sorted positions without repeats, are read, with their windows.
    """
    if not len(rows) or not history.variables:
        return [[] for _ in rows]
    facts, places = _read_windows(history, rows)
    position = {layer: i for i, layer in enumerate(history.layers)}
    shown = np.array([position[variable.layer] for variable in history.layout.variables])
    slopes: list[list[Slope]] = [[] for _ in rows]
    for judgement in judge_depth(facts):
        layers = shown[judgement.variables]
        ends = (int(layers[0]), int(layers[-1])) if len(layers) else (0, 0)
        for found, row in zip(slopes, places, strict=True):
            found.append(
                judgement.line_at(row)._replace(layers=ends, optimizer=judgement.optimizer)
            )
    return slopes


def fold_layers(history: GradientHistory) -> Folded:
    """Find the layers of a history that the rule leaves out or fills, whatever happens in them.

    A gap of one layer is folded if nothing but rounding is there at any record, while more passes
    on both sides; exact zeros are those of a dead branch, but in an output, through which the rest
    gets its gradient. A layer with a finding never is.
    """
    rows = np.unique(np.linspace(0, len(history) - 1, _SAMPLE).astype(np.int64))
    signal = history.select(rows)["signal"]
    optimizer_of = {variable.layer: variable.optimizer for variable in history.layout.variables}
    found = {finding.layer for finding in history.findings}
    hidden = np.isnan(signal).all(axis=0)
    blind = [layer for layer, none in zip(history.layers, hidden, strict=True) if none]
    idle = []
    for optimizer in history.optimizers:
        own = [i for i in np.flatnonzero(~hidden) if optimizer_of[history.layers[i]] == optimizer]
        # The output has one neighbour, and the input counts as none.
        for before, i, after in zip(own, own[1:], [*own[2:], *own[-2:-1]], strict=False):
            passing = np.fmin(signal[:, before], signal[:, after])
            is_gap = (passing > 0).any() and not (signal[:, i] > _ROUNDING * passing).any()
            if is_gap and (i == own[-1] or (signal[:, i] > 0).any()):
                idle.append(history.layers[i])
    return Folded(
        [] if hidden.all() else [layer for layer in blind if layer not in found],
        [layer for layer in idle if layer not in found],
    )


def line_slopes(values: Floats) -> list[Slope]:
    """Return the line through another statistic than the signal at each record, without a word.

    Values are (n, layers), input first. The last layer is left out, and so are layers without a
    value at any record.
    """
    layers = np.flatnonzero((np.nan_to_num(values) > 0).any(axis=0))[:-1]
    trend = fit_trend(values[:, layers])
    ends = (int(layers[0]), int(layers[-1])) if len(layers) else (0, 0)
    broken = np.isinf(values).sum(axis=1)
    return [
        (_BROKEN if broken[row] else trend.line_at(row))._replace(layers=ends)
        for row in range(len(values))
    ]


def _read_windows(history: GradientHistory, rows: Ints) -> tuple[Facts, Ints]:
    """Read some records and their windows; return also where the records are among them."""
    read = rows_in_windows(history.steps, rows)
    everything = len(read) == len(history)  # a slice of what is in memory costs nothing
    facts = Facts(history, slice(None) if everything else read)
    return facts, np.searchsorted(read, rows)


def _say_why_none(values: Floats) -> str:
    """Say why there is no slope over a filled profile."""
    known = ~np.isnan(values)
    if known.any() and not values[known].any():
        return "exactly zero"
    if not known.any() or len(values) + 1 < THRESHOLDS["depth_layers"].value:
        return "too few layers for a slope"
    return f"no gradient in {count_layers((~(values > 0)).sum())}"


def _name(total: np.floating) -> str:
    """Name the logarithm of a change over all layers, where the rule does not hold."""
    steepness = total / np.log(THRESHOLDS["depth_ratio"].value)
    if abs(steepness) < 0.5:
        return "healthy"
    return "falling" if steepness > 0 else "rising"


def _third(depth: int) -> int:
    return max(2, depth // 3)


def _ends(profile: Floats) -> tuple[slice, slice]:
    third = _third(profile.shape[1])
    return slice(None, third), slice(-third, None)
