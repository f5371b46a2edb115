"""How each class of Keras's layers that makes weights is built in tests."""

from typing import Any

import keras

layers = keras.layers

ATTENDED = [(None, 3, 8), (None, 3, 8)]
_SHAPES: dict[type, tuple[Any, Any]] = {
    layers.AdditiveAttention: (layers.AdditiveAttention(), [ATTENDED]),
    layers.Attention: (layers.Attention(use_scale=True), [ATTENDED]),
    layers.BatchNormalization: (layers.BatchNormalization(), [(None, 4)]),
    layers.Conv1D: (layers.Conv1D(4, 3), [(None, 9, 2)]),
    layers.Conv1DTranspose: (layers.Conv1DTranspose(4, 3), [(None, 9, 2)]),
    layers.Conv2D: (layers.Conv2D(4, 3), [(None, 9, 9, 2)]),
    layers.Conv2DTranspose: (layers.Conv2DTranspose(4, 3), [(None, 9, 9, 2)]),
    layers.Conv3D: (layers.Conv3D(4, 3), [(None, 9, 9, 9, 2)]),
    layers.Conv3DTranspose: (layers.Conv3DTranspose(4, 3), [(None, 9, 9, 9, 2)]),
    layers.ConvLSTM1D: (layers.ConvLSTM1D(4, 3), [(None, 2, 9, 2)]),
    layers.ConvLSTM2D: (layers.ConvLSTM2D(4, 3), [(None, 2, 9, 9, 2)]),
    layers.ConvLSTM3D: (layers.ConvLSTM3D(4, 3), [(None, 2, 9, 9, 9, 2)]),
    layers.Dense: (layers.Dense(4), [(None, 3)]),
    layers.DepthwiseConv1D: (layers.DepthwiseConv1D(3), [(None, 9, 2)]),
    layers.DepthwiseConv2D: (layers.DepthwiseConv2D(3), [(None, 9, 9, 2)]),
    layers.EinsumDense: (layers.EinsumDense("ab,bc->ac", (4,), bias_axes="c"), [(None, 3)]),
    layers.Embedding: (layers.Embedding(10, 4), [(None, 3)]),
    layers.GRU: (layers.GRU(4), [(None, 2, 3)]),
    layers.GRUCell: (layers.GRUCell(4), [(None, 3)]),
    layers.GroupNormalization: (layers.GroupNormalization(2), [(None, 4)]),
    layers.GroupQueryAttention: (layers.GroupQueryAttention(4, 4, 2), ATTENDED),
    layers.LSTM: (layers.LSTM(4), [(None, 2, 3)]),
    layers.LSTMCell: (layers.LSTMCell(4), [(None, 3)]),
    layers.LayerNormalization: (layers.LayerNormalization(), [(None, 4)]),
    layers.MultiHeadAttention: (layers.MultiHeadAttention(2, 4), ATTENDED),
    layers.PReLU: (layers.PReLU(), [(None, 4)]),
    layers.RMSNormalization: (layers.RMSNormalization(), [(None, 4)]),
    layers.ReversibleEmbedding: (layers.ReversibleEmbedding(10, 4, tie_weights=False), [(None, 3)]),
    layers.SeparableConv1D: (layers.SeparableConv1D(4, 3), [(None, 9, 2)]),
    layers.SeparableConv2D: (layers.SeparableConv2D(4, 3), [(None, 9, 9, 2)]),
    layers.SimpleRNN: (layers.SimpleRNN(4), [(None, 2, 3)]),
    layers.SimpleRNNCell: (layers.SimpleRNNCell(4), [(None, 3)]),
}
KINDS = list(_SHAPES)


def built(kind: type) -> Any:
    """Return a layer of a class, new and built."""
    layer, shapes = _SHAPES[kind]
    layer = type(layer).from_config(layer.get_config())
    layer.build(*shapes)
    return layer
