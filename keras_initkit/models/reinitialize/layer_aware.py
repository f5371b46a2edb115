"""`layer_aware`: initializers with knowledge of their layer from its build on."""

import functools
from typing import Any

import keras

from keras_initkit.anatomy.layers_inside import layers_inside, set_value
from keras_initkit.anatomy.weights import weights_of
from keras_initkit.connectivity.layer_fans import has_rule
from keras_initkit.models.reinitialize.reinitialize import check_seed, derive_seeds, plan


def layer_aware(layer: Any, seed: int | None = None) -> Any:
    """Make a layer's initializers know the layer; Keras tells them only a shape.

    As soon as the layer is built its weights are drawn with its own initializers, as
    `reinitialize` does: with the true fans, and gates, heads, groups and channels one by one. So
    are those of layers inside it, even if they are built later, at their first call. Afterwards
    nothing is left on the layers. A layer made from the config of this one, as by
    `keras.models.clone_model`, is not layer-aware.

    Examples:
    ```python
    layer = layer_aware(keras.layers.DepthwiseConv2D(3, depthwise_initializer=HeNormal()))
    layer = layer_aware(keras.layers.LSTM(64, recurrent_initializer=Orthogonal()), seed=0)
    ```

    Args:
        layer: A `keras.layers.Layer`, built or not, with all layers inside it.
        seed: Integer, or `None` for one drawn at random.

    Returns:
        The same layer.

    Raises:
        ValueError: If an argument is not as described.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            f"`layer` must be a keras.layers.Layer. Received: layer={layer!r}. Give an "
            "initializer to a layer first: `layer_aware(Dense(64, kernel_initializer=...))`."
        )
    _Drawer(layer, check_seed(seed)).draw()
    return layer


class _Drawer:
    """Draws the weights of a layer: the present ones, and others as soon as they are made."""

    def __init__(self, layer: Any, seed: int) -> None:
        self._layer = layer
        self._seed = seed
        self._drawn: set[int] = set()
        # The own `build` of each layer whose `build` is replaced, by `id`.
        self._builds: dict[int, Any] = {}

    def draw(self) -> None:
        """Draw weights not drawn yet, and await those of unbuilt layers."""
        weights = weights_of(self._layer, has_rule)
        new = [weight for weight in weights if id(weight.variable) not in self._drawn]
        self._drawn.update(id(weight.variable) for weight in new)
        for drawing in plan(new, [], derive_seeds(weights, self._seed)):
            set_value(drawing.weight.variable, drawing.draw)
        self._await_builds()

    def _await_builds(self) -> None:
        for layer in layers_inside(self._layer):
            if not layer.built and id(layer) not in self._builds:
                self._builds[id(layer)] = layer.build
                layer.build = self._draw_after(layer)

    def _draw_after(self, layer: Any) -> Any:
        @functools.wraps(layer.build)
        def build_and_draw(*args: Any, **kwargs: Any) -> None:
            # Layers inside that this one builds are drawn with it, when it is complete.
            for inner in layers_inside(layer):
                if id(inner) in self._builds:
                    inner.build = self._builds.pop(id(inner))
            try:
                layer.build(*args, **kwargs)
            except BaseException:
                self._await_builds()
                raise
            self.draw()

        return build_and_draw
