"""Fans of the weights of layers, against the layers themselves: impulses through all-ones kernels.

The response of unit j to a unit impulse at input i counts the weights that lead from i to j.
"""

import inspect
import math
import re
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import keras_initkit
from keras_initkit import fans
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity.layer_fans import has_rule, view_of_weight
from tests.keras_initkit import keras_layers

pytestmark = pytest.mark.backends("tensorflow", "torch")

layers = keras.layers
BACKEND = keras.backend.backend()
# The formulas are the same everywhere; elsewhere each layer is compiled anew.
EXAMPLES = 25 if BACKEND == "tensorflow" else 10


def set_weights(layer, **values):
    """Set every weight by its name: what is not named to zeros."""
    for weight in layer.weights:
        weight.assign(np.full(weight.shape, values.get(weight.name, 0), weight.dtype))


def responses(layer, shape):
    """(inputs..., outputs...): number of weights on the ways from each input to each output."""
    size = math.prod(shape)
    impulses = np.eye(size, dtype=np.float32).reshape(size, *shape)
    outputs = keras.ops.convert_to_numpy(layer(impulses))
    return outputs.reshape(*shape, *outputs.shape[1:])


def mean_fans(counts, rank):
    """Means over all inputs, of which there are `rank` axes, and all outputs."""
    total = counts.sum(dtype=np.float64)
    return total / math.prod(counts.shape[rank:]), total / math.prod(counts.shape[:rank])


def interior(counts, periods):
    """Mean of counts, (map..., channels), over one period in the middle of the map."""
    places = tuple(
        slice((size - period) // 2, (size - period) // 2 + period)
        for size, period in zip(counts.shape[:-1], periods, strict=True)
    )
    return counts[places].mean(dtype=np.float64)


@st.composite
def windows(draw, rank, *, dilated=True):
    """Arguments of a convolution. Strides and dilations exclude each other, as in Keras."""

    def axes(most):
        return st.lists(st.integers(1, most), min_size=rank, max_size=rank)

    # A map of two axes is kept small, and must have an interior all the same.
    most_taps, most_dilation = (4, 3) if rank == 1 else (3, 2)
    ones = [1] * rank
    strides = draw(axes(3))
    dilation = draw(axes(most_dilation)) if dilated and strides == ones else ones
    return {
        "kernel_size": draw(axes(most_taps)),
        "strides": strides,
        "dilation_rate": dilation,
        "padding": draw(st.sampled_from(["valid", "same"])),
    }


def fed_and_feeds(counts, rank):
    """How many weights lead to each output, and from each input, of maps with channels."""
    return counts.sum(axis=tuple(range(rank + 1))), counts.sum(axis=tuple(range(-rank - 1, 0)))


def built(layer, shape):
    layer.build((None, *shape))
    return layer


def assert_fans_of_a_convolution(layer, size, strides):
    set_weights(layer, kernel=1)
    counts = responses(layer, (*size, 2))
    fed, feeds = fed_and_feeds(counts, len(size))
    assert fans(layer) == pytest.approx((fed.max(), interior(feeds, strides)))
    assert fans(layer, input_size=size) == pytest.approx(mean_fans(counts, len(size) + 1))


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), rank=st.sampled_from([1, 2]), groups=st.sampled_from([1, 2]))
def test_convolutions(data, rank, groups):
    window = data.draw(windows(rank))
    kind = (layers.Conv1D, layers.Conv2D)[rank - 1]
    size = (30,) if rank == 1 else (15, 13)
    layer = built(kind(4, groups=groups, **window), (*size, 2))
    assert_fans_of_a_convolution(layer, size, window["strides"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), rank=st.sampled_from([1, 2]), multiplier=st.integers(1, 3))
def test_depthwise_convolutions(data, rank, multiplier):
    window = data.draw(windows(rank))
    kind = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)[rank - 1]
    size = (30,) if rank == 1 else (15, 13)
    # TensorFlow has depthwise convolutions of equal strides only.
    window["strides"] = window["strides"][:1] * rank
    assume(BACKEND != "tensorflow" or len(set(window["dilation_rate"])) == 1)
    layer = built(kind(depth_multiplier=multiplier, **window), (*size, 2))
    assert_fans_of_a_convolution(layer, size, window["strides"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), rank=st.sampled_from([1, 2]))
