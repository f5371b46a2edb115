"""Measure how far trainings are from the thresholds of the diagnosis, and draw it as SVG.

    KERAS_BACKEND=torch python -m benchmarks.thresholds [--histories FILE]

Healthy are the programs of `benchmarks.healthy` that learn, faulty are mutants of
`benchmarks.mutants` with the faults that a threshold is for. The rules themselves are asked: the
value of a training is the threshold from which on its rule would speak of it if the loss did not
fall. If the rule speaks of the training as it is, is told by the colour. Printed are quantiles.
"""

import argparse
import bisect
import contextlib
import copy
import importlib
import pickle
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np

from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.rules import data, progress, silent, strength, updates
from tensorboard_plugin_initkit.diagnosis.thresholds import THRESHOLDS, Threshold

# For mypy, which takes the files of this folder one by one, it is no package.
healthy, mutants = (importlib.import_module(f"benchmarks.{x}") for x in ("healthy", "mutants"))
WIDTH, HEIGHT, GAP, ROW, DOT, COLUMNS = 260, 212, 24, 62, 5.0, 3
# Of healthy and of faulty trainings: where the rule is silent, and where it speaks.
COLOURS = {"healthy": ("#8fbfdd", "#004c7a"), "faulty": ("#f2b98a", "#b04a00")}
TINY, HUGE = 1e-300, 1e300
FLAT = {"depth_ratio_flat": TINY, "depth_factor": TINY}
QUANTILES = (0, 0.05, 0.5, 0.95, 1)
SMALL = ("learning rate of 1e-10", "clipped to nothing")
DEPTH = ("sigmoids in depth", "small weights", "Xavier's weights for 30 ReLU layers")
VAIN = ("shuffled targets", "zeros")
DEAD = mutants.Fault(
    "weights below 0",
    mutants.change(initializer=lambda p: keras.initializers.RandomNormal(-0.3, 0.1)),
    ("dead_units",),
    lambda p: p.body in (mutants.stack, mutants.convolutional),
)


class Panel(NamedTuple):
    """A threshold, what is compared with it, and the ends of the axis.

    The axis is logarithmic unless it begins with 0 or less. Only findings of a kind count, if one
    is given. Of `others`, thresholds that would decide as well, the values are changed, and `twin`
    keeps its ratio to the threshold. `measure` returns the value where it is at hand.
    """

    name: str
    label: str
    rule: Callable[[Facts], Iterable[Any]]
    faults: tuple[str, ...]
    low: float
    high: float
    is_above: bool = False
    kind: str = ""
    others: dict[str, float] = {}  # noqa: RUF012 (never written)
    twin: tuple[str, ...] = ()
    measure: Callable[[Facts], float] | None = None

    def place(self, values: Any) -> Any:
        """Return where values are on the axis."""
        scale = np.log if self.low > 0 else np.asarray
        return np.interp(scale(values), scale([self.low, self.high]), (0, WIDTH))

    def speaks(self, facts: Facts, value: float) -> bool:
        """Check if the rule speaks of a training with a value of the threshold."""
        ratio = value / THRESHOLDS[self.name].value
        moved = {name: ratio * THRESHOLDS[name].value for name in (self.name, *self.twin)}
        changed = self.others | moved
        with mock.patch.dict(THRESHOLDS, {k: Threshold(v, "") for k, v in changed.items()}):
            return any(not self.kind or found.kind == self.kind for found in self.rule(facts))

    def find(self, facts: Facts) -> float:
        """Return the threshold from which on the rule speaks; NaN if it never does."""
        if self.measure:
            return self.measure(facts)
        facts, late = copy.copy(facts), facts.find_late("patience_at_end")
        no = np.zeros_like(late)
        facts.loss = facts.loss._replace(flat=late, risen=late, halved=no, falling=no, gone=no)
        values = (np.geomspace if self.low > 0 else np.linspace)(self.low, self.high, 500)
        values = values[::-1] if self.is_above else values
        first = bisect.bisect(values, False, key=lambda value: self.speaks(facts, value))
        return float(np.append(values, np.nan)[first])


PANELS = [
    Panel("depth_ratio", "gradient of the first layers by the last", strength.find_slopes, DEPTH,
          1e-20, 100, False, "vanishing", FLAT),
    Panel("depth_factor", "the same per layer", strength.find_slopes, DEPTH[:2],
          0.01, 10, False, "vanishing", FLAT | {"depth_ratio": TINY}),
    Panel("update_small", "largest update of a layer by its weights", updates.find_small_updates,
          SMALL, 1e-14, 10),
    Panel("update_slow", "median update of layers by their weights", updates.find_unfit_updates,
          SMALL, 1e-14, 10, False, "small_updates", twin=("update_plain",)),
    Panel("weight_growth", "median growth of layers in 100 steps", updates.find_large_updates,
          ("learning rate of 30",), 0.1, 1e5, True),
    Panel("dead_share", "share of units without a gradient",
          lambda x: (*silent.find_cut_off(x), *silent.find_dead_units(x)), (DEAD.name,), 0, 1,
          True, "dead_units"),
    Panel("output_still", "spread of outputs by their size", progress.find_constant_output,
          DEPTH, 1e-10, 10),
    Panel("input_size", "mean or sd of inputs", data.find_input_scales, ("inputs times 3,000",),
          0.1, 1e5, True, "input_scale", {"input_offset": HUGE, "input_scales": HUGE}),
    Panel("input_offset", "mean of inputs by sd", data.find_input_scales, ("inputs plus 300",),
          1e-3, 1e4, True, "input_scale", {"input_size": 1e30, "input_scales": HUGE}),
    Panel("guess_margin", "gain over the best constant, by its loss",
          lambda x: np.flatnonzero(x.loss.guessing | x.loss.failed), VAIN, -0.5, 1,
          measure=lambda x: ((x.loss.guess - x.loss.recent) / x.loss.reach)[-1]),
    Panel("loss_fell", "least fall of the loss from one third to the next",
          lambda x: np.flatnonzero(x.loss.flat), VAIN, -0.5, 1, measure=lambda x:
          np.fmin.reduce(x.loss.fell[x.find_late("patience_steps")], initial=np.nan)),
]  # fmt: skip


