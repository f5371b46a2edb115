"""A `keras.layers.Normalization` that adapts in one exact pass."""

from __future__ import annotations

import math
import sys
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_initkit.moments import Moments
from keras_initkit.normalization.sources import Source, feature_tables, open_source

_FEATURES_NAMED = 5


@keras.saving.register_keras_serializable(package="keras_initkit")
class Normalization(keras.layers.Normalization):
    """Shifts and scales each feature to mean 0 and variance 1.

    outputs = (inputs - mean) / max(√variance, ε), where ε is `keras.config.epsilon()`; with
    `invert=True`, outputs = inputs · max(√variance, ε) + mean. The variance is that of the
    population (ddof 0).

    It takes the place of `keras.layers.Normalization`: same arguments, weights and saved
    files. It differs in this:

    - `adapt()` reads the data once and accumulates in float64, whatever their type, size
      and offset, with the same result for an array and for a stream of batches.
    - Data that would spoil the statistics (NaN, infinite values, a variance that overflows)
      are an error. After an error the layer is as it was before.
    - A constant feature comes out as exactly 0.
    - A model compiled by `fit()` or `predict()` sees the statistics of a later `adapt()`.
      (Inside `tf.data.Dataset.map` they are those of the moment when it was called.)
    - Under a mixed precision policy the statistics stay float32; only the result is cast.

    Args:
        axis: Integer, tuple of integers or `None`. The axis or axes along which each index
            has its own mean and variance; the others are reduced. `None` for one mean and
            variance of all values. The batch axis, 0, can't be adapted on. Defaults to
            `-1`.
        mean: Optional mean to use instead of `adapt()`: a number, or an array that
            broadcasts to the kept axes. Requires `variance`.
        variance: Optional variance to use instead of `adapt()`. Requires `mean`.
        invert: Boolean, whether to undo the normalization: from normalized values back to
            the original ones. Defaults to `False`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Input shape:
        Arbitrary, with the sizes of the kept axes known.

    Output shape:
        Same as the input, in the layer's compute dtype.

    Raises:
        ValueError: If only one of `mean` and `variance` is given.

    Example:
    >>> layer = Normalization()
    >>> layer.adapt(np.array([[0, 10], [2, 30]], dtype="uint8"))
    >>> keras.ops.convert_to_numpy(layer(np.array([[2.0, 10.0]]))).tolist()
    [[1.0, -1.0]]

    Reference:

    - [LeCun, Bottou, Orr & Müller (1998), Efficient
      BackProp](https://doi.org/10.1007/3-540-49430-8_2), section 4.3
    - [Chan, Golub & LeVeque (1983)](https://doi.org/10.1080/00031305.1983.10483115) for the
      statistics
    """

    def adapt(self, data: Any) -> None:
        """Computes mean and variance in one pass, in place of any former ones.

        Args:
            data: A NumPy array of shape `(rows, ...)` (a memory mapped one is read by
                pieces), a tensor, a `tf.data.Dataset`, a `keras.utils.PyDataset`, or an
                iterable of batches such as a generator or a list of arrays. Of batches
                `(x, y[, sample_weight])` x is taken. Values may be of any integer,
                boolean or real floating point type.

        Raises:
            TypeError: If the data are of a type that can't be read.
            ValueError: If the data are empty, endless, not finite or not of the shape that
                the layer was built for, or if the layer was given `mean` and `variance`.
        """
        if self.input_mean is not None:
            raise ValueError(
                "`adapt()` must be called on a layer without given statistics. Received: "
                f"mean={self.input_mean} and variance={self.input_variance} at "
                "construction. Drop these two arguments, or the call."
            )
        source = open_source(data)
        keep_axis = self._kept_axes(source.shape)
        self._check_features(source.shape, keep_axis)
        moments = _moments_of(source, keep_axis)
        _check_finite(moments)
        # Only now: a failed adapt must leave an unbuilt layer unbuilt.
        self._check_range(moments)
        if not self.built:
            self.build(source.shape)
        self.adapt_mean.assign(moments.mean)
        self.adapt_variance.assign(moments.variance)
        self.finalize_state()

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Adds a weight that mixed precision leaves alone: a variance overflows float16."""
        kwargs.setdefault("autocast", False)
        return super().add_weight(*args, **kwargs)

    def finalize_state(self) -> None:
        """Refreshes the constants that `tf.data.Dataset.map` uses."""
        if self.input_mean is not None or not self.built:
            return
        self.mean, self.variance = self._live_statistics()

    def call(self, inputs: Any) -> Any:
        """Normalizes the inputs.

        Args:
            inputs: Tensor of the shape that the layer was built for.

        Returns:
            Tensor of the same shape.
        """
        if self.mean is None:
            raise ValueError(
                "The layer must be built before it is called inside a data pipeline. "
                "Received: a layer that is not. Call `layer.build(input_shape)` first."
            )
        ops = self.backend.numpy
        mean, variance = self._statistics()
        inputs = self.backend.core.convert_to_tensor(inputs)
        inputs = self.backend.core.cast(inputs, self.variable_dtype)
        scale = ops.maximum(ops.sqrt(variance), keras.config.epsilon())
        if self.invert:
            outputs = ops.add(ops.multiply(inputs, scale), mean)
        else:
            outputs = ops.divide(ops.subtract(inputs, mean), scale)
        return self.backend.core.cast(outputs, self.compute_dtype)

    def _statistics(self) -> tuple[Any, Any]:
        """Mean and variance in the shape of the inputs and in the variables' dtype."""
        native = self.backend.name == keras.backend.backend()
        if self.input_mean is None and native and not _in_tf_data():
            return self._live_statistics()
        constants = (self.convert_weight(self.mean), self.convert_weight(self.variance))
        mean, variance = (self.backend.core.cast(x, self.variable_dtype) for x in constants)
        return mean, variance

    def _live_statistics(self) -> tuple[Any, Any]:
        """The weights as they are now, so that compiled functions read them at each run."""
        shape = self.get_build_config()["input_shape"]
        keep = self._kept_axes(shape)
        broadcast = [shape[axis] if axis in keep else 1 for axis in range(len(shape))]
        return (
            keras.ops.reshape(self.adapt_mean, broadcast),
            keras.ops.reshape(self.adapt_variance, broadcast),
        )

    def _kept_axes(self, shape: tuple[int | None, ...]) -> tuple[int, ...]:
        """The kept axes counted from 0, ascending as Keras has them."""
        rank = len(shape)
        if any(not -rank <= axis < rank for axis in self.axis):
            raise ValueError(
                f"`axis` must lie in [{-rank}, {rank}) for data of shape {tuple(shape)}. "
                f"Received: axis={self.axis}. Use the axis or axes of the features."
            )
        return tuple(sorted(axis % rank for axis in self.axis))

    def _check_features(self, shape: tuple[int | None, ...], keep: tuple[int, ...]) -> None:
        if 0 in keep:
            raise ValueError(
                "`axis` must not be the batch axis. Received: "
                f"axis={self.axis} for data of shape {shape}: each row would have its own "
                "mean. Use `axis=None` for one mean and variance of all values, or give the "
                "data a feature axis: `np.reshape(data, (-1, 1))`."
            )
        if any(shape[axis] is None for axis in keep):
            raise ValueError(
                f"`data` must have a known size along axis={self.axis}. Received: shape="
                f"{shape}. Set it, e.g. with `dataset.map(lambda x: tf.ensure_shape(x, …))`."
            )
        if any(shape[axis] == 0 for axis in keep):
            raise ValueError(
                f"`data` must have at least one feature along axis={self.axis}. Received: shape="
                f"{shape}. Check what dropped the columns."
            )
        if not self.built:
            return
        built = tuple(self.get_build_config()["input_shape"])
        if len(built) != len(shape) or any(built[axis] != shape[axis] for axis in keep):
            raise ValueError(
                f"`data` must have the shape {(None, *built[1:])} of the built layer. "
                f"Received: shape={shape}. Reshape the data, or adapt a new layer."
            )

    def _check_range(self, moments: Moments) -> None:
        dtype = self.variable_dtype
        largest = float(np.max(moments.variance, initial=0.0))
        largest = max(largest, float(np.max(np.abs(moments.mean), initial=0.0)))
        if not largest <= _largest_number(dtype):
            raise ValueError(
                f"`data` must have a mean and a variance that {dtype} can hold. Received: "
                f"values between {np.min(moments.min):.6g} and {np.max(moments.max):.6g}. "
                "Divide the data by a constant, or use a layer of a wider type, such as "
                "`Normalization(dtype='float64')`."
            )