def test_transposed_convolutions(data, rank):
    window = data.draw(windows(rank, dilated=False))
    kind = (layers.Conv1DTranspose, layers.Conv2DTranspose)[rank - 1]
    size = (16,) if rank == 1 else (8, 7)
    layer = built(kind(3, **window), (*size, 2))
    set_weights(layer, kernel=1)
    counts = responses(layer, (*size, 2))
    fed, feeds = fed_and_feeds(counts, rank)
    assert fans(layer) == pytest.approx((interior(fed, window["strides"]), feeds.max()))
    assert fans(layer, input_size=size) == pytest.approx(mean_fans(counts, rank + 1))


def test_causal_convolution():
    layer = built(layers.Conv1D(2, 3, padding="causal", dilation_rate=2), (9, 3))
    set_weights(layer, kernel=1)
    assert fans(layer, input_size=[9]) == pytest.approx(mean_fans(responses(layer, (9, 3)), 2))


def test_separable_convolution():
    layer = built(layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2), (15, 15, 3))
    assert fans(layer, "depthwise_kernel") == (9, 4.5)
    assert fans(layer, "pointwise_kernel") == (6, 5)
    set_weights(layer, depthwise_kernel=1, pointwise_kernel=1)
    counts = responses(layer, (15, 15, 3))
    assert fed_and_feeds(counts, 2)[0].max() == 9 * 6


def test_channels_first_do_not_matter():
    layer = built(layers.Conv2DTranspose(3, 4, strides=2, data_format="channels_first"), (2, 9, 9))
    assert fans(layer) == (8, 48)
    other = built(layers.Conv2DTranspose(3, 4, strides=2), (9, 9, 2))
    assert fans(layer, input_size=(9, 9)) == fans(other, input_size=(9, 9))


@pytest.mark.parametrize(
    ("equation", "output_shape", "shape"),
    [
        ("ab,bc->ac", (3,), (4,)),
        ("abc,cde->abde", (None, 3, 5), (2, 4)),
        ("abcd,cde->abe", (None, 5), (2, 3, 4)),
        ("bhi,hio->bho", (3, 5), (3, 4)),
        ("abc,c->abc", (None, 4), (2, 4)),
        ("abc,b->abc", (2, 4), (2, 4)),
        ("...x,xy->...y", (3,), (2, 4)),
        ("abc,cd->ad", (3,), (2, 4)),
        ("ab,cb->ac", (3,), (4,)),
    ],
)
def test_einsum(equation, output_shape, shape):
    layer = built(layers.EinsumDense(equation, output_shape), shape)
    set_weights(layer, kernel=1)
    assert fans(layer) == pytest.approx(mean_fans(responses(layer, shape), len(shape)))
    if layer.kernel.shape[-1:] == layer.kernel.shape:
        return
    layer.enable_lora(2)
    set_weights(layer, lora_kernel_a=1, lora_kernel_b=1)
    (a_in, a_out), (b_in, b_out) = fans(layer, "lora_kernel_a"), fans(layer, "lora_kernel_b")
    # They are scaled by alpha / rank = 1.
    assert (a_in * b_in, a_out * b_out) == pytest.approx(
        mean_fans(responses(layer, shape), len(shape))
    )
    assert 2 in (a_in, b_in)


def test_recurrent_layers_count_a_gate():
    for kind in (layers.SimpleRNN, layers.GRU, layers.LSTM):
        layer = built(kind(4), (1, 3))
        assert (fans(layer), fans(layer, "recurrent_kernel")) == ((3, 4), (4, 4))


def test_recurrent_convolutions():
    layer = built(layers.ConvLSTM2D(8, 3, strides=2), (2, 9, 9, 4))
    assert fans(layer) == (36, 18)
    assert fans(layer, "recurrent_kernel") == (72, 72)
    assert fans(layer, "recurrent_kernel", (9, 9)) == pytest.approx((50, 50))  # of 4x4: 10²/4² taps


