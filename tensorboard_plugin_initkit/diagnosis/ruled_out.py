"""The verdict "nothing wrong found, but it does not learn", with what was ruled out."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tensorboard_plugin_initkit.diagnosis.depth import judge_depth
from tensorboard_plugin_initkit.diagnosis.facts import Facts
from tensorboard_plugin_initkit.diagnosis.finding import Finding
from tensorboard_plugin_initkit.diagnosis.windows import quotient


def tell_what_is_ruled_out(facts: Facts, symptom: Finding) -> Finding:
    """Turn a symptom without a cause into the verdict, with the numbers at its step."""
    row = int(np.searchsorted(facts.steps, symptom.rank))
    evidence: dict[str, float] = {}
    reasons = []
    for reason, numbers in _reasons(facts, row):
        reasons.append(reason)
        evidence |= numbers
    message = f"It does not learn, and nothing wrong was found: {_continue(symptom.message)}"
    return dataclasses.replace(
        symptom,
        kind="not_learning",
        message=message,
        evidence=symptom.evidence | evidence,
        cause=f"Ruled out: {'; '.join(reasons)}." if reasons else "",
        fix="Let the model learn one batch by heart: if it can, look at inputs and targets (do "
        "they belong together, in the same order?); if it cannot, try learning rates ten times "
        "larger and smaller, and a wider model.",
        confidence="possible",
        consequences=(symptom.message, *symptom.consequences),
    )


def _continue(message: str) -> str:
    """Return the part of a message after its heading."""
    return message.partition(": ")[2]


def _reasons(facts: Facts, row: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each kind of fault that was looked for in vain, and the numbers of it."""
    if any(head.loss for head in facts.setup.heads) and facts.ports_of("y"):
        yield "output, loss and targets fit each other", {}
    if inputs := facts.ports_of("x"):
        mean, std = (facts.per_port(name)[row, inputs[0]] for name in ("mean", "std"))
        numbers = {"input_mean": float(mean), "input_std": float(std)}
        yield f"inputs have a mean of {mean:.2g} and a standard deviation of {std:.2g}", numbers
    factors = [judgement.line_at(row).factor for judgement in judge_depth(facts)]
    if factors and np.isfinite(factors[0]):
        text = f"the gradient changes by x{factors[0]:.2g} per layer towards the input"
        yield text, {"factor": factors[0]}
    dead = facts.per_variable("dead_units")[row]
    if np.isfinite(dead).any():
        share = float(np.nanmax(dead))
        yield f"at most {share:.0%} of the units of a layer have no gradient", {"dead_units": share}
    weights = facts.norm_of_layers(facts.per_variable("weight_norm")[row : row + 1])
    sizes = facts.per_variable("update_ratio")[row : row + 1]
    moves = np.nan_to_num(sizes, posinf=0.0) * facts.per_variable("weight_norm")[row : row + 1]
    ratio = quotient(facts.norm_of_layers(moves), weights)[0]
    if np.isfinite(ratio).any() and np.isfinite(sizes).any():
        size = float(np.nanmedian(ratio))
        yield f"an update changes the weights by {size:.1g} of their norm", {"update_ratio": size}
