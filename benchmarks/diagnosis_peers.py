"""Judge the trainings of `benchmarks.mutants` by what others publish, beside our own diagnosis.

    pip install '.[torch]' torchmortem
    KERAS_BACKEND=torch python -m benchmarks.diagnosis_peers [--processes 2] [--faults NAME ...]

Each healthy program and each mutant is trained once, and looked at by all: by `torchmortem`, whose
hooks get what Keras layers take and give; and by rules that are stated here again in short, with
their thresholds: AutoTrainer (Zhang et al., ICSE 2021), Amazon SageMaker Debugger's built-in rules,
DeepDiagnosis (Wardat et al., ICSE 2022), TheDeepChecker (Braiek and Khomh, 2023). They are not the
tools themselves, which need other versions of Keras or another service.

Printed is, for each, in how many mutants it says anything, in how many something of the right kind,
in how many healthy programs it says anything. The right kind is judged generously: one of its
words, anywhere, must mean one of the kinds that are expected of the fault, by the table `MEANS`.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib
import itertools
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import torch

from benchmarks.mutants import FAULT_BY_NAME, FAULTS, look, make_mutant, programs, train

Array = np.ndarray
EVERY = 10  # steps between two looks

# What the words of the peers may mean, in kinds of our diagnosis.
MEANS = {
    "vanishing": {"vanishing", "bad_start", "deep_sigmoids", "hidden_softmax"},
    "exploding": {
        "exploding",
        "bad_start",
        "large_updates",
        "learning_rate",
        "rising_loss",
        "nonfinite",
        "input_scale",
        "target_scale",
    },
    "dead units": {"dead_units", "large_updates", "learning_rate", "equal_weights", "input_scale"},
    "saturation": {"deep_sigmoids", "input_scale", "target_range", "bad_start", "constant_output"},
    "nonfinite": {"nonfinite", "exploding", "large_updates", "target_scale"},
    "large updates": {"large_updates", "learning_rate", "rising_loss", "exploding"},
    "small updates": {"small_updates", "learning_rate", "clipping", "constant_loss"},
    "inputs": {"input_scale", "constant_input"},
    "weights": {"bad_start", "equal_weights", "vanishing", "exploding"},
    "loss": {"constant_loss", "rising_loss", "not_learning", "no_better_than_guessing"},
    "labels": {"one_class", "rare_classes"},
}


class Leaf(torch.nn.Module):
    """A Keras layer as PyTorch's hooks want it: a module with parameters and without children."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight = layer.kernel.value
        self.hooks: list[Any] = []
        self.backward: list[Any] = []
        if getattr(layer, "bias", None) is not None:
            self.bias = layer.bias.value
        self.layer, layer.call = [layer], self._wrap(layer.call)  # in a list: no child

    def _wrap(self, call: Any) -> Any:
        @functools.wraps(call)
        def called(*args: Any, **kwargs: Any) -> Any:
            out = call(*args, **kwargs)
            for hook in self.hooks:
                hook(self, args, out)
            for hook in self.backward if out.requires_grad else ():
                out.register_hook(functools.partial(self._tell, hook))
            return out

        return called

    def _tell(self, hook: Any, gradient: Any) -> None:
        hook(self, (None,), (gradient,))

    def register_forward_hook(self, hook: Any, **kwargs: Any) -> Any:
        """Keep a hook for outputs."""
        self.hooks.append(hook)
        return super().register_forward_hook(hook)

    def register_full_backward_hook(self, hook: Any, prepend: bool = False) -> Any:
        """Keep a hook for gradients at outputs."""
        self.backward.append(hook)
        return super().register_full_backward_hook(hook)


@dataclasses.dataclass
class Look:
    """What the published rules read, every tenth step: a list has one entry a layer."""

    step: int
    loss: float
    accuracy: float  # NaN where there is none
    gradients: list[Array]  # of kernels
    weights: list[Array]
    updates: list[float]  # norm of the update by that of the weights
    outputs: list[Array]
    activations: list[str]


