"""Of every kind there is a case in which it is told, and two look-alikes in which it is not."""

from collections import Counter
from typing import Any

import pytest

from tensorboard_plugin_initkit.diagnosis.kinds import KINDS
from tests.callbacks.measures import test_spikes
from tests.keras_initkit.models.check import test_dependence as test_asked
from tests.tensorboard_plugin_initkit.diagnosis import made
from tests.tensorboard_plugin_initkit.diagnosis.rules import (
    test_contracts,
    test_data,
    test_dependence,
    test_progress,
    test_structure,
)

pytestmark = pytest.mark.numpy_alone

# Cases with a fault, and others in which the same rules say nothing.
TABLES = [
    (made.FAULTY, made.HEALTHY),
    (test_contracts.BROKEN, test_contracts.RIGHT),
    (test_data.CAUSES, test_data.RIGHT),
    (test_structure.FAULTS, test_structure.HEALTHY),
    (test_progress.FIRES, test_progress.SILENT),
]
# The same of one kind each.
ALONE: dict[str, Any] = {
    "unused_input": (test_dependence.TOLD, test_dependence.LOOK_ALIKES),
    "mixed_samples": (test_asked.MIXING, test_asked.MODELS),
    "spike": (test_spikes.CUTS, test_spikes.LOOK_ALIKES),
}


def count_kinds(table):
    """Count the cases of each kind: it is in a case, or its name begins with kinds and a colon."""
    counts: Counter[str] = Counter()
    for name, case in table.items():
        before, colon, _ = name.partition(": ")
        texts = [x for x in case if isinstance(x, str)] if isinstance(case, tuple) else []
        counts.update({*texts} & KINDS.keys() | ({*before.split(", ")} if colon else set()))
    return counts


def test_every_kind_has_a_case_and_two_look_alikes():
    told = Counter({kind: len(cases) for kind, (cases, _) in ALONE.items()})
    alike = Counter({kind: len(cases) for kind, (_, cases) in ALONE.items()})
    for faults, right in TABLES:
        assert count_kinds(right).keys() <= count_kinds(faults).keys()
        told += count_kinds(faults)
        alike += count_kinds(right)
    assert [kind for kind in KINDS if told[kind] < 1 or alike[kind] < 2] == []