def _moments_of(source: Source, keep_axis: tuple[int, ...]) -> Moments:
    """Moments of all batches, of shape the sizes of the kept axes."""
    sizes = tuple(source.shape[axis] for axis in keep_axis)
    moments = Moments((math.prod(size or 0 for size in sizes),))
    for batch in source.batches:
        if batch.ndim != len(source.shape) or sizes != tuple(
            batch.shape[axis] for axis in keep_axis
        ):
            raise ValueError(
                f"`data` must yield batches of the shape {source.shape}. Received: a batch of "
                f"shape {batch.shape}. Give all batches the same features."
            )
        for table in feature_tables(batch, keep_axis):
            moments.update(table)
    if not moments.count:
        raise ValueError(
            f"`data` must hold at least one value. Received: no rows, of shape {source.shape}. "
            "Check what filtered them out."
        )
    state = moments.get_state()
    return Moments.from_state(
        {key: x if key == "count" else x.reshape(sizes) for key, x in state.items()}
    )


def _check_finite(moments: Moments) -> None:
    nans, infs = int(moments.nan_count.sum()), int(moments.inf_count.sum())
    if not nans + infs:
        return
    bad = np.argwhere(moments.nan_count + moments.inf_count)
    where = ""
    if moments.shape:
        where = f", in {len(bad)} of {moments.nan_count.size} features: {_indices(bad)}"
    raise ValueError(
        f"`data` must be finite. Received: {nans} NaN and {infs} infinite values{where}. Drop "
        "these rows, or replace the values first, e.g. with `np.nan_to_num(data)`."
    )


def _indices(bad: NDArray[np.intp]) -> str:
    names = [
        str(index[0] if len(index) == 1 else tuple(index))
        for index in bad[:_FEATURES_NAMED].tolist()
    ]
    return ", ".join(names) + (", …" if len(bad) > len(names) else "")


def _largest_number(dtype: str) -> float:
    if dtype == "bfloat16":
        return float(np.finfo(np.float32).max)
    return float(np.finfo(dtype).max)


def _in_tf_data() -> bool:
    """Whether TensorFlow is tracing a function for a `tf.data` pipeline.

    Such a function runs on the CPU and must not capture a variable that may lie elsewhere.
    """
    tf = sys.modules.get("tensorflow")
    if tf is None or tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        # Functions of a pipeline are named after the transformation: "Dataset_map_<name>".
        if getattr(graph, "name", "").startswith("Dataset_"):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False
