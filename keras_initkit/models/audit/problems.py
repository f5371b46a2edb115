"""The audit's findings: faults of a weight's start, each with its sentence and its fix."""

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import keras

from keras_initkit.anatomy.following import Following
from keras_initkit.anatomy.initializers import argument_names
from keras_initkit.anatomy.setup import read_setup
from keras_initkit.models.audit import rules
from keras_initkit.models.audit.parts import (
    Part,
    variance_before,
    variance_between,
    variance_of_small_signals,
)
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding, Severity
from tensorboard_plugin_initkit.diagnosis.fix import Fix
from tensorboard_plugin_initkit.diagnosis.start import judge_start, read_chain
from tensorboard_plugin_initkit.record.history import GradientHistory


def find_bad_start(model: Any, parts: Sequence[Part]) -> tuple[Finding | None, frozenset[str]]:
    """Find a start that loses or blows up signal or gradient from the input to the output.

    Returns:
        The finding, and the layers that have a part in it.
    """
    if any(part.role == "bias" and part.values.min(initial=0.0) < 0.0 for part in parts):
        return None, frozenset()  # of biases drawn at random the theory of kernels does not know
    history = GradientHistory()
    history.setup = read_setup(model)
    kernels = {
        part.weight.layer: (part.variance / fans[0], *fans)
        for part in parts
        if part.role == "kernel" and part.variance is not None and (fans := part.true_fans)
    }
    chain = read_chain(Facts(history), kernels)
    told = judge_start(chain)
    if not told:
        return None, frozenset()
    seen, cause, fix, layer, numbers = told
    finding = Finding("bad_start", layer, None, seen, numbers, cause=cause, fix=fix)
    return finding, frozenset(link.layer.path for link in chain)


def find_problems(part: Part, parts: Sequence[Part], bad: Collection[str] = ()) -> list[Finding]:
    """Find the faults of a weight by itself, among all parts of its model.

    Args:
        part: The weight.
        parts: All of its model's.
        bad: Layers that lose or blow up signal or gradient together: their variance is a warning.
    """
    if part.role == "scale":
        return _scale_findings(part)
    if part.role != "kernel":
        return []
    if part.view is None:
        name = type(part.weight.owner).__name__
        message = f"`{part.weight.path}` cannot be judged: {name} has no rule for its fans."
        fix = f"write a rule: @keras_initkit.register_fans({name})"
        return [_finding("unknown", part, message, "note", fix)]
    found = _unit_findings(part)
    if _is_of_lora(part):  # of which one factor starts at zeros
        return [] if part.weight.name.endswith("_b") else found
    if found:
        return found
    if part.following.normalization is None:
        found = _variance_findings(part, part.weight.layer in bad)
    else:
        found = _swallowed_findings(part, parts)
    return [*found, *(_fans_finding(part, finding) for finding in found if _misleads(part))]


def find_shared_numbers(parts: Sequence[Part]) -> dict[int, list[Finding]]:
    """Find, by the `id` of its variable, each kernel with the numbers of another, the first one."""
    kernels = [part for part in parts if part.role == "kernel"]
    found: dict[int, list[Finding]] = {}
    for likeness in rules.likenesses([part.values for part in kernels]):
        kind, relation = "correlated", "correlated with"
        if likeness.is_same:
            kind, relation = "same", "same values as"
        pair = kernels[likeness.first], kernels[likeness.second]
        for part, other in (pair, pair[::-1]):
            path, other_path = part.weight.path, other.weight.path
            why = _explain_shared(part.initializer, other.initializer)
            fix = (
                f"{relation} {other_path}{why}: give each layer an initializer of its own "
                "without a seed, or keras_initkit.reinitialize(model, seed=0)"
            )
            message = (
                f"The random numbers of `{path}` and `{other_path}` have correlation "
                f"{likeness.correlation:.3g}{why}."
            )
            numbers = {"correlation": likeness.correlation}
            finding = _finding(kind, part, message, "warning", fix, numbers)
            found.setdefault(id(part.weight.variable), [finding])
    return found


