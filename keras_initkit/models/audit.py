"""Which weights of a model start as they should, and what to do about the others."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_initkit.fan_formulas import fans_from_shape
from keras_initkit.kernel_view import KernelView
from keras_initkit.layer_fans import has_rule, owners, view_of_weight
from keras_initkit.layers_inside import trainable_weights
from keras_initkit.models import audit_rules as rules
from keras_initkit.models.audit_report import Audit, WeightAudit
from keras_initkit.models.graph import LINEAR, Following, Graph
from keras_initkit.models.initializers_in_words import (
    intended_variance,
    shown_initializer,
    suited_initializer,
)
from keras_initkit.models.own_initializers import argument_names, own_initializer
from keras_initkit.models.weights import Weight, weights_of

_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_SCALES, _BIASES = ("gamma", "scale", "alpha"), ("bias", "beta")


class _Part(NamedTuple):
    """A weight with all that the rules need.

    Attributes:
        weight: The weight.
        owner: The layer that has a rule for its fans.
        role: As in `WeightAudit`.
        view: What it is, if that is known.
        values: Its values.
        initializer: What draws it, if that is known.
        following: What follows its layer.
    """

    weight: Weight
    owner: Any
    role: str
    view: KernelView | None
    values: Any
    initializer: Any
    following: Following


class _Finding(NamedTuple):
    """A finding, its severity, and what to do."""

    name: str
    severity: str
    fix: str = ""


def audit(model: Any) -> Audit:
    """Say of each weight of a built model whether it starts as it should, and what to do if not.

    Looked at are the values that the weights have, and what follows each layer in the model's
    graph: so it is meant for models that are not trained yet, of which nothing is changed and
    nothing is computed. For each kernel it tells

    - the variance that it leads to at the layer's output, for independent inputs of mean square
      1, and the one that keeps signals at mean square 1 through the activation that really
      follows, be it the layer's own or one behind normalization, sums and reshapes. A factor of
      1.7 counts as off, and more for kernels of few numbers. Of the last kernels it is only
      noted, as it is where a small signal is added to others or opens a gate: small is a choice;
    - where a normalization follows, only whether its epsilon takes more than a tenth of the
      variance: then it does not normalize. Inputs smaller than of mean square 1, as half of
      that behind normalization and ReLU, are swallowed earlier;
    - whether Keras read other fans from the shape than the layer has;
    - whether the units of a layer start all alike, so that they learn the same;
    - whether other weights have the same or correlated random numbers.

    Where several ways lead on from a layer, the nearest activation on any of them counts. Of
    models without a graph, as of subclassed ones, only a layer's own activation is known:
    otherwise "unknown" follows, and a variance is only off if it suits no usual activation.

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
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"`model` must be a keras.Model or a layer. Received: model={model!r}. "
            "Load a saved model first: `keras.models.load_model(path)`."
        )
    if not model.built or not model.weights:
        raise ValueError(
            f"`model` must be built, so that it has weights. Received: '{model.name}', which is "
            "not. Call it on data, or `model.build(input_shape)`."
        )
    parts = _parts(model)
    gains = _Gains()
    shared = _shared(parts)
    return Audit(model.name, [_row(part, parts, gains, shared) for part in parts])


def _parts(model: Any) -> list[_Part]:
    graph = Graph(model)
    owner_of = {id(variable): owner for variable, owner in owners(model)}
    parts = []
    for weight in weights_of(model):
        owner = owner_of[id(weight.variable)]
        is_number = "float" in str(weight.variable.dtype)
        view = view_of_weight(owner, weight.variable) if has_rule(owner) and is_number else None
        role = _role(weight, view, has_rule(owner)) if is_number else "state"
        values = np.asarray(keras.ops.convert_to_numpy(weight.variable.value))
        initializer = own_initializer(weight.holder, weight.variable)
        needs_following = role in ("kernel", "scale")
        following = graph.following(weight.layers) if needs_following else Following()
        parts.append(_Part(weight, owner, role, view, values, initializer, following))
    return parts


def _role(weight: Weight, view: KernelView | None, is_known: bool) -> str:
    variable = weight.variable
    if view is not None:
        return "kernel" if view.inputs or view.window or view.outputs else "scale"
    if not any(variable is own for own in trainable_weights(weight.holder)):
        return "state"
    if is_known or variable.name in _BIASES or variable.name.endswith("_bias"):
        return "bias"
    if variable.name in _SCALES:
        return "scale"
    return "kernel" if len(variable.shape) > 1 else "bias"


