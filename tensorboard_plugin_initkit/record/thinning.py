"""The recorded steps to keep of a `GradientHistory` that has grown too long."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tensorboard_plugin_initkit.record.chunk import Chunk, join
from tensorboard_plugin_initkit.record.statistics import per_layer


def thin(chunks: Sequence[Chunk], max_steps: int) -> Chunk:
    """Return one chunk of the rows of the chunks to keep, on the union of their columns."""
    # Only what chooses the rows is joined whole: most of the rest is dropped.
    bare = [dataclasses.replace(chunk, totals={}, ports={}) for chunk in chunks]
    keep = rows_to_keep(join(bare, ("norm", "nonfinite")), max_steps)
    ends = np.cumsum([len(chunk.steps) for chunk in chunks])
    rows_of = zip(chunks, map(np.flatnonzero, np.split(keep, ends[:-1])), strict=True)
    return join([c if len(rows) == len(c.steps) else c.select(rows) for c, rows in rows_of])


def rows_to_keep(chunk: Chunk, max_steps: int) -> np.ndarray:
    """Choose rows of a chunk to keep, at most `max_steps` + 27: boolean array (n,).

    These stay:

    - the newest `max_steps / 2` rows, and the first;
    - of the older rows, two for each span of 2ᵏ steps: the one where a layer's norm stands
      furthest above its mean, and the one where a layer's norm stands furthest below it, on a
      logarithmic scale. k is the smallest with at most `max_steps / 8` spans;
    - for each layer the rows of its largest and its smallest finite norm, and for each variable
      the first row where its gradient was not finite: of each of these three sorts at most
      `max_steps / 12` other rows (or 8, if that is more), those that stand out furthest, and of
      rows that are not finite the first ones.

    Spans are aligned to multiples of their length, and double; and what stands out furthest does
    so among fewer rows, too: thinning again and again wears out no part of the record.
    """
    older = max(0, len(chunk.steps) - (max_steps + 1) // 2)
    keep = np.arange(len(chunk.steps)) >= older
    keep[:1] = True
    if older:
        # A few rows at a time stay in the processor's cache: half the time.
        blocks = (chunk.select(slice(i, i + 256)) for i in range(0, len(keep), 256))
        norm = np.concatenate([per_layer(block, "norm") for block in blocks])
        deviation = _deviation(norm, older)
        spans = _spans(chunk.steps[:older], max(1, max_steps // 8))
        keep[_rows_of_spans(deviation[:older], spans)] = True
        most = max(8, max_steps // 12)
        for score in (*_scores_of_extremes(deviation), _score_of_nonfinite(chunk)):
            score[keep] = -np.inf
            rows = np.argsort(-score, kind="stable")[:most]
            keep[rows[score[rows] > -np.inf]] = True
    return keep


def _deviation(norm: np.ndarray, older: int) -> np.ndarray:
    """Return how far logarithms of finite norms are above their layer's mean of the older rows."""
    level = np.log(np.maximum(norm, np.finfo(np.float32).smallest_subnormal))
    finite = np.isfinite(level)
    total = level[:older].sum(axis=0, where=finite[:older])
    level -= total / np.maximum(finite[:older].sum(axis=0), 1)
    level[~finite] = np.nan
    return level


def _scores_of_extremes(deviation: np.ndarray) -> Iterator[np.ndarray]:
    """Yield how far each row stands out as the largest, then as the smallest norm of a layer."""
    for above in (deviation, -deviation):
        above = np.where(np.isnan(above), -np.inf, above)
        score = np.full(len(above), -np.inf)
        rows = np.argmax(above, axis=0)
        np.maximum.at(score, rows, above[rows, np.arange(len(rows))])
        yield score


def _score_of_nonfinite(chunk: Chunk) -> np.ndarray:
    """Score the first rows of variables that are not finite, the earlier the higher."""
    count, score = chunk.values_of("nonfinite"), np.full(len(chunk.steps), -np.inf)
    broken = ((count > 0) | ~np.isfinite(chunk.values_of("norm"))) & ~np.isnan(count)
    rows = np.argmax(broken, axis=0)[broken.any(axis=0)]
    score[rows] = -rows
    return score


def _spans(steps: np.ndarray, most: int) -> np.ndarray:
    """Return the number of each step's span."""
    spans = steps
    while spans[-1] - spans[0] >= most:
        spans = spans // 2
    return spans


def _rows_of_spans(deviation: np.ndarray, spans: np.ndarray) -> np.ndarray:
    deviation = np.nan_to_num(deviation)
    above = _last_of_spans(spans, deviation.max(axis=1, initial=-np.inf))
    below = deviation.min(axis=1, initial=np.inf)
    below[above] = np.inf  # another row, if there is one
    return np.concatenate([above, _last_of_spans(spans, -below)])


def _last_of_spans(spans: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the row of the highest score in each span."""
    order = np.lexsort((score, spans))
    ends = np.flatnonzero(np.diff(spans, append=spans[-1] + 1))
    return order[ends]
