"""`audit`: faults of the weights from which a model starts."""

from typing import Any

from keras_initkit.anatomy.initializers import format_initializer
from keras_initkit.anatomy.weights import check_built
from keras_initkit.models.audit.parts import parts_of
from keras_initkit.models.audit.problems import (
    find_bad_start,
    find_problems,
    find_shared_numbers,
)
from keras_initkit.models.audit.report import Audit, WeightAudit


def audit(model: Any) -> Audit:
    """Check if each weight of a built model starts as it should, and say what to do if not.

    The audit looks at the values of the weights, and at the graph behind each layer: it is meant
    for models before training. It changes nothing and calls no layer. It finds

    - a start where signal or gradient vanishes or explodes between input and output: over a row of
      layers, kernels and activations together change the variance by a factor below 1e-4 or above
      1e4. 30 layers of ReLU with Glorot's weights do; five do not;
    - kernels that lead to another variance at the layer's output than intended. For independent
      inputs of mean square 1, the intended one keeps signals at mean square 1 through the next
      activation, the layer's own or one after normalization, sums and reshapes. A factor of 1.7
      counts as off; for kernels of few numbers it must be more. It is a warning if it is, or is
      part of, a bad start, and a note otherwise: most networks learn with it;
    - normalizations with an epsilon of more than a tenth of the variance: they do not normalize.
      Inputs of mean square below 1, such as 1/2 after normalization and ReLU, are swallowed
      earlier. Otherwise any variance of the kernel before them will do;
    - kernels whose fans, as Keras reads them from the shape, are not the true ones;
    - layers whose units all start the same: they learn the same;
    - weights with the same or correlated random numbers.

    Where several ways lead on from a layer, the nearest activation on any of them counts. In models
    without a graph, such as subclassed ones, only a layer's own activation is known. What follows
    is otherwise "unknown", as it is after products and layers of unknown classes, and for weights
    that are used in several ways: there a variance that suits no usual activation is a note,
    without advice.

    Example:
    ```python
    audit = keras_initkit.audit(keras.applications.Xception(weights=None))
    print(audit)
    frame = audit.to_dataframe()  # pip install keras-initkit[report]
    assert not audit.problems
    ```

    Args:
        model: A built `keras.Model`, or a layer.

    Returns:
        An `Audit`: iterable, with a row for each weight; `rows`, `problems`, `summary`,
        `to_dict()` and `to_dataframe()`. Printed, it is a table.

    Raises:
        ValueError: If the model is not built.
    """
    check_built(model)
    parts = parts_of(model)
    shared = find_shared_numbers(parts)
    start, bad = find_bad_start(model, parts)
    rows = []
    for part in parts:
        found = [*find_problems(part, parts, bad), *shared.get(id(part.weight.variable), ())]
        if start and part.weight.layer == start.layer and part.role == "kernel":
            found.insert(0, start)
        row = WeightAudit(
            path=part.weight.path,
            layer=type(part.weight.holder).__name__,
            shape=tuple(part.weight.variable.shape),
            role=part.role,
            initializer=format_initializer(part.initializer),
            findings=tuple(found),
        )
        if part.role == "kernel":
            row = row._replace(
                keras_fans=part.keras_fans,
                true_fans=part.true_fans,
                variance=part.variance,
                intended=part.intended,
                follows=part.following.text,
            )
        rows.append(row)
    return Audit(model.name, rows)
