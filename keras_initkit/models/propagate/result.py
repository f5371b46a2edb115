"""The result of `propagate`: a row for each tensor."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_COLUMNS = ("path", "layer", "shape", "mean", "second moment", "correlation", "gradient", "how")


class TensorRow(NamedTuple):
    """The prediction for the output of a layer or operation.

    Attributes:
        path: Path of the layer in the model; of a layer called again, with a number.
        layer: Class of the layer or operation.
        shape: Shape of the output without the batch.
        mean: Mean of the values.
        second_moment: Mean of their squares.
        correlation: E h h' / E h² of the same unit for two examples: 1 where all look alike.
        gradient_second_moment: Mean square of the gradient, if that at each number of the model's
            outputs is 1; `None` where no gradient arrives.
        signal: RMS of the gradient of the layer's bias for one example, or without a bias of its
            kernel, for the same gradient at the outputs; `None` if it has neither. A
            `GradientMonitor` measures the same of a batch, up to one factor for all layers.
        how: "rule" or, if the layer was run on random inputs, "sampled".
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    mean: float
    second_moment: float
    correlation: float
    gradient_second_moment: float | None
    signal: float | None
    how: str


class Propagation:
    """The prediction of `keras_initkit.propagate`: rows in the order of the calls.

    Printed, it is a table. `propagation["path"]` is the row of a layer, by its path or name.

    Args:
        name: The model's name.
        rows: One for each tensor.
    """

    def __init__(self, name: str, rows: Sequence[TensorRow]) -> None:
        self.name = name
        self.rows = tuple(rows)

    def __iter__(self) -> Iterator[TensorRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> TensorRow:
        for row in self.rows:
            if row.path == path:
                return row
        found = [row for row in self.rows if row.path.rpartition("/")[2] == path]
        if len(found) != 1:
            many = "no layer" if not found else f"{len(found)} layers"
            raise KeyError(
                f"`path` must be the path of a layer, or the name of one. Received: {path!r}, the "
                f"name of {many}. The paths are in `[row.path for row in propagation]`."
            )
        return found[0]

    def __repr__(self) -> str:
        sampled = sum(row.how == "sampled" for row in self.rows)
        return f"<Propagation of {self.name!r}: {len(self.rows)} tensors, {sampled} sampled>"

    def __str__(self) -> str:
        lines = [_COLUMNS, *map(_format_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([repr(self)[1:-1], *table])


def _format_cells(row: TensorRow) -> tuple[str, ...]:
    gradient = row.gradient_second_moment
    numbers = (row.mean, row.second_moment, row.correlation)
    return (
        row.path,
        row.layer,
        str(row.shape),
        *(f"{number:.3g}" for number in numbers),
        "" if gradient is None else f"{gradient:.3g}",
        row.how,
    )