def test_layers_inside_layers():
    both = built(layers.Bidirectional(layers.LSTM(3)), (2, 4))
    assert fans(both) == fans(both, "backward_lstm/lstm_cell/kernel") == (4, 3)
    assert fans(both, both.forward_layer.cell.recurrent_kernel) == (3, 3)
    deep = built(layers.RNN([layers.GRUCell(3), layers.GRUCell(3)]), (2, 3))
    assert fans(deep) == (3, 3)
    every = built(layers.TimeDistributed(layers.Conv2D(4, 3, strides=3)), (2, 9, 9, 2))
    assert fans(every) == (18, 4)
    normalized = built(layers.SpectralNormalization(layers.Dense(4)), (3,))
    assert fans(normalized) == (3, 4)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="first"), layers.Dense(2)])
    assert fans(model, "first/kernel") == (6, 4)


def test_attention():
    attention = layers.MultiHeadAttention(2, 4)
    attention.build((None, 3, 16), (None, 3, 16))
    assert fans(attention, "query/kernel") == fans(attention, "value/kernel") == (16, 8)
    assert fans(attention, "attention_output/kernel") == (8, 16)
    attention = layers.GroupQueryAttention(4, 4, 2)
    attention.build((None, 3, 16), (None, 3, 16))
    assert fans(attention, "query/kernel") == (16, 16)
    assert fans(attention, "key/kernel") == (16, 8)
    additive = layers.AdditiveAttention()
    additive.build([(None, 3, 8), (None, 3, 8)])
    assert fans(additive, "scale") == (8, 1)


def test_one_hot_inputs():
    layer = built(layers.Embedding(100, 8), (3,))
    assert fans(layer, "embeddings") == (1, 8)
    layer.enable_lora(2)
    assert fans(layer, "lora_embeddings_a") == (1, 2)
    assert fans(layer, "lora_embeddings_b") == (2, 8)
    layer = built(layers.ReversibleEmbedding(100, 8, tie_weights=False), (3,))
    assert (fans(layer, "embeddings"), fans(layer, "reverse_embeddings")) == ((1, 8), (8, 100))


def test_added_rank():
    layer = built(layers.Dense(5), (7,))
    layer.enable_lora(2)
    assert (fans(layer, "lora_kernel_a"), fans(layer, "lora_kernel_b")) == ((7, 2), (2, 5))
    layer = built(layers.Conv2D(6, 3, strides=3), (9, 9, 4))
    layer.enable_lora(2)
    assert (fans(layer, "lora_kernel_a"), fans(layer, "lora_kernel_b")) == ((36, 2), (2, 6))


@pytest.mark.newest
def test_quantized_kernels():
    dense = built(layers.Dense(5), (7,))
    einsum = built(layers.EinsumDense("abc,cde->abde", (None, 3, 5)), (2, 4))
    for layer, expected in ((dense, (7, 5)), (einsum, (4, 15))):
        layer.quantize("int4")  # which packs them
        assert fans(layer) == expected
    embedding = built(layers.Embedding(100, 8), (3,))
    embedding.quantize("int4")
    assert fans(embedding, "embeddings") == (1, 8)


# Classes that make weights which are not trained, or hold those of others.
WITHOUT_KERNELS = {layers.FlaxLayer, layers.JaxLayer, layers.TFSMLayer, layers.TorchModuleWrapper}
WITHOUT_KERNELS |= {layers.Normalization, layers.SpectralNormalization}
WITHOUT_KERNELS |= {layers.RNN, layers.STFTSpectrogram}


def makes_weights(kind):
    """Whether a class, one that it derives from or one that it is made of adds weights."""
    above = kind.__mro__[: kind.__mro__.index(keras.layers.Layer)]
    return any("add_weight(" in inspect.getsource(cls) for cls in above)


def test_every_layer_of_keras_that_owns_a_kernel_has_a_rule():
    known = {layers.Layer, *keras_layers.KINDS} | WITHOUT_KERNELS
    kinds = {kind for _, kind in inspect.getmembers(layers, inspect.isclass)} - known
    owners = [kind for kind in kinds if issubclass(kind, layers.Layer) and makes_weights(kind)]
    assert not owners, "without a rule for their fans"
    for kind in keras_layers.KINDS:
        layer = keras_layers.built(kind)
        found = 0
        for weight in layer.trainable_weights:
            if weight.name in ("bias", "beta"):
                with pytest.raises(ValueError, match="must multiply the inputs"):
                    fans(layer, weight)
            else:
                found += 1
                assert min(fans(layer, weight)) > 0
        assert found, layer


