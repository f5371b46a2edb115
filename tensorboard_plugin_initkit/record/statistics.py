"""The statistics of a chunk: by variable, by layer and by optimizer."""

from collections.abc import Mapping

import numpy as np

from tensorboard_plugin_initkit.record.chunk import SAMPLED, TOTALS, Chunk
from tensorboard_plugin_initkit.record.signal import shows_units, signal_of

# Statistics of variables and layers, and of optimizers.
STATISTICS = (
    "norm",
    "rms",
    "signal",
    "mean_abs",
    "max_abs",
    "zeros",
    "nonfinite",
    "dead_units",
    "raw_norm",
    "clip_ratio",
    "local_norm",
    "weight_norm",
    "update_ratio",
    "cosine",
    "snr",
)

TOTAL_STATISTICS = (*TOTALS, "global_norm", "global_raw_norm", "noise_scale")

# Sources of the statistics that are not recorded themselves.
_SOURCES = {
    "rms": {"norm"},
    "signal": {"norm"},
    "raw_norm": {"clip_ratio"},
    "update_ratio": {"update_norm", "weight_norm"},
}

_NORMS = ("norm", "raw_norm", "local_norm", "weight_norm", "update_norm")
# Known of some of a layer's variables only: means are over those.
_PARTLY_KNOWN = ("dead_units", *SAMPLED)


