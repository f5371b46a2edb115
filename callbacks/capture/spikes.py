"""Watching the steps that a schedule leaves out, for spikes."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from keras_initkit.callbacks.capture.capture import Capture
from keras_initkit.callbacks.measures.spikes import SpikeFinder
from tensorboard_plugin_initkit.record.chunk import Chunk, join
from tensorboard_plugin_initkit.record.statistics import per_layer


class Spikes:
    """Steps that a schedule leaves out, measured by a capture of little; the spikes are kept.

    Attributes:
        capture: Measures norms, and what is not finite.
    """

    def __init__(self, capture: Capture, is_due: Callable[[int], bool]) -> None:
        self.capture = capture
        self._is_due = is_due
        self._finder = SpikeFinder()
        self._nothing: tuple[list[Chunk], Sequence[np.ndarray]] = [], ()

    def merge(
        self, chunk: Chunk, samples: Sequence[np.ndarray]
    ) -> tuple[Chunk, Sequence[np.ndarray]]:
        """Put the spikes since the last call into a chunk of all that is measured of other steps.

        Of that, too, stays what is due, or a spike. Statistics and samples of spikes, beside what
        is measured of them, are NaN.
        """
        light, _ = self.capture.read()
        if len(chunk.steps):
            self._nothing = [chunk.select(slice(0))], [array[:0] for array in samples]
        # The columns are always those of other steps, as far as there are any.
        former, none = self._nothing
        parts = [*former, *(part for part in (chunk, light) if len(part.steps))]
        if not sum(len(part.steps) for part in parts):
            return chunk, samples
        whole = join(parts)
        steps, rows = np.unique(whole.steps, return_index=True)
        whole = whole.select(rows)
        lost = np.any(whole.values_of("nonfinite") > 0, axis=1)
        factors = self._finder.add(per_layer(whole, "norm"), lost)
        optimizers = len(whole.layout.optimizers)
        totals = {**whole.totals, "spike": np.repeat(factors[:, None], optimizers, axis=1)}
        kept = np.array([self._is_due(int(step)) for step in steps], bool) | ~np.isnan(factors)
        missing = [np.full((len(light.steps), a.shape[1]), np.nan, np.float32) for a in none]
        tables = map(np.concatenate, zip(samples or none, missing, strict=True))
        kept_samples = [table[rows[kept]] for table in tables]
        return dataclasses.replace(whole, totals=totals).select(kept), kept_samples
