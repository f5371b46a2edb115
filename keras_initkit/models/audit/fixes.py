"""What to write for a weight that does not start as it should."""

import re

from keras_initkit.anatomy.initializers import argument_names
from keras_initkit.anatomy.initializers_in_words import suited_initializer
from keras_initkit.models.audit.parts import Part


def instead(part: Part) -> str:
    """What to write for a kernel that should suit what follows, in one line."""
    assert part.view is not None
    weight = part.weight
    name = weight.variable.name
    initializer = suited_initializer(part.following)
    sees_all = part.keras_fans[0] == part.view.fans[0]
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