def recorded_statistics(values: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of `STATISTICS` computable from the values of a chunk."""
    return [name for name in STATISTICS if _SOURCES.get(name, {name}) <= values.keys()]


def recorded_totals(chunk: Chunk) -> list[str]:
    """Return the names of `TOTAL_STATISTICS` computable from a chunk."""
    computed = {"global_norm": {"norm"}, "global_raw_norm": {"norm", "clip_ratio"}}
    if chunk.layout.replicas > 1:
        computed["noise_scale"] = {"norm", "local_norm"}
    return [
        *(name for name in TOTALS if name in chunk.totals),
        *(name for name, sources in computed.items() if sources <= chunk.values.keys()),
    ]


def per_variable(chunk: Chunk, statistic: str) -> np.ndarray:
    """Return a statistic of `STATISTICS` for every variable: float64 array (n, variables)."""
    if statistic == "rms":
        return _ratio(per_variable(chunk, "norm"), np.sqrt(chunk.layout.sizes))
    if statistic == "signal":
        paths = [variable.path for variable in chunk.layout.variables]
        values = signal_of(per_variable(chunk, "rms"), chunk.values_of("zeros"))
        return np.where(shows_units(paths, chunk.values_of("dead_units")), values, np.nan)
    if statistic == "raw_norm":
        return _ratio(per_variable(chunk, "norm"), per_variable(chunk, "clip_ratio"))
    if statistic == "update_ratio":
        return _ratio(per_variable(chunk, "update_norm"), per_variable(chunk, "weight_norm"))
    return chunk.values_of(statistic).astype(np.float64)


def per_layer(chunk: Chunk, statistic: str) -> np.ndarray:
    """Return a statistic of `STATISTICS` for every layer: float64 array (n, layers).

    A layer's variables count as one long vector. Variables without a gradient are left
    out; a layer without any is NaN.
    """
    if statistic == "clip_ratio":
        norm, raw = per_layer(chunk, "norm"), per_layer(chunk, "raw_norm")
        return np.where(raw == 0, 1.0, _ratio(norm, raw))
    if statistic == "update_ratio":
        return _ratio(per_layer(chunk, "update_norm"), per_layer(chunk, "weight_norm"))
    order, starts = chunk.layout.columns_by_layer
    if statistic == "signal":
        return np.fmax.reduceat(per_variable(chunk, "signal")[:, order], starts, axis=1)
    present, values, weights = (
        array[:, order]
        for array in (
            ~np.isnan(chunk.values_of("nonfinite")),
            per_variable(chunk, statistic),
            _weights(chunk, statistic),
        )
    )
    everywhere = present.all()
    if not everywhere:
        values, weights = np.where(present, values, 0.0), np.where(present, weights, 0.0)
    result = _combine(statistic, values, weights, starts)
    if everywhere:
        return result
    return np.where(np.logical_or.reduceat(present, starts, axis=1), result, np.nan)


def per_optimizer(chunk: Chunk, statistic: str) -> np.ndarray:
    """Return one of `TOTAL_STATISTICS` for every optimizer: float64 array (n, optimizers)."""
    if statistic in ("global_norm", "global_raw_norm"):
        return np.sqrt(_sum_of_squares(chunk, statistic.removeprefix("global_")))
    if statistic == "noise_scale":
        return _noise_scale(chunk)
    return chunk.totals_of(statistic).astype(np.float64)


def _noise_scale(chunk: Chunk) -> np.ndarray:
    """Return tr(Σ) / |G|² of McCandlish et al. 2018, appendix A.1, in units of the global batch.

    NaN where the noise makes the estimate of |G|² negative or zero.
    """
    replicas = chunk.layout.replicas
    if replicas == 1:
        return np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan)
    whole, part = _sum_of_squares(chunk, "raw_norm"), _sum_of_squares(chunk, "local_norm")
    with np.errstate(invalid="ignore"):
        squared_gradient = (replicas * whole - part) / (replicas - 1)
        noise = (part - whole) / (replicas - 1)
    # Each is noisy and unbiased, their ratio is not: it is taken of averages.
    noise, squared_gradient = _trailing_mean(noise), _trailing_mean(squared_gradient)
    return _ratio(np.maximum(noise, 0), np.where(squared_gradient > 0, squared_gradient, np.nan))


def _trailing_mean(array: np.ndarray, window: int = 50) -> np.ndarray:
    """Average over the rows up to each, as far as they are finite."""
    finite = np.isfinite(array)
    padding = ((window, 0), (0, 0))
    values = np.pad(np.where(finite, array, 0.0), padding)
    counts = np.pad(finite.astype(np.float64), padding)
    windows = (np.lib.stride_tricks.sliding_window_view(a, window, 0) for a in (values, counts))
    total, count = (view[1:].sum(axis=-1) for view in windows)
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _sum_of_squares(chunk: Chunk, statistic: str) -> np.ndarray:
    """Sum the squares over each optimizer's variables: float64 array (n, optimizers)."""
    present = ~np.isnan(chunk.values_of("nonfinite"))
    squares = np.where(present, np.square(per_variable(chunk, statistic)), 0.0)
    result = np.full((len(chunk.steps), len(chunk.layout.optimizers)), np.nan)
    for i, name in enumerate(chunk.layout.optimizers):
        columns = [j for j, v in enumerate(chunk.layout.variables) if v.optimizer == name]
        rows = present[:, columns].any(axis=1)
        result[rows, i] = squares[rows][:, columns].sum(axis=1)
    return result


def _weights(chunk: Chunk, statistic: str) -> np.ndarray:
    """Return the weight of a variable in a mean over its layer: float64 array (n, variables)."""
    if statistic in SAMPLED:
        return np.square(per_variable(chunk, "norm"))
    if statistic == "dead_units":
        weights = np.array([variable.units for variable in chunk.layout.variables], np.float64)
    else:
        weights = chunk.layout.sizes
    return np.broadcast_to(weights, (len(chunk.steps), len(weights)))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part == 0, np.where(np.isnan(whole), whole, 0.0), part / whole)


def _combine(
    statistic: str, values: np.ndarray, weights: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Combine columns to layers: arrays (n, variables), sorted by layer, and the layers' starts."""
    if statistic == "max_abs":
        return np.maximum.reduceat(values, starts, axis=1)
    squared = statistic in ("rms", *_NORMS)
    if squared:
        values = np.square(values)
    if statistic in _PARTLY_KNOWN:
        known = ~np.isnan(values)
        values, weights = np.where(known, values, 0.0), np.where(known, weights, 0.0)
    if statistic == "nonfinite" or statistic in _NORMS:
        result = np.add.reduceat(values, starts, axis=1)
    else:
        with np.errstate(invalid="ignore"):
            total = np.add.reduceat(values * weights, starts, axis=1)
            result = total / np.add.reduceat(weights, starts, axis=1)
    return np.sqrt(result) if squared else result