def views(layer):
    """The weights of a layer that have a view, with it."""
    known = [weight for weight in weights_of(layer, has_rule) if has_rule(weight.owner)]
    pairs = [(each.variable, view_of_weight(each.owner, each.variable)) for each in known]
    return [(variable, view) for variable, view in pairs if view is not None]


@pytest.mark.backends("tensorflow")
@pytest.mark.parametrize("kind", keras_layers.KINDS, ids=lambda kind: kind.__name__)
def test_a_view_takes_a_weight_apart_and_puts_it_together(kind, rng):
    for variable, view in views(keras_layers.built(kind)):
        weight = rng.normal(size=variable.shape).astype("float32")
        maps = view.to_maps(weight)
        assert tuple(maps.shape) == view.maps_shape
        back = keras.ops.convert_to_numpy(view.to_weight(maps))
        np.testing.assert_array_equal(back, weight)
        _, inputs, _ = view.matrix_shape
        # What a unit has weights of is what feeds it; an embedding's inputs are one-hot.
        if "embedding" not in kind.__name__.lower():
            assert view.fans.fan_in == inputs
        if view.is_elementwise:  # a scale
            assert view.fans == (1, 1)


def test_phases_of_a_transposed_convolution_do_not_touch():
    layer = built(layers.Conv1DTranspose(1, 4, strides=2, padding="same", use_bias=False), (8, 1))
    ((_, view),) = views(layer)
    maps = np.zeros(view.maps_shape, "float32")
    maps[0] = 1
    layer.kernel.assign(view.to_weight(maps))
    outputs = keras.ops.convert_to_numpy(layer(np.ones((1, 8, 1), "float32")))
    reached = outputs[0, 2:-2, 0] != 0
    assert reached[::2].all() != reached[1::2].all()
    assert reached[::2].any() != reached[1::2].any()


def test_a_rule_of_ones_own():
    class LowRank(keras.layers.Layer):
        def build(self, shape):
            self.a = self.add_weight(shape=(shape[-1], 2), name="a")
            self.b = self.add_weight(shape=(2, 5), name="b")
            self.bias = self.add_weight(shape=(5,), name="bias")

    layer = built(LowRank(), (7,))
    with pytest.raises(ValueError, match=r"weight low_rank/a of .* `@keras_initkit\.register_fans"):
        fans(layer, "a")

    @keras_initkit.register_fans(LowRank)
    def rule(layer, weight, input_size):
        return None if weight.name == "bias" else tuple(weight.shape)

    class Special(LowRank):
        pass

    assert fans(built(Special(), (7,)), "a") == (7, 2)
    with pytest.raises(ValueError, match=r"`weight` must multiply the inputs of the layer"):
        fans(layer, "bias")


def test_a_rule_must_be_for_classes_and_return_fans():
    with pytest.raises(ValueError, match="`classes` must be classes of layers, as in `@register_"):
        keras_initkit.register_fans(layers.Dense(3))
    with pytest.raises(ValueError, match="Received: none"):
        keras_initkit.register_fans()

    class Odd(layers.Dense):  # type: ignore[name-defined]
        pass

    def rule(layer, weight, input_size) -> Any:
        return 1, 2, 3

    keras_initkit.register_fans(Odd)(rule)
    with pytest.raises(ValueError, match=r"two numbers, or None\. Received: \(1, 2, 3\)"):
        fans(built(Odd(3), (2,)))


def test_errors():
    with pytest.raises(ValueError, match=r"`layer` must be a keras.layers.Layer. Received: layer="):
        fans((3, 3, 8, 16))
    with pytest.raises(ValueError, match=r"Received: the Dense layer 'd', which is not\. Call it"):
        fans(layers.Dense(3, name="d"))
    layer = built(layers.Dense(3, name="d"), (2,))
    text = (
        "`weight` must be a weight of the layer, or the end of the path of one. Received: "
        "weight='kernal'. The weights of the Dense layer 'd' are d/kernel, d/bias."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        fans(layer, "kernal")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(2)])
    with pytest.raises(ValueError, match="`weight` must name weights with the same fans"):
        fans(model)
    conv = built(layers.Conv2D(3, 3), (9, 9, 2))
    with pytest.raises(ValueError, match="`input_size` must have 2 numbers, one for each axis"):
        fans(conv, input_size=[9])
    with pytest.raises(ValueError, match="`size` must be at least 3, the extent of the window"):
        fans(conv, input_size=[9, 2])
