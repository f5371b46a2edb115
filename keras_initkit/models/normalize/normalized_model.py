"""A model whose losses are computed on the scale of normalized targets."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_initkit.layers.normalization import Normalization
from keras_initkit.models.normalize.ports import Ports


@keras.saving.register_keras_serializable(package="keras_initkit")
class NormalizedModel(keras.Model):
    """A functional model with losses on the scale of normalized targets.

    Outputs of a `Normalization(invert=True)` are compared with their targets on the scale before
    it; others as they are. `with_normalization` makes it.
    """

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Compute the losses of normalized targets and predictions, given in raw units."""
        layers = [self.get_layer(name) for name in self.output_names]
        predictions = keras.tree.flatten(y_pred)
        normalized = [_normalize(*pair) for pair in zip(layers, predictions, strict=True)]
        return super().compute_loss(
            x=x,
            y=self._normalize_targets(y, layers),
            y_pred=keras.tree.pack_sequence_as(y_pred, normalized),
            sample_weight=sample_weight,
            training=training,
        )

    def _normalize_targets(self, y: Any, layers: list[Any]) -> Any:
        """Normalize targets in all the forms known to Keras, which checks them later."""
        if isinstance(y, Mapping):
            ports = Ports(self.output, "y").by_name
            named = {name: port.operation for name, port in ports.items()}
            return {key: _normalize(named.get(key), value) for key, value in y.items()}
        if not isinstance(y, (tuple, list)):
            return _normalize(layers[0], y) if len(layers) == 1 else y
        if len(y) != len(layers):  # those of outputs without a loss may be left out
            losses = zip(layers, keras.tree.flatten(self.loss), strict=False)
            layers = [layer for layer, loss in losses if loss is not None]
        if len(y) != len(layers):
            return y
        return type(y)([_normalize(layer, v) for layer, v in zip(layers, y, strict=True)])


def _normalize(layer: Any, value: Any) -> Any:
    """Return values on the scale before a layer, if that undoes a normalization."""
    if value is None or not (isinstance(layer, Normalization) and layer.invert):
        return value
    value = keras.ops.convert_to_tensor(value)
    # As losses do, which take targets (rows,) for outputs (rows, 1).
    missing = len(layer.mean.shape) - len(value.shape)
    if abs(missing) == 1:
        fit = keras.ops.expand_dims if missing == 1 else keras.ops.squeeze
        value = fit(value, -1)
    return layer.transform(value, False)
