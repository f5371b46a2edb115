"""Options of reading, shared by `adapt()` and functions on models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_initkit.checks import check_choice, check_count

NAN_POLICIES = ("error", "ignore", "propagate")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options of a pass over data.

    Attributes:
        mask: Booleans of the leading axes of the data, true where values count. For data
            given whole.
        mask_value: Steps all of whose features (along the last axis) have this value do not
            count, as for `keras.layers.Masking`.
        sample_weight: Weights of the leading axes of the data. For data given whole; in
            streams, weights are the third item of a batch.
        nan: Meaning of NaN: one of `NAN_POLICIES`.
        steps: Number of batches to read at most.
        max_rows: Number of rows to read at most.
        verbose: Whether to show progress: 0, 1 or "auto", for passes of more than 5 s.
    """

    mask: Any = None
    mask_value: float | None = None
    sample_weight: Any = None
    nan: str = "error"
    steps: int | None = None
    max_rows: int | None = None
    verbose: int | str = "auto"

    def __post_init__(self) -> None:
        check_choice("nan", self.nan, NAN_POLICIES)
        for name in ("steps", "max_rows"):
            limit = getattr(self, name)
            if limit is not None:
                check_count(name, limit, "or None for all there is")

    @property
    def is_limited(self) -> bool:
        """Whether the pass stops by itself, so that data may be endless."""
        return self.steps is not None or self.max_rows is not None
