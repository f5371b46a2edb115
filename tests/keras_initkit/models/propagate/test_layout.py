"""Channels first: the same predictions as for the same model with channels last."""

import keras
import numpy as np
import pytest

import keras_initkit

layers = keras.layers

pytestmark = pytest.mark.backends("tensorflow", "torch")


def build(data_format):
    is_first = data_format == "channels_first"
    axis = 1 if is_first else -1

    def make(cls, *arguments, **keywords):
        return cls(*arguments, **keywords, data_format=data_format)

    x = inputs = keras.Input((16, 12, 10) if is_first else (12, 10, 16))
    x = make(layers.Conv2D, 24, 3, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization(axis=axis)(x))
    y = make(layers.DepthwiseConv2D, 3, padding="same")(x)
    x = layers.Concatenate(axis=axis)([layers.Add()([x, y]), y])
    x = make(layers.SpatialDropout2D, 0.2)(make(layers.MaxPooling2D, 2)(x))
    x = layers.GroupNormalization(4, axis=axis)(keras.ops.silu(x))
    x = make(layers.ZeroPadding2D)(make(layers.UpSampling2D)(x))
    x = make(layers.Conv2DTranspose, 24, 3, activation="relu")(x)
    x = make(layers.AveragePooling2D, 2)(x)
    x = layers.Multiply()([x, make(layers.GlobalAveragePooling2D, keepdims=True)(x)])
    return keras.Model(inputs, layers.Dense(4)(make(layers.GlobalMaxPooling2D)(x)))


@pytest.mark.parametrize("has_data", [False, True])
@pytest.mark.backends("torch")
def test_channels_first_are_predicted_as_channels_last(has_data, rng):
    last, first = build("channels_last"), build("channels_first")
    first.set_weights(last.get_weights())
    x = rng.normal(size=(12, 1, 1, 16)) + rng.normal(size=(12, 12, 10, 16))
    rows, moved = (
        keras_initkit.propagate(model, data if has_data else None, training=True).rows
        for model, data in ((last, x), (first, np.moveaxis(x, -1, 1)))
    )
    for row, other in zip(rows, moved, strict=True):
        assert row.how == other.how == "rule"
        assert other.shape == (row.shape[-1:] + row.shape[:-1])
        np.testing.assert_allclose(np.array(row[3:7]), np.array(other[3:7]), rtol=1e-6)


def test_layers_of_another_layout_mix_all_positions():
    inputs = keras.Input((16, 12, 10))
    x = layers.Conv2D(24, 3, data_format="channels_first")(inputs)
    model = keras.Model(inputs, layers.Dense(5)(layers.Reshape((24, 80))(x)))
    rows = keras_initkit.propagate(model).rows
    assert [row.shape for row in rows[1:]] == [(24, 10, 8), (24, 80), (24, 5)]
    assert rows[2].second_moment == pytest.approx(rows[1].second_moment)


@pytest.mark.backends("torch")  # TensorFlow has no such kernel for a CPU
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_transposed_convolutions_with_dilation(padding, rng):
    inputs = keras.Input((12, 12, 64))
    layer = layers.Conv2DTranspose(64, 3, padding=padding, dilation_rate=2)
    model = keras.Model(inputs, layer(inputs))
    row = keras_initkit.propagate(model).rows[-1]
    y = keras.ops.convert_to_numpy(model(rng.normal(size=(12, 12, 12, 64)).astype("float32")))
    assert row.how == "rule"
    assert row.second_moment == pytest.approx(float((y**2).mean()), rel=0.03)