def suggest_initializer(following: Following) -> str:
    """Write an initializer for the intended variance."""
    function = following.function
    if function is None or following.is_last or following.is_gate:
        return "LecunNormal()"
    slope = getattr(function, "keywords", {}).get("negative_slope")
    if slope:
        return f"HeNormal(negative_slope={slope:g})"
    gain = math.sqrt(variance_before(function))
    for name, written in (
        ("relu", "HeNormal()"),
        ("linear", "LecunNormal()"),
        (following.activation, f"LecunNormal(gain='{following.activation}')"),
    ):
        if hasattr(keras.activations, name or "") and math.isclose(
            gain, math.sqrt(variance_before(keras.activations.get(name))), rel_tol=1e-3
        ):
            return written
    return f"LecunNormal(gain={gain:.4g})"


def _finding(
    kind: str,
    part: Part,
    message: str,
    severity: Severity,
    fix: str = "",
    evidence: dict[str, float] | None = None,
) -> Finding:
    layer = part.weight.layer
    return Finding(kind, layer, None, message, evidence or {}, severity=severity, fix=Fix(fix))


def _scale_findings(part: Part) -> list[Finding]:
    """Find a normalization's scale of zeros."""
    name = part.weight.variable.name
    # Where its use is not known, as in x · (1 + scale), zeros may be right.
    if name not in ("gamma", "scale") or part.values.any() or not part.following.is_known:
        return []
    message = f"`{part.weight.path}` is all zeros: no signal passes the normalization."
    if part.following.adds:
        return [_finding("zero", part, message, "note")]
    # `RMSNormalization` takes no initializer for its scale.
    start = "gamma_initializer='ones'" if name == "gamma" else f"{name}.assign(1)"
    fix = f"{start}: zeros are only right at the end of a residual branch"
    return [_finding("zero", part, message, "warning", fix)]


def _unit_findings(part: Part) -> list[Finding]:
    """Find units of a layer with the same weights."""
    assert part.view is not None
    values = part.values
    if not values.any():
        kind, state, reason = "zero", "is all zeros", "no signal passes"
    # A single unit, or the kernel that a channel has for itself, is like no other.
    elif rules.has_like_units(keras.ops.convert_to_numpy(part.view.to_maps(values))):
        kind, state, reason = "alike", "has equal units", "all units start the same"
        if values.min() == values.max():
            kind, state = "constant", "is constant"
    else:
        return []
    message = f"`{part.weight.path}` {state}: {reason}."
    following = part.following
    if following.is_last or following.adds or _is_of_lora(part):
        return [_finding(kind, part, message, "note")]
    if not following.is_known:
        # Zeros may be meant, as before a gate; units that are alike can hardly be.
        return [_finding(kind, part, message, "note" if kind == "zero" else "warning")]
    severity: Severity = "warning" if following.activation is None else "error"
    return [_finding(kind, part, message, severity, f"{reason}: {_suggest_code(part)}")]


def _is_of_lora(part: Part) -> bool:
    return bool(part.weight.variable.name.startswith("lora_"))


def _variance_findings(part: Part, is_bad: bool) -> list[Finding]:
    """Find a kernel with another variance than the intended one.

    That is a note: a warning only if it has a part in a bad start, or makes one by itself.
    """
    following, variance, intended = part.following, part.variance or 0.0, part.intended
    small = None if intended in (None, 1.0) else variance_of_small_signals(following.function)
    if not rules.is_off(variance, intended, part.values.size, small):
        return []
    is_small = variance < (intended or 1.0)
    is_choice = following.is_last or (is_small and (following.adds or following.is_gate))
    wanted = "suited to no usual activation" if intended is None else f"not {intended:.3g}"
    message = (
        f"For inputs of mean square 1 `{part.weight.path}` gives variance {variance:.3g}, "
        f"{wanted} (followed by {following.text})."
    )
    evidence = {"variance": variance} | ({} if intended is None else {"intended": intended})
    if not following.is_known:  # it may be right for what follows
        return [_finding("scale", part, message, "note", evidence=evidence)]
    is_bad = is_bad or rules.is_extreme(variance, intended or 1.0)
    severity: Severity = "warning" if is_bad and not is_choice else "note"
    return [_finding("scale", part, message, severity, _suggest_code(part), evidence)]


