"""Sequences of words."""

import keras
import numpy as np
from keras import layers, ops

from tests.pipelines.base import LOGITS, Pipeline, compiled, counting, sentences, sequential

WORDS, LENGTH = 20, 10


class TransformerBlock(layers.Layer):
    def __init__(self, width, causal=False):
        super().__init__()
        self.causal, self.dropout = causal, layers.Dropout(0.1)
        self.attention = layers.MultiHeadAttention(2, width // 2, dropout=0.1)
        self.feed = keras.Sequential([layers.Dense(2 * width, "relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]

    def call(self, x, training=None):
        attended = self.attention(x, x, use_causal_mask=self.causal, training=training)
        x = self.norms[0](x + self.dropout(attended, training=training))
        return self.norms[1](x + self.dropout(self.feed(x), training=training))


def embed_places(x, width):
    """Add an embedding of each place to a sequence."""
    places = ops.zeros_like(x[..., 0], dtype="int32") + ops.arange(x.shape[1])
    return x + layers.Embedding(x.shape[1], width)(places)


def gpt() -> Pipeline:
    """One matrix embeds the words and finds the next one."""
    words, embedding = keras.Input((LENGTH,), dtype="int32"), layers.ReversibleEmbedding(WORDS, 16)
    x = embed_places(embedding(words), 16)
    for _ in range(2):
        x = TransformerBlock(16, causal=True)(x)
    model = keras.Model(words, embedding(x, reverse=True))
    x = counting(LENGTH + 1)
    return Pipeline(compiled(model, LOGITS), (x[:, :-1], x[:, 1:]))


def transformer_classifier() -> Pipeline:
    words = keras.Input((LENGTH,), dtype="int32")
    x = TransformerBlock(16)(embed_places(layers.Embedding(WORDS, 16)(words), 16))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling1D()(x))
    return Pipeline(compiled(keras.Model(words, outputs), LOGITS), sentences())


def bidirectional_lstm() -> Pipeline:
    both = [layers.Bidirectional(layers.LSTM(8, return_sequences=more)) for more in (True, False)]
    inside = [layers.Embedding(WORDS, 8), *both, layers.Dense(2)]
    return Pipeline(compiled(sequential((LENGTH,), *inside), LOGITS), sentences())


def seq2seq() -> Pipeline:
    """An LSTM reads a sentence; another one begins with its state and says it backwards."""
    read, said = keras.Input((4,), dtype="int32"), keras.Input((4,), dtype="int32")
    _, *state = layers.LSTM(24, return_state=True)(layers.Embedding(WORDS, 12)(read))
    decoder, embedded = layers.LSTM(24, return_sequences=True), layers.Embedding(WORDS + 1, 12)
    x = decoder(embedded(said), initial_state=state)
    model = keras.Model([read, said], layers.Dense(WORDS)(x))
    backwards = counting(4)[:, ::-1]
    before = np.pad(backwards[:, :-1], [(0, 0), (1, 0)], constant_values=WORDS)
    return Pipeline(compiled(model, LOGITS), ([counting(4), before], backwards))


def quotient_embedding() -> Pipeline:
    """A word's embedding is the product of those of its quotient and of its remainder."""
    words = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(4, 8)(words // 5) * layers.Embedding(5, 8)(words % 5)
    x = layers.Dense(16, "relu")(layers.Flatten()(x))
    return Pipeline(compiled(keras.Model(words, layers.Dense(2)(x)), LOGITS, 0.02), sentences())
