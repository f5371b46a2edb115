"""The recorded steps to keep of a `GradientHistory` that has grown too long."""

from collections.abc import Sequence

import numpy as np

from tensorboard_plugin_initkit.record.chunk import Chunk, join
from tensorboard_plugin_initkit.record.statistics import per_layer


def thin(chunks: Sequence[Chunk], max_steps: int) -> Chunk:
    """Return one chunk of about `max_steps` rows of the chunks, on the union of their columns."""
    # Only what chooses the rows is joined whole: most of the rest is dropped.
    keep = rows_to_keep(join(chunks, ("norm", "nonfinite")), max_steps)
    ends = np.cumsum([len(chunk.steps) for chunk in chunks])
    rows_of = zip(chunks, np.split(keep, ends[:-1]), strict=True)
    return join([chunk.select(rows) for chunk, rows in rows_of])


def rows_to_keep(chunk: Chunk, max_steps: int) -> np.ndarray:
    """Choose about `max_steps` rows of a chunk to keep: boolean array (n,).

    These stay:

    - the newest `max_steps / 2` rows, and the first;
    - for each layer the rows of its largest and its smallest finite norm, and the first row where
      its gradient was not finite;
    - of the older rows, two for each span of 2ᵏ steps: the one where a layer's norm stands
      furthest above its mean, and the one where a layer's norm stands furthest below it, on a
      logarithmic scale. k is the smallest with at most `max_steps / 8` spans.

    Spans are aligned to multiples of their length, and double: thinning again and again wears
    out no part of the record.
    """
    norm = per_layer(chunk, "norm")
    older = max(0, len(norm) - (max_steps + 1) // 2)
    keep = np.arange(len(norm)) >= older
    keep[:1] = True
    keep[_rows_of_extremes(norm, per_layer(chunk, "nonfinite"))] = True
    if older:
        spans = _spans(chunk.steps[:older], max(1, max_steps // 8))
        keep[_rows_of_spans(norm[:older], spans)] = True
    return keep


def _rows_of_extremes(norm: np.ndarray, nonfinite: np.ndarray) -> np.ndarray:
    finite = np.isfinite(norm)
    broken = ~np.isnan(nonfinite) & ((nonfinite > 0) | ~finite)
    rows = [np.flatnonzero([])]
    for score, there in (
        (np.where(finite, norm, -np.inf), finite),
        (np.where(finite, -norm, -np.inf), finite),
        (broken, broken),
    ):
        rows.append(np.argmax(score, axis=0)[there.any(axis=0)])
    return np.concatenate(rows)


def _spans(steps: np.ndarray, most: int) -> np.ndarray:
    """Return the number of each step's span."""
    spans = steps
    while spans[-1] - spans[0] >= most:
        spans = spans // 2
    return spans


def _rows_of_spans(norm: np.ndarray, spans: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        level = np.log(np.maximum(norm, np.finfo(np.float32).tiny))
    finite = np.isfinite(level)
    mean = np.where(finite, level, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    deviation = np.nan_to_num(level - mean)
    above = _last_of_spans(spans, deviation.max(axis=1, initial=-np.inf))
    below = deviation.min(axis=1, initial=np.inf)
    below[above] = np.inf  # another row, if there is one
    return np.concatenate([above, _last_of_spans(spans, -below)])


def _last_of_spans(spans: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the row of the highest score in each span."""
    order = np.lexsort((score, spans))
    ends = np.flatnonzero(np.diff(spans, append=spans[-1] + 1))
    return order[ends]