def train() -> Iterator[tuple[str, Any]]:
    """Train mutants and healthy programs; yield the fault, "" for none, and the history."""
    for fault in (*mutants.FAULTS, DEAD):
        if any(fault.name in panel.faults for panel in PANELS):
            for program in filter(fault.fits, mutants.programs()):
                fault.plant(program)
                yield fault.name, mutants.train(program)[0].history
    for name in healthy.PROGRAMS:
        monitor = healthy.GradientMonitor()
        with contextlib.suppress(ModuleNotFoundError):  # some are of TensorFlow alone
            losses, best, _ = healthy.run(name, monitor)
            if healthy.learned(losses, best):
                yield "", monitor.history


def read(history: Any) -> Facts:
    """Read a history up to the first numbers that are not finite, as the judge does."""
    facts = Facts(history, ended=True)
    lost = next(strength.find_nonfinite(facts), None)
    return Facts(history, slice(0, int(np.sum(facts.steps < lost.rank)))) if lost else facts


def draw_row(panel: Panel, word: str, values: Any, told: Any) -> Iterator[str]:
    """Draw a dot for each training; equal ones are piled up, those told of at the bottom."""
    limit = THRESHOLDS[panel.name].value
    place, beyond = panel.place(limit), np.sum((values > limit) == panel.is_above)
    title = f"{len(values)} {word}, {beyond} beyond; the rule speaks of {told.sum()}"
    yield f'<text y="12" fill="{COLOURS[word][1]}">{title}</text>'
    yield f'<path d="M{place:.0f} 17H{WIDTH * panel.is_above}V{ROW}H{place:.0f}" fill="#eee"/>'
    yield f'<path d="M0 {ROW}h{WIDTH}M{place:.0f} 17V{ROW}" stroke="black"/>'
    columns = np.round(panel.place(values) / DOT)
    for is_told, colour in enumerate(COLOURS[word]):
        path = ""
        for column in np.unique(columns):
            piled = np.sort(told[columns == column])[::-1]
            heights = ROW - 3 - min(DOT, (ROW - 22) / len(piled)) * np.flatnonzero(piled == is_told)
            path += "".join(f"M{column * DOT:g} {y:.3g}h0" for y in heights)
        yield f'<path d="{path}" stroke="{colour}" stroke-width="{DOT}" stroke-linecap="round"/>'


def draw_panel(panel: Panel, facts: list[tuple[str, Facts]]) -> Iterator[str]:
    """Draw and print a panel: healthy trainings, faulty ones below, the threshold in both."""
    limit = THRESHOLDS[panel.name].value
    print(f"{panel.name} {limit:.3g}: {panel.label}")
    yield f'<text y="10" font-weight="bold">{panel.name} {limit:.3g}</text>'
    yield f'<text y="25">{panel.label}</text>'
    for i, (word, faults) in enumerate((("healthy", ("",)), ("faulty", panel.faults))):
        own = [item for fault, item in facts if fault in faults]
        pairs = [(panel.find(item), panel.speaks(item, limit)) for item in own]
        values, told = np.array([x for x in pairs if np.isfinite(x[0])]).reshape(-1, 2).T
        print(f"{len(values):7} {word:8}", *(f"{x:10.3g}" for x in np.quantile(values, QUANTILES)))
        yield f'<g transform="translate(0 {28 + ROW * i})">'
        yield from draw_row(panel, word, values, told > 0)
        yield "</g>"
    for anchor, value in (("start", panel.low), ("middle", limit), ("end", panel.high)):
        x = f"{panel.place(value):.0f}"
        yield f'<text x="{x}" y="{40 + 2 * ROW}" text-anchor="{anchor}">{value:.3g}</text>'
    for i, line in enumerate(textwrap.wrap("faulty: " + ", ".join(panel.faults), 50)):
        yield f'<text y="{53 + 2 * ROW + 12 * i}" fill="#555" font-size="10">{line}</text>'


def draw_legend() -> Iterator[str]:
    """Draw what the colours of the dots are."""
    for i, (word, told) in enumerate((word, told) for word in COLOURS for told in (0, 1)):
        yield f'<circle cx="5" cy="{30 + 18 * i}" r="5" fill="{COLOURS[word][told]}"/>'
        text = f"{word}, the rule {('is silent', 'speaks')[told]}"
        yield f'<text x="16" y="{34 + 18 * i}">{text}</text>'


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--histories", type=Path, help="keeps the trainings; read if it exists")
    path = parser.parse_args().histories
    warnings.simplefilter("ignore")
    trainings = pickle.loads(path.read_bytes()) if path and path.exists() else list(train())
    if path:
        path.write_bytes(pickle.dumps(trainings))
    facts = [(fault, read(history)) for fault, history in trainings if len(history)]
    size = f"{COLUMNS * (WIDTH + GAP) + GAP} {HEIGHT * (len(PANELS) // COLUMNS + 1)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for i in range(len(PANELS) + 1):
        x, y = GAP + i % COLUMNS * (WIDTH + GAP), GAP + i // COLUMNS * HEIGHT
        drawn = draw_panel(PANELS[i], facts) if i < len(PANELS) else draw_legend()
        parts += [f'<g transform="translate({x} {y})">', *drawn, "</g>"]
    Path("docs/images/thresholds.svg").write_text("\n".join([*parts, "</svg>", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
