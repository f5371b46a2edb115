"""What models can hardly learn, and models that can."""

import numpy as np
import pytest

from tensorboard_plugin_initkit.diagnosis.limits import list_limits
from tests.tensorboard_plugin_initkit.diagnosis.made_setups import (
    BATCH,
    RNG,
    X,
    chain,
    dense,
    facts_of,
    layer,
)

pytestmark = pytest.mark.numpy_alone

LONG, SHORT = np.zeros((BATCH, 80, 1)), np.zeros((BATCH, 12, 1))
WORDS = RNG.integers(0, 9, (BATCH, 12))
EMBEDDING = layer("Embedding", (12, 16), weights=1)
POOL, END = layer("GlobalAveragePooling1D", 16), dense(1, "sigmoid")
SAID = {
    "SimpleRNN": (chain(layer("SimpleRNN", 16), END), LONG, "here are 80: use `GRU` or `LSTM`"),
    "LSTM": (chain(layer("LSTM", 16), END), LONG, "use `Conv1D` before it"),
    "short": (chain(layer("SimpleRNN", 16), END), SHORT, ""),
    "average": (chain(EMBEDDING, POOL, END), WORDS, "does not see the order"),
    "convolved": (chain(EMBEDDING, layer("Conv1D", (12, 16), "relu"), POOL, END), WORDS, ""),
    "recurrent": (chain(EMBEDDING, layer("GRU", (12, 16)), POOL, END), WORDS, ""),
    "positions": (chain(EMBEDDING, EMBEDDING, POOL, END), WORDS, ""),
    "padded": (chain(EMBEDDING, layer("LSTM", 9, return_sequences=False), END), WORDS, "mask_zero"),
    "masked": (
        chain(
            EMBEDDING._replace(arguments={"mask_zero": True}),
            layer("LSTM", 9, return_sequences=False),
            END,
        ),
        WORDS,
        "",
    ),
    "hidden": (
        chain(layer("Masking", (12, 1), mask_value=-1.0), layer("LSTM", 9), END),
        SHORT,
        "hides each step of nothing but -1.0",
    ),
    "place": (
        chain(layer("GlobalAveragePooling2D", 8), END),
        np.zeros((BATCH, 9, 9, 8)),
        "use `Flatten`",
    ),
    "shaken": (chain(layer("RandomErasing", (8, 8, 1)), END), X, "Train once without"),
    "narrow": (chain(dense(4, "tanh"), END), X, "more than 4 units"),
    "wide": (chain(dense(4, "tanh"), dense(32, "tanh"), END), X, ""),
    "linear": (chain(END), X, ""),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_model_can_hardly_learn_is_said(name):
    setup, x, words = SAID[name]
    limits = list(list_limits(facts_of(setup, x=x)))
    assert len(limits) == bool(words)
    assert words in "".join(limits)


def test_a_loss_of_a_layer_may_outweigh_that_of_the_data():
    plain = chain(dense(32, "relu"), END)
    weighted = chain(dense(32, "relu", kernel_regularizer="L2(l2=0.01)"), END)
    for setup, penalty, is_said in ((plain, 0.5, 1), (plain, 0.1, 0), (weighted, 0.5, 0)):
        said = list(list_limits(facts_of(setup, x=X, penalty=penalty)))
        assert sum("given to `add_loss`" in text for text in said) == is_said