class Watch(keras.callbacks.Callback):
    """Collects a `Look` every tenth step, and hands each step to torchmortem."""

    def __init__(self, x: Array, y: Array) -> None:
        super().__init__()
        self.x, self.y, self.step = x[:256], y[:256], 0
        self.looks: list[Look] = []
        self.losses: list[float] = []
        self.autopsy: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Attach torchmortem, and find the layers with kernels."""
        layers = [
            layer for layer in self.model.layers if getattr(layer, "kernel", None) is not None
        ]
        self.layers = [layer for layer in layers if layer.kernel.trainable]
        leaves = torch.nn.ModuleDict({layer.name: Leaf(layer) for layer in self.layers})
        self.autopsy = importlib.import_module("torchmortem").Autopsy(leaves)
        self.autopsy.attach()
        self.probe = keras.Model(self.model.inputs, [layer.output for layer in self.layers])

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Keep the weights before an update that is looked at."""
        if self.step % EVERY == 0:
            self.before = [np.array(layer.kernel) for layer in self.layers]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step, and look at every tenth."""
        self.losses.append(float(logs["loss"]))
        with contextlib.suppress(torch.linalg.LinAlgError):  # torchmortem's ranks of NaN
            self.autopsy.step(loss=self.losses[-1])
        if self.step % EVERY == 0:
            self.looks.append(self._look())
        self.step += 1

    def _look(self) -> Look:
        weights = [np.array(layer.kernel) for layer in self.layers]
        grads = [layer.kernel.value.grad for layer in self.layers]
        with torch.no_grad():
            outputs = self.probe(self.x, training=False)
            predicted = keras.ops.convert_to_numpy(self.model(self.x, training=False))
        outputs = outputs if isinstance(outputs, list) else [outputs]
        accuracy = np.nan
        if predicted.ndim == 2 and predicted.shape[1] > 1:
            y = self.y.argmax(1) if self.y.ndim > 1 and self.y.shape[1] > 1 else self.y.ravel()
            accuracy = float(np.mean(predicted.argmax(1) == y))
        return Look(
            self.step,
            self.losses[-1],
            accuracy,
            [
                np.zeros_like(w) if g is None else g.numpy()
                for g, w in zip(grads, weights, strict=True)
            ],
            self.before,
            [
                float(np.linalg.norm(w - b)) / max(float(np.linalg.norm(b)), 1e-30)
                for w, b in zip(weights, self.before, strict=True)
            ],
            [keras.ops.convert_to_numpy(out) for out in outputs],
            [keras.activations.serialize(layer.activation) or "" for layer in self.layers],
        )


def is_finite(look: Look) -> bool:
    """Check all numbers of a look."""
    parts: list[Any] = [look.loss, *look.gradients, *look.weights, *look.outputs]
    return all(bool(np.isfinite(part).all()) for part in parts)


def judge_autotrainer(looks: Sequence[Look], x: Array, y: Array) -> Iterator[str]:
    """Apply AutoTrainer's rules, where the accuracy is bad (below .6) or there is none."""
    for seen in looks:
        if not is_finite(seen):
            yield "nonfinite"
            return
        if seen.accuracy > 0.6:
            continue
        norms = [float(np.linalg.norm(g)) for g in seen.gradients]
        if norms[0] < 1e-4 and norms[0] < 1e-3 * norms[-1]:
            yield "vanishing"
        if max(norms) > 70:
            yield "exploding"
        if any(np.mean(g == 0) >= 0.7 for g in seen.gradients[:-1]):
            yield "dead units"
    losses = np.array([seen.loss for seen in looks])
    if len(losses) > 4 and looks[-1].accuracy < 0.6:
        if np.mean(np.diff(losses) > 0.03) > 0.2:
            yield "large updates"
        if losses[0] - losses[-1] < 0.01 * losses[0]:
            yield "loss"


def judge_sagemaker(looks: Sequence[Look], x: Array, y: Array) -> Iterator[str]:
    """Apply SageMaker Debugger's built-in rules with their defaults."""
    for seen in looks:
        if not is_finite(seen):
            yield "nonfinite"
            return
        if any(np.abs(g).mean() < 1e-7 for g in seen.gradients):
            yield "vanishing"
        if any(u > 10 for u in seen.updates):
            yield "large updates"
        if any(u < 1e-8 for u in seen.updates):
            yield "small updates"
        for out, name in zip(seen.outputs, seen.activations, strict=True):
            if (
                name == "relu"
                and np.mean((out > 0).reshape(-1, out.shape[-1]).mean(0) < 0.01) > 0.5
            ):
                yield "dead units"
            if name == "tanh" and np.mean(np.abs(out) > 0.999999) > 0.5:
                yield "saturation"
        if all((w == 0).all() for w in seen.weights):
            yield "weights"
    first = looks[0].weights
    variances = [float(w.var()) for w in first if w.size > 1]
    if variances and max(variances) > 10 * min(variances):
        yield "weights"
    losses = [seen.loss for seen in looks]
    if len(losses) > 1 and losses[-1] >= 0.999 * losses[-2]:
        yield "loss"
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer):
        counts = np.bincount(y - y.min())
        if counts.max() > 10 * max(counts[counts > 0].min(), 1) or len(counts) == 1:
            yield "labels"


def judge_deepdiagnosis(looks: Sequence[Look], x: Array, y: Array) -> Iterator[str]:
    """Apply DeepDiagnosis' rules."""
    if np.abs(x).max() > 1:
        yield "inputs"
    for seen in looks:
        if not is_finite(seen):
            yield "nonfinite"
            return
        if any(np.abs(g).max() < 1e-7 for g in seen.gradients):
            yield "vanishing"
        for out, name in zip(seen.outputs, seen.activations, strict=True):
            if name == "relu" and np.mean(out == 0) >= 0.7:
                yield "dead units"
            if name in ("tanh", "sigmoid") and np.mean(np.abs(out) > 5) > 0.5:
                yield "saturation"
        if any(u < 1e-5 for u in seen.updates):
            yield "small updates"
        if any(u > 0.1 for u in seen.updates):
            yield "large updates"
    losses = [seen.loss for seen in looks]
    if len(losses) > 5 and losses[-1] >= losses[0]:
        yield "loss"