class _Gains:
    """The variances that activations intend, each computed once."""

    def __init__(self) -> None:
        self._known: dict[Any, float] = {}

    def intended(self, following: Following) -> float | None:
        """The variance before what follows a layer; `None` if any will do, or is not known."""
        if following.activation is None or following.normalization is not None:
            return None
        if following.function is None or following.is_last or following.is_gate:
            return 1.0
        # A layer's arguments are in the name, which two functions of the same kind share.
        is_named = following.activation.endswith(")")
        key = following.activation if is_named else following.function
        if key not in self._known:
            self._known[key] = intended_variance(following.function)
        return self._known[key]


def _row(
    part: _Part, parts: Sequence[_Part], gains: _Gains, shared: dict[int, _Finding]
) -> WeightAudit:
    weight, view = part.weight, part.view
    row = WeightAudit(
        path=weight.path,
        layer=type(weight.holder).__name__,
        shape=tuple(int(size) for size in weight.variable.shape),
        role=part.role,
        initializer=shown_initializer(part.initializer),
    )
    if part.role not in ("kernel", "scale"):
        return row
    findings: list[_Finding] = []
    if part.role == "scale":
        findings += _scale_findings(part)
    elif view is None:
        row = row._replace(keras_fans=_keras_fans(part), follows=part.following.text)
        fix = f"write a rule: @keras_initkit.register_fans({type(part.owner).__name__})"
        findings.append(_Finding("unknown", rules.NOTE, fix))
    else:
        following, behind = _behind(part, parts)
        row = row._replace(
            keras_fans=_keras_fans(part),
            true_fans=(float(view.fans[0]), float(view.fans[1])),
            variance=_variance(part),
            intended=gains.intended(following),
            follows=following.text,
        )
        findings += _unit_findings(part, following)
        if not findings and not weight.variable.name.startswith("lora_"):
            findings += _variance_findings(part, row, following, behind)
    if id(weight.variable) in shared:
        findings.append(shared[id(weight.variable)])
    return row._replace(
        findings=tuple(finding.name for finding in findings),
        severity=max(
            (finding.severity for finding in findings), key=rules.SEVERITIES.index, default=rules.OK
        ),
        fix="; ".join(finding.fix for finding in findings if finding.fix),
    )


def _variance(part: _Part) -> float:
    assert part.view is not None
    return rules.mean_square(part.values) * float(part.view.fans[0])


def _behind(part: _Part, parts: Sequence[_Part]) -> tuple[Following, float]:
    """What follows a kernel, and the variance of kernels in between in the same layer."""
    weight = part.weight
    if not isinstance(weight.holder, _SEPARABLE) or weight.variable.name != "depthwise_kernel":
        return part.following, 1.0
    if part.following.normalization is None:
        return Following(LINEAR), 1.0
    pointwise = next(
        other
        for other in parts
        if other.weight.holder is weight.holder and other.weight.variable.name == "pointwise_kernel"
    )
    return part.following, _variance(pointwise)


def _scale_findings(part: _Part) -> list[_Finding]:
    """Whether a normalization lets nothing through."""
    if part.weight.variable.name not in ("gamma", "scale") or part.values.any():
        return []
    if part.following.adds:
        return [_Finding("zero", rules.NOTE)]
    fix = "gamma_initializer='ones': zeros are for the end of a residual branch"
    return [_Finding("zero", rules.WARNING, fix)]


def _unit_findings(part: _Part, following: Following) -> list[_Finding]:
    """Whether the units of a layer can be told apart."""
    assert part.view is not None
    is_zero = not part.values.any()
    # A single unit, or the kernel that a channel has for itself, is like no other.
    if not is_zero and not rules.has_like_units(_maps(part.view, part.values)):
        return []
    name = "zero" if is_zero else "constant" if rules.is_constant(part.values) else "alike"
    is_by_design = following.is_last or following.adds
    if is_by_design or part.weight.variable.name.startswith("lora_"):
        return [_Finding(name, rules.NOTE)]
    severity = rules.WARNING if following.activation is None else rules.ERROR
    reason = "no signal passes" if name == "zero" else "all units start as one"
    return [_Finding(name, severity, f"{reason}: {_instead(part, following)}")]


