"""A table of data, and layers that are adapted to data."""

import keras
import numpy as np

from keras_initkit.layers import Normalization


def table(features=5):
    return np.random.default_rng(0).normal(3, 2, (700, features)).astype("float32")


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def adapted(data, options=None, **kwargs):
    layer = Normalization(**kwargs)
    layer.adapt(data, **(options or {}))
    return layer
