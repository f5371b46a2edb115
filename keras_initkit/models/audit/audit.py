"""`audit`: the weights of a model, if they start as they should, and fixes for the others."""

from collections.abc import Sequence
from typing import Any

from keras_initkit.anatomy.following import Following
from keras_initkit.anatomy.initializers import format_initializer
from keras_initkit.anatomy.weights import check_built
from keras_initkit.models.audit.fixes import intended_variance
from keras_initkit.models.audit.parts import Part, parts_of
from keras_initkit.models.audit.problems import find_problems, find_shared_numbers
from keras_initkit.models.audit.report import Audit, WeightAudit
from tensorboard_plugin_initkit.diagnosis.finding import Finding


def audit(model: Any) -> Audit:
    """Check if each weight of a built model starts as it should, and say what to do if not.

    The audit looks at the values of the weights, and at what follows each layer in the model's
    graph: it is meant for models before training. It changes nothing and calls no layer. For each
    kernel it tells

    - the variance to which it leads at the layer's output, for independent inputs of mean square
      1, and the one to keep signals at mean square 1 through the activation that really follows,
      be it the layer's own or one behind normalization, sums and reshapes. A factor of 1.7 counts
      as off, and more for kernels of few numbers. It is a note only for the last kernels, and
      where a small signal is added to others or opens a gate: small is a choice;
    - where a normalization follows, only whether its epsilon takes more than a tenth of the
      variance: then it does not normalize. Inputs smaller than of mean square 1, as half of
      that behind normalization and ReLU, are swallowed earlier;
    - whether Keras read other fans from the shape than the layer has;
    - whether the units of a layer start all alike, so that they learn the same;
    - whether other weights have the same or correlated random numbers.

    Where several ways lead on from a layer, the nearest activation on any of them counts. In
    models without a graph, as subclassed ones, only a layer's own activation is known: otherwise
    "unknown" follows, and a variance is only off if it suits no usual activation.

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
    intentions = _Intentions()
    shared = find_shared_numbers(parts)
    return Audit(model.name, [_row(part, parts, intentions, shared) for part in parts])


class _Intentions:
    """The variances that activations intend, each computed once."""

    def __init__(self) -> None:
        self._known: dict[Any, float] = {}

    def variance(self, following: Following) -> float | None:
        """Return the variance to aim at before what follows; `None` for any, or if unknown."""
        if following.activation is None or following.normalization is not None:
            return None
        if following.function is None or following.is_last or following.is_gate:
            return 1.0
        # A layer's arguments are in the name, shared by two functions of the same kind.
        is_named = following.activation.endswith(")")
        key = following.activation if is_named else following.function
        if key not in self._known:
            self._known[key] = intended_variance(following.function)
        return self._known[key]


def _row(
    part: Part, parts: Sequence[Part], intentions: _Intentions, shared: dict[int, Finding]
) -> WeightAudit:
    variable = part.weight.variable
    row = WeightAudit(
        path=part.weight.path,
        layer=type(part.weight.holder).__name__,
        shape=tuple(int(size) for size in variable.shape),
        role=part.role,
        initializer=format_initializer(part.initializer),
    )
    if part.role not in ("kernel", "scale"):
        return row
    if part.role == "kernel":
        row = row._replace(
            keras_fans=part.keras_fans,
            true_fans=part.true_fans,
            variance=part.variance,
            intended=None if part.view is None else intentions.variance(part.following),
            follows=part.following.text,
        )
    findings = find_problems(part, parts, row.intended)
    if id(variable) in shared:
        findings.append(shared[id(variable)])
    return row._replace(findings=tuple(findings))