def judge_deepchecker(looks: Sequence[Look], x: Array, y: Array) -> Iterator[str]:
    """Apply TheDeepChecker's rules."""
    deviation = x.reshape(len(x), -1).std(0)
    if (deviation == 0).all() or not (0.01 < np.abs(x).max() < 100):
        yield "inputs"
    for before, seen in itertools.pairwise(looks):
        if not is_finite(seen):
            yield "nonfinite"
            return
        sizes = [float(np.abs(g).mean()) for g in seen.gradients]
        grown = [float(np.abs(g).mean()) for g in before.gradients]
        if any(size < 1e-6 for size in sizes):
            yield "vanishing"
        if any(s > 1e6 and s > 2 * g for s, g in zip(sizes, grown, strict=True)):
            yield "exploding"
        rates = np.log10(np.maximum(seen.updates, 1e-30))
        if (rates < -4).any():
            yield "small updates"
        if (rates > -1).any():
            yield "large updates"
        for out, name in zip(seen.outputs[:-1], seen.activations[:-1], strict=True):
            if name == "relu" and np.mean(out == 0) > 0.95:
                yield "dead units"
            if not 0.5 <= out.std() <= 2:
                yield "weights"
    if any((w == w.flat[0]).all() for w in looks[0].weights if w.size > 1):
        yield "weights"


RULES: dict[str, Callable[[Sequence[Look], Array, Array], Iterator[str]]] = {
    "AutoTrainer's rules": judge_autotrainer,
    "SageMaker Debugger's rules": judge_sagemaker,
    "DeepDiagnosis' rules": judge_deepdiagnosis,
    "TheDeepChecker's rules": judge_deepchecker,
}
# torchmortem's categories: noise of gradients and rank are no faults that were planted.
CATEGORIES = {
    "gradient_flow": ("vanishing", "exploding"),
    "dead_units": ("dead units",),
    "saturation": ("saturation",),
    "update_ratio": ("large updates", "small updates"),
    "loss_dynamics": ("loss", "large updates"),
    "weight_norm": ("weights", "large updates"),
    "gradient_noise": ("labels",),
    "rank_collapse": ("weights",),
}


def judge(name: str, fault: str) -> dict[str, tuple[bool, bool]]:
    """Train a program; return for each judge if it says anything, and anything right."""
    _, program = make_mutant(name, fault)
    kinds = set(FAULT_BY_NAME[fault].kinds) if fault else set()
    watch = Watch(program.x, program.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Where Keras itself refuses to train, no rule of others sees anything.
        monitor, _ = train(program, others=[watch])
        ours = look(monitor)
        told = {"keras_initkit": (bool(ours), any(finding.kind in kinds for finding in ours))}
        for rule, function in RULES.items():
            words = set(function(watch.looks, program.x, program.y)) if watch.looks else set()
            told[rule] = bool(words), any(MEANS[word] & kinds for word in words)
        found = []
        if watch.looks:
            watch.autopsy.detach()
            report = watch.autopsy.get_report()
            found = [f for f in report.findings if f.severity.name != "INFO"]
        words = {word for f in found for word in CATEGORIES.get(f.category, ())}
        told["torchmortem"] = bool(found), any(MEANS[word] & kinds for word in words)
    return told


def main() -> int:
    """Run all, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faults", nargs="*", default=[fault.name for fault in FAULTS])
    parser.add_argument("--programs", nargs="*", default=[p.name for p in programs()])
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    chosen = [p for p in programs() if p.name in options.programs]
    pairs = [(p.name, "") for p in chosen]
    faults = [fault for fault in FAULTS if fault.name in options.faults]
    pairs += [(p.name, fault.name) for fault in faults for p in chosen if fault.fits(p)]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, spawn) as pool:
        told = list(pool.map(judge, *zip(*pairs, strict=True)))
    healthy, mutants = told[: len(chosen)], told[len(chosen) :]
    sys.stdout.write("| | anything said of a mutant | of the right kind | of a healthy one |\n")
    sys.stdout.write("|---|---|---|---|\n")
    for judge_name in told[0]:
        said, right = np.sum([verdict[judge_name] for verdict in mutants], 0)
        alarms = sum(verdict[judge_name][0] for verdict in healthy)
        sys.stdout.write(
            f"| {judge_name} | {said / len(mutants):.2f} | {right / len(mutants):.2f} | "
            f"{alarms} of {len(healthy)} |\n"
        )
    sys.stdout.write(f"{len(mutants)} mutants\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
