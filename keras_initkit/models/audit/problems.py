"""What is wrong with the start of a weight, how badly, and what to do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_initkit.models.audit import rules as rules
from keras_initkit.models.audit.fixes import instead
from keras_initkit.models.audit.parts import Part, variance_between


class Finding(NamedTuple):
    """A finding, its severity, and what to do."""

    name: str
    severity: str
    fix: str = ""


def findings_of(part: Part, parts: Sequence[Part], intended: float | None) -> list[Finding]:
    """What is wrong with a kernel or a scale by itself.

    Args:
        part: It.
        parts: All of the model.
        intended: The variance that it is meant to lead to; `None` if any will do, or is not known.
    """
    if part.role == "scale":
        return _scale_findings(part)
    if part.view is None:
        fix = f"write a rule: @keras_initkit.register_fans({type(part.owner).__name__})"
        return [Finding("unknown", rules.NOTE, fix)]
    found = _unit_findings(part)
    if found or part.weight.variable.name.startswith("lora_"):
        return found
    return _variance_findings(part, parts, intended)


def _scale_findings(part: Part) -> list[Finding]:
    """Whether a normalization lets nothing through."""
    if part.weight.variable.name not in ("gamma", "scale") or part.values.any():
        return []
    if part.following.adds:
        return [Finding("zero", rules.NOTE)]
    name = part.weight.variable.name  # `RMSNormalization` takes no initializer for its scale
    start = "gamma_initializer='ones'" if name == "gamma" else f"{name}.assign(1)"
    fix = f"{start}: zeros are for the end of a residual branch"
    return [Finding("zero", rules.WARNING, fix)]


def _unit_findings(part: Part) -> list[Finding]:
    """Whether the units of a layer can be told apart."""
    is_zero = not part.values.any()
    # A single unit, or the kernel that a channel has for itself, is like no other.
    if not is_zero and not rules.has_like_units(_maps(part)):
        return []
    name = "zero" if is_zero else "constant" if rules.is_constant(part.values) else "alike"
    is_by_design = part.following.is_last or part.following.adds
    if is_by_design or part.weight.variable.name.startswith("lora_"):
        return [Finding(name, rules.NOTE)]
    severity = rules.WARNING if part.following.activation is None else rules.ERROR
    reason = "no signal passes" if name == "zero" else "all units start as one"
    return [Finding(name, severity, f"{reason}: {instead(part)}")]


def _maps(part: Part) -> Any:
    assert part.view is not None
    return keras.ops.convert_to_numpy(part.view.to_maps(part.values))


def _variance_findings(part: Part, parts: Sequence[Part], intended: float | None) -> list[Finding]:
    """Whether a kernel leads to the intended variance."""
    following, variance = part.following, part.variance or 0.0
    normalization = following.normalization
    if normalization is None:
        if not rules.is_off(variance, intended, part.values.size):
            return []
        is_small = variance < (intended or 1.0)
        is_choice = following.is_last or (is_small and (following.adds or following.is_gate))
        name, severity = "scale", rules.NOTE if is_choice else rules.WARNING
    else:
        epsilon = float(getattr(normalization, "epsilon", None) or 0.0)
        signal = variance * variance_between(part, parts)
        # Of a sum, the other signals are normalized as well. What the kernels in between
        # swallow themselves is found there.
        if following.is_sum_normalized or not rules.is_swallowed(signal, epsilon):
            return []
        name, severity = "swallowed", rules.WARNING
    findings = [Finding(name, severity, instead(part))]
    if _reads_other_fans(part):
        findings.append(Finding("fans", severity))
    return findings


def _reads_other_fans(part: Part) -> bool:
    """Whether the shape misleads the initializer."""
    mode = getattr(part.initializer, "mode", None)
    if not isinstance(part.initializer, keras.initializers.VarianceScaling) or not part.true_fans:
        return False
    pairs = list(zip(part.keras_fans, part.true_fans, strict=True))
    pairs = {"fan_in": pairs[:1], "fan_out": pairs[1:]}.get(str(mode), pairs)
    return any(seen != true for seen, true in pairs)


def shared_numbers(parts: Sequence[Part]) -> dict[int, Finding]:
    """Of each kernel whose numbers are another's, by its `id`: which, and why."""
    kernels = [part for part in parts if part.role == "kernel"]
    found: dict[int, Finding] = {}
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
            found.setdefault(id(part.weight.variable), Finding(name, rules.WARNING, fix))
    return found


def _why_shared(first: Any, second: Any) -> str:
    if first is not None and first is second:
        return " (one initializer for both)"
    seed = getattr(first, "seed", None)
    if isinstance(seed, int) and seed == getattr(second, "seed", None):
        return f" (seed {seed} in both)"
    return ""