def _maps(view: KernelView, values: Any) -> Any:
    return keras.ops.convert_to_numpy(view.to_maps(values))


def _variance_findings(
    part: _Part, row: WeightAudit, following: Following, behind: float
) -> list[_Finding]:
    """Whether a kernel leads to the intended variance."""
    assert row.variance is not None
    normalization = following.normalization
    if normalization is None:
        if not rules.is_off(row.variance, row.intended, part.values.size):
            return []
        is_small = row.variance < (row.intended or 1.0)
        is_choice = following.is_last or (is_small and (following.adds or following.is_gate))
        name, severity = "scale", rules.NOTE if is_choice else rules.WARNING
    else:
        epsilon = float(getattr(normalization, "epsilon", None) or 0.0)
        signal = row.variance * behind
        # Of a sum, the other signals are normalized as well. What the kernels in between
        # swallow themselves is found there.
        if following.is_sum_normalized or not rules.is_swallowed(signal, epsilon):
            return []
        name, severity = "swallowed", rules.WARNING
    findings = [_Finding(name, severity, _instead(part, following))]
    if _reads_other_fans(part, row):
        findings.append(_Finding("fans", severity))
    return findings


def _keras_fans(part: _Part) -> tuple[float, float]:
    axes = [getattr(part.initializer, name, None) for name in ("input_axes", "output_axes")]
    # Those of a weight that is packed, as quantised ones are, say nothing of its shape.
    shape = part.view.shape if part.view is not None else tuple(part.weight.variable.shape)
    fan_in, fan_out = fans_from_shape(shape, *axes)
    return float(fan_in), float(fan_out)


def _reads_other_fans(part: _Part, row: WeightAudit) -> bool:
    """Whether the shape misleads the initializer."""
    mode = getattr(part.initializer, "mode", None)
    if not isinstance(part.initializer, keras.initializers.VarianceScaling) or not row.true_fans:
        return False
    pairs = list(zip(row.keras_fans or (), row.true_fans, strict=True))
    pairs = {"fan_in": pairs[:1], "fan_out": pairs[1:]}.get(str(mode), pairs)
    return any(seen != true for seen, true in pairs)


def _instead(part: _Part, following: Following) -> str:
    """What to write for a kernel."""
    assert part.view is not None
    weight = part.weight
    name = weight.variable.name
    initializer = suited_initializer(following)
    sees_all = _keras_fans(part)[0] == part.view.fans[0]
    _, weights, units = part.view.matrix_shape
    if "Orthogonal" in type(part.initializer).__name__ and units <= weights:
        # As it is meant: each gate, group or head for itself.
        initializer = re.sub(r"^LecunNormal", "Orthogonal", initializer)
        initializer = re.sub(r"^HeNormal\(\)", "Orthogonal(gain='relu')", initializer)
        sees_all = sees_all and part.view.maps_shape[0] == 1
    known = [x for x in argument_names(name) if callable(getattr(weight.holder, x, None))]
    everywhere = f"keras_initkit.reinitialize(model, {{{weight.path!r}: {initializer}}})"
    if not known:
        return everywhere
    argument = f"{known[0]}={initializer}"
    if not sees_all:
        argument += " with keras_initkit.layer_aware(layer)"
    return f"{argument}, or {everywhere}"


def _shared(parts: Sequence[_Part]) -> dict[int, _Finding]:
    """Of each kernel whose numbers are another's, by its `id`: which, and why."""
    kernels = [part for part in parts if part.role == "kernel"]
    found: dict[int, _Finding] = {}
    for likeness in rules.likenesses([part.values for part in kernels]):
        pair = kernels[likeness.first], kernels[likeness.second]
        for part, other in (pair, pair[::-1]):
            name = "same" if likeness.is_same else "correlated"
            said = "same values as" if likeness.is_same else "correlated with"
            why = _why_shared(part.initializer, other.initializer)
            fix = (
                f"{said} {other.weight.path}{why}: give each layer an initializer of its own "
                "without a seed, or keras_initkit.reinitialize(model, seed=0)"
            )
            found.setdefault(id(part.weight.variable), _Finding(name, rules.WARNING, fix))
    return found


def _why_shared(first: Any, second: Any) -> str:
    if first is not None and first is second:
        return " (one initializer for both)"
    seed = getattr(first, "seed", None)
    if isinstance(seed, int) and seed == getattr(second, "seed", None):
        return f" (seed {seed} in both)"
    return ""
