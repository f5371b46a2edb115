"""How each class of Keras's layers that makes weights is built in tests."""

from typing import Any

import keras

layers = keras.layers

ATTENDED = [(None, 3, 8), (None, 3, 8)]


def _named(text: str, *arguments: Any) -> list[Any]:
    return [getattr(layers, name)(*arguments) for name in text.split()]


# Layers, by the shapes that they are built with.
_LAYERS: list[tuple[list[Any], list[Any]]] = [
    ([(None, 3)], _named("Dense GRUCell LSTMCell SimpleRNNCell", 4)),
    ([(None, 3)], [layers.EinsumDense("ab,bc->ac", (4,), bias_axes="c"), layers.Embedding(10, 4)]),
    ([(None, 3)], [layers.ReversibleEmbedding(10, 4, tie_weights=False)]),
    ([(None, 2, 3)], _named("GRU LSTM SimpleRNN", 4)),
    ([(None, 4)], _named("BatchNormalization LayerNormalization PReLU RMSNormalization")),
    ([(None, 4)], [layers.GroupNormalization(2)]),
    ([(None, 9, 2)], _named("Conv1D Conv1DTranspose SeparableConv1D", 4, 3)),
    ([(None, 9, 2)], [layers.DepthwiseConv1D(3)]),
    ([(None, 9, 9, 2)], _named("Conv2D Conv2DTranspose SeparableConv2D", 4, 3)),
    ([(None, 9, 9, 2)], [layers.DepthwiseConv2D(3)]),
    ([(None, 9, 9, 9, 2)], _named("Conv3D Conv3DTranspose", 4, 3)),
    ([(None, 2, 9, 2)], [layers.ConvLSTM1D(4, 3)]),
    ([(None, 2, 9, 9, 2)], [layers.ConvLSTM2D(4, 3)]),
    ([(None, 2, 9, 9, 9, 2)], [layers.ConvLSTM3D(4, 3)]),
    (ATTENDED, [layers.GroupQueryAttention(4, 4, 2), layers.MultiHeadAttention(2, 4)]),
    ([ATTENDED], [layers.AdditiveAttention(), layers.Attention(use_scale=True)]),
]
_BUILT = {type(layer): (layer, shapes) for shapes, group in _LAYERS for layer in group}
KINDS = list(_BUILT)


def built(kind: type) -> Any:
    """Return a layer of a class, new and built."""
    layer, shapes = _BUILT[kind]
    layer = type(layer).from_config(layer.get_config())
    layer.build(*shapes)
    return layer
