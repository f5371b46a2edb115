"""The scalars of a record by their tags, for dashboards that know nothing of layers."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from tensorboard_plugin_initkit.diagnosis.depth import fit_trend
from tensorboard_plugin_initkit.record.chunk import Chunk, join
from tensorboard_plugin_initkit.record.layout import Layout
from tensorboard_plugin_initkit.record.statistics import (
    TOTAL_STATISTICS,
    per_layer,
    per_optimizer,
    recorded_statistics,
)

_TOTAL_GROUP = "gradients"

# Rows that the noise scale of a row is averaged over, but for itself.
_NOISE_ROWS = 49
_NOISE_SOURCES = ("norm", "nonfinite", "clip_ratio", "local_norm")
_ALWAYS = ("global_norm", "learning_rate")
# Of what a gradient is no part; the tags of the other statistics begin with "gradient_".
_OTHERS = ("dead_units", "weight_norm", "update_ratio")


class Scalars:
    """Numbers by tags, in a row for each record.

    - `gradient_<statistic>/<layer>`: of each layer the statistics asked for, so that a group of
      cards is a statistic; without `gradient_` where it is not one of the gradient;
    - `gradients/<total>`, or `gradients/<optimizer>/<total>` where there are several: always
      `global_norm`, `learning_rate`, `first_to_last` (the change of the signal over all of the
      depth, as the depth profile has it), `largest_share` (of the squared global norm, the part
      of the layer that has most) and `nonfinite` (elements that are NaN or infinite); and those
      of `TOTAL_STATISTICS` asked for, where they have something to say.

    Args:
        names: Of `STATISTICS` and `TOTAL_STATISTICS`.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._before: Chunk | None = None

    def tabulate(self, chunk: Chunk) -> tuple[list[str], np.ndarray]:
        """Return tags and numbers: float64 array (n, tags), NaN where there is nothing to say."""
        names = [name for name in recorded_statistics(chunk.values) if name in self._names]
        totals = [name for name in TOTAL_STATISTICS if name in (*self._names, *_ALWAYS)]
        columns = [per_layer(chunk, name) for name in names]
        columns += [self._total(chunk, name) for name in totals]
        columns += [_over_layers(chunk, summarise) for summarise in _OVERVIEW.values()]
        tags = _tags(chunk.layout, names, [*totals, *_OVERVIEW])
        return tags, np.hstack(columns)

    def _total(self, chunk: Chunk, name: str) -> np.ndarray:
        """Return a total, NaN where it says nothing."""
        if name == "noise_scale":
            noise = self._noise_scale(chunk)
            return np.where(np.isfinite(noise), noise, np.nan)
        values = per_optimizer(chunk, name)
        if name == "loss_scale":
            return np.where((values != 1).any(axis=0), values, np.nan)
        if name in ("skipped", "penalty"):
            return np.where((values > 0).any(axis=0), values, np.nan)
        if name == "global_raw_norm" and "clip_ratio" not in chunk.values:
            return np.full_like(values, np.nan)
        return values

    def _noise_scale(self, chunk: Chunk) -> np.ndarray:
        """Averaged over the chunks before as well."""
        if chunk.layout.replicas == 1 or "local_norm" not in chunk.values:
            return per_optimizer(chunk, "noise_scale")
        values = {name: chunk.values[name] for name in _NOISE_SOURCES if name in chunk.values}
        whole = Chunk(chunk.layout, chunk.steps, values)
        if self._before is not None and self._before.layout == chunk.layout:
            whole = join([self._before, whole])
        self._before = whole.select(slice(-_NOISE_ROWS, None))
        return per_optimizer(whole, "noise_scale")[-len(chunk.steps) :]


def _tags(layout: Layout, names: Sequence[str], totals: Sequence[str]) -> list[str]:
    several = len(layout.optimizers) > 1
    groups = [f"{_TOTAL_GROUP}/{name}" if several else _TOTAL_GROUP for name in layout.optimizers]
    return [
        *(f"{_name_group(name)}/{layer}" for name in names for layer in layout.layers),
        *(f"{group}/{name}" for name in totals for group in groups),
    ]


def _name_group(statistic: str) -> str:
    return statistic if statistic in _OTHERS else f"gradient_{statistic}"


def _over_layers(chunk: Chunk, summarise: Callable[[Chunk, list[int]], np.ndarray]) -> np.ndarray:
    """Summarise the layers of each optimizer: float64 array (n, optimizers)."""
    optimizers = {variable.layer: variable.optimizer for variable in chunk.layout.variables}
    result = np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan)
    for i, name in enumerate(chunk.layout.optimizers):
        own = [j for j, layer in enumerate(chunk.layout.layers) if optimizers[layer] == name]
        if own:
            result[:, i] = summarise(chunk, own)
    return result


def _first_to_last(chunk: Chunk, layers: list[int]) -> np.ndarray:
    signal = per_layer(chunk, "signal")[:, layers]
    trend = fit_trend(signal[:, ~np.isnan(signal).all(axis=0)][:, :-1])
    return np.array([trend.line_at(row).total for row in range(len(signal))])


def _largest_share(chunk: Chunk, layers: list[int]) -> np.ndarray:
    norms = per_layer(chunk, "norm")[:, layers]
    # Relative to the largest: the square of a norm may be too large for a number, or too small.
    largest = np.fmax.reduce(norms, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.nansum(np.square(norms / largest[:, None]), axis=1)
        return np.where(total > 0, 1 / total, np.nan)


def _nonfinite(chunk: Chunk, layers: list[int]) -> np.ndarray:
    return np.nansum(per_layer(chunk, "nonfinite")[:, layers], axis=1)


_OVERVIEW = {
    "first_to_last": _first_to_last,
    "largest_share": _largest_share,
    "nonfinite": _nonfinite,
}
