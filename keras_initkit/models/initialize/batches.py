"""The batch for the measured pass: of the user's data, or noise."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.anatomy.graph import Graph
from keras_initkit.anatomy.tracing import OPEN_SIZE, find_inputs
from keras_initkit.models.check.sample import draw_sample

_ROWS = 32


class Data(NamedTuple):
    """Inputs of one batch, and targets of more rows; `None` if there are none."""

    inputs: Any
    targets: Any = None


def read_data(data: Any, targets: Any) -> Data:
    """Take a batch of inputs, and targets, of arrays or of a stream of batches."""
    sample = draw_sample(data, targets, None, _ROWS)
    inputs = keras.tree.map_structure(_as_tensor, sample.batch[0])
    return Data(inputs, sample.rows[1])


def make_noise(model: Any, graph: Graph, seed: int) -> Any:
    """Return random inputs of a model: normal numbers, and integers where these are looked up.

    Raises:
        ValueError: If the model does not say what its inputs are.
    """
    structure = find_inputs(model)
    if structure is None:
        raise ValueError(
            "`data` must be given for a model that does not say what its inputs are. Received: "
            f"data=None, and {model.name!r} of class {type(model).__name__}. Pass a batch of what "
            "it is trained on."
        )
    generator = np.random.default_rng(seed)
    return keras.tree.map_structure(lambda t: _draw(t, graph, generator), structure)


def _draw(tensor: Any, graph: Graph, generator: np.random.Generator) -> Any:
    shape = _close(tensor.shape)
    kind = str(keras.backend.standardize_dtype(tensor.dtype))
    takers = graph.find_takers(tensor)
    sizes = [taker.input_dim for taker in takers if isinstance(taker, keras.layers.Embedding)]
    if sizes or "int" in kind or kind == "bool":
        least = min(sizes, default=256 if kind == "uint8" else 2)
        return _as_tensor(generator.integers(0, least, shape).astype(kind))
    return _as_tensor(generator.standard_normal(shape).astype("float32"))


def _close(shape: Any) -> tuple[int, ...]:
    """Return a shape with a number of rows, and sizes where it leaves them open."""
    sizes = [OPEN_SIZE if size is None else int(size) for size in shape[1:]]
    return (_ROWS if math.prod(sizes) else 1, *sizes)


def _as_tensor(array: Any) -> Any:
    return keras.ops.convert_to_tensor(array) if isinstance(array, np.ndarray) else array