def _swallowed_findings(part: Part, parts: Sequence[Part]) -> list[Finding]:
    """Find a variance that is small against the epsilon of the next normalization."""
    normalization = part.following.normalization
    epsilon = float(getattr(normalization, "epsilon", None) or 0.0)
    signal = (part.variance or 0.0) * variance_between(part, parts)
    # Of a sum, the other signals are normalized as well, and so are the features beside it, unless
    # each is by itself. If the kernels in between swallow the signal, the finding is theirs.
    joins = part.following.joins and not isinstance(normalization, keras.layers.BatchNormalization)
    if part.following.is_sum_normalized or joins or not rules.is_swallowed(signal, epsilon):
        return []
    message = (
        f"After `{part.weight.path}` the variance is {signal:.3g}, hardly more than epsilon "
        f"{epsilon:.3g} of `{normalization.name}`, which then does not normalize."
    )
    numbers = {"variance": signal, "epsilon": epsilon}
    return [_finding("swallowed", part, message, "warning", _suggest_code(part), numbers)]


def _fans_finding(part: Part, finding: Finding) -> Finding:
    """Explain a finding by the fans of the shape."""
    (fan_in, fan_out), (true_in, true_out) = part.keras_fans, part.true_fans or (0.0, 0.0)
    message = (
        f"Keras reads the fans {fan_in:g}/{fan_out:g} from the shape of `{part.weight.path}`; the "
        f"true ones are {true_in:g}/{true_out:g}."
    )
    numbers = {"keras_fan_in": fan_in, "keras_fan_out": fan_out}
    numbers |= {"fan_in": true_in, "fan_out": true_out}
    return _finding("fans", part, message, finding.severity, evidence=numbers)


def _misleads(part: Part) -> bool:
    """Check if the shape misleads the initializer."""
    if not isinstance(part.initializer, keras.initializers.VarianceScaling) or not part.true_fans:
        return False
    pairs = list(zip(part.keras_fans, part.true_fans, strict=True))
    pairs = {"fan_in": pairs[:1], "fan_out": pairs[1:]}.get(part.initializer.mode, pairs)
    return any(seen != true for seen, true in pairs)


def _explain_shared(first: Any, second: Any) -> str:
    if first is not None and first is second:
        return " (one initializer for both)"
    seed = getattr(first, "seed", None)
    if isinstance(seed, int) and seed == getattr(second, "seed", None):
        return f" (seed {seed} in both)"
    return ""


def _suggest_code(part: Part) -> str:
    """Write the code for a kernel with the intended variance, in one line."""
    assert part.view is not None
    weight = part.weight
    initializer = suggest_initializer(part.following)
    sees_all = part.keras_fans[0] == part.view.fans[0]
    _, weights, units = part.view.matrix_shape
    if "Orthogonal" in type(part.initializer).__name__ and units <= weights:
        # As it is meant: each gate, group or head for itself.
        initializer = re.sub(r"^LecunNormal", "Orthogonal", initializer)
        initializer = re.sub(r"^HeNormal\(\)", "Orthogonal(gain='relu')", initializer)
        sees_all = sees_all and part.view.maps_shape[0] == 1
    everywhere = f"keras_initkit.reinitialize(model, {{{weight.path!r}: {initializer}}})"
    for name in argument_names(weight.variable.name):
        if callable(getattr(weight.holder, name, None)):
            aware = "" if sees_all else " with keras_initkit.layer_aware(layer)"
            return f"{name}={initializer}{aware}, or {everywhere}"
    return everywhere
