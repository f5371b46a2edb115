"""The kinds of findings, each with its meaning."""

from collections.abc import Iterable

KINDS = {
    "nonfinite": "numbers that are NaN or infinite",
    "vanishing": "gradients lost on their way back to the input",
    "exploding": "gradients that grow, towards the input or from step to step",
    "dead_units": "units that pass no gradient on",
    "no_gradient": "layers on which the loss does not depend",
    "large_updates": "updates that overwrite what the weights began with",
    "small_updates": "updates too small for the weights' precision",
    "constant_output": "an output that is the same for all samples",
    "constant_loss": "a loss that does not move",
    "rising_loss": "a loss that grows",
    "no_better_than_guessing": "a loss no better than that of the best constant",
    "not_learning": "a training that does not learn, for no cause that was found",
    "ended_early": "a training that ended while its loss still fell",
}


def check_kinds(kinds: Iterable[str]) -> frozenset[str]:
    """Return names of kinds as a set; raise ValueError for others."""
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ValueError(
            f"`ignore` must be a list of kinds of findings: {', '.join(sorted(KINDS))}. Received: "
            f"{', '.join(map(repr, unknown))}. Write the name as in `finding.kind`."
        )
    return frozenset(names)
