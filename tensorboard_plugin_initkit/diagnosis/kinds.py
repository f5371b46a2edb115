"""The kinds of findings, each with its meaning."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

KINDS = {
    "single_unit_softmax": "a softmax, or a loss for classes, over one unit",
    "head_activation": "an output activation that does not fit the loss or the targets",
    "logits": "logits given to a loss for probabilities, or probabilities to one for logits",
    "loss_choice": "a loss that does not fit the targets",
    "label_form": "labels in another form than the loss wants",
    "target_range": "targets outside of the range of the output or the loss",
    "target_shape": "targets that do not fit the output's shape",
    "negative_loss": "a loss below zero, where that cannot be",
    "embedding_indices": "numbers that are not indices of an embedding",
    "constant_input": "inputs that are the same for all samples",
    "input_scale": "inputs far from a mean of 0 and a standard deviation of 1",
    "feature_scales": "features of very different scales",
    "target_scale": "targets of a scale that the output does not reach",
    "one_class": "labels of one class only",
    "rare_classes": "classes with hardly any samples",
    "zero_sample_weights": "sample weights that are all zero",
    "negative_sample_weights": "sample weights below zero",
    "mixed_samples": "outputs that depend on other samples of the batch",
    "unused_input": "inputs, or most of one, on which no output depends",
    "no_activation": "layers with nothing non-linear between them",
    "double_activation": "one activation after another at the output",
    "hidden_softmax": "a softmax between hidden layers",
    "deep_sigmoids": "several hidden layers with sigmoids",
    "bad_start": "initial weights that lose or blow up the signal",
    "equal_weights": "initial weights that are all the same",
    "frozen": "layers that are not trained",
    "wrong_axis": "a normalization over the wrong axis",
    "output_dropout": "dropout at the output",
    "strong_dropout": "dropout that leaves hardly anything",
    "single_samples": "a batch normalization of batches of one sample",
    "output_normalization": "a normalization at the output",
    "strong_penalty": "penalties or constraints that outweigh the loss of the data",
    "learning_rate": "a learning rate that is too large or too small",
    "tight_clipping": "gradients that are clipped all the time",
    "noisy_gradient": "gradients that are noise of their batches",
    "nonfinite": "numbers that are NaN or infinite",
    "vanishing": "gradients lost on their way back to the input",
    "exploding": "gradients that grow, towards the input or from step to step",
    "dead_units": "units that pass no gradient on",
    "no_gradient": "layers on which the loss does not depend",
    "large_updates": "updates that overwrite the initial weights",
    "small_updates": "updates too small for the weights' precision",
    "constant_output": "an output that is the same for all samples",
    "constant_loss": "a loss that does not move",
    "oscillation": "a loss that swings up and down and does not fall",
    "rising_loss": "a loss that grows",
    "no_better_than_guessing": "a loss no better than that of the best constant",
    "not_learning": "a training that does not learn, without a cause being found",
    "spike": "gradients of one step that are far above those of the steps before",
    "moving_average": "averages of a batch normalization that are still those of the start",
    "ended_early": "a training that ended while its loss was still falling",
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


def explain(kind: str) -> list[str]:
    """Return the paragraphs of the documentation on a kind, without links; none if unknown."""
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", _read_sections().get(kind, ""))
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


@functools.cache
def _read_sections() -> dict[str, str]:
    """Read the page on kinds, of the package or of a checkout, by its headings."""
    package = Path(__file__).parents[1]
    folders = (package / "explanations", package.parent / "docs" / "explanations")
    page = next((path for f in folders if (path := f / "kinds.md").is_file()), None)
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:] if page else []
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}
