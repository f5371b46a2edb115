"""Which gradients are measured together."""

from types import SimpleNamespace

from keras_initkit.callbacks.capture.backend import Arrays
from keras_initkit.callbacks.capture.measure import make_plan


def test_gradients_of_unknown_shape_are_measured_alone():
    """Such are kernels' in front of attention, in a graph of TensorFlow."""
    shapes = [(None, 4), (3, 4), (None, 4), (3, 4)]
    gradients = [SimpleNamespace(shape=shape, dtype="float32") for shape in shapes]
    plan = make_plan(gradients, {i: i for i in range(4)}, Arrays())
    assert sorted(plan.stacks) == [[0], [1, 3], [2]]
