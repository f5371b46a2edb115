"""A `keras.layers.Normalization` that adapts in one exact pass."""

from typing import Any, Self

import keras
import numpy as np

from keras_initkit.adapt.engines import Engine
from keras_initkit.adapt.intake import Result, kept_axes
from keras_initkit.adapt.reader import Reading
from keras_initkit.adapt.reading import read_statistics
from keras_initkit.anatomy.callers import is_in_tf_data, is_saved_to_legacy_file, read_value
from keras_initkit.checks import check_choice
from keras_initkit.layers.scaling import METHODS, compute_scaling, describe_problems, find_rest
from keras_initkit.user_warnings import warn_user


@keras.saving.register_keras_serializable(package="keras_initkit")
class Normalization(keras.layers.Normalization):
    """Shifts and scales each feature to mean 0 and variance 1.

    outputs = (inputs - mean) / √variance; with `invert=True`, outputs = inputs · √variance + mean.
    The variance is that of the population (ddof 0). By other methods, "mean" is any location and
    "√variance" any scale.

    It replaces `keras.layers.Normalization`, with the same arguments, weights and saved files. It
    differs in these points:

    - `adapt()` reads the data once and accumulates in float64, whatever their type, size and
      offset, with the same result for an array and for a stream of batches. It reads everything
      Keras trains on, and tables; it takes account of masks and weights.
    - NaN (unless it is to be ignored), infinite values and a variance too large for the type are an
      error. After an error the layer is as it was before.
    - A constant feature comes out as exactly 0, and where the variance is 0 the scale is 1
      (Keras divides by ε: the least deviation later becomes huge). Deviations below ε are scaled
      like all others.
    - A model compiled by `fit()` or `predict()` sees the statistics of a later `adapt()`.
      (Inside `tf.data.Dataset.map` they are those of the moment when it was called.)
    - It warns once if it is trained or saved before `adapt()`.
    - Under a mixed precision policy the statistics stay float32, and the rest of a large mean,
      lost by rounding, is subtracted as well; only the result is cast.

    Args:
        axis: Integer, tuple of integers or `None`. The axis or axes along which each index has
            its own mean and variance; the others are reduced. `None` for one mean and variance of
            all values. The batch axis, 0, can't be adapted on. Defaults to `-1`.
        mean: Optional mean to use instead of `adapt()`: a number, or an array of a shape that
            broadcasts to the kept axes. Requires `variance`.
        variance: Optional variance to use instead of `adapt()`. Requires `mean`.
        invert: True to undo the normalization: from normalized values back to the original ones.
            Defaults to `False`.
        method: `"standard"`: `adapt()` takes mean and variance. `"min_max"`: it maps the smallest
            value to `low` and the largest to `high`. Defaults to `"standard"`.
        feature_range: Pair of numbers `(low, high)` for `"min_max"`. Defaults to `(0, 1)`.
        **kwargs: Base layer arguments, such as `name` and `dtype`.

    Input shape: arbitrary, with the sizes of the kept axes known. Outputs have the same, and the
    layer's compute dtype.

    Raises:
        ValueError: If only one of `mean` and `variance` is given, or if `method` or
            `feature_range` are not as above.

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

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        *,
        method: str = "standard",
        feature_range: tuple[float, float] = (0.0, 1.0),
        **kwargs: Any,
    ) -> None:
        # Inputs come as they are: the mean is subtracted before they are cast.
        kwargs.setdefault("autocast", False)
        rank = 0 if axis is None else np.size(axis)
        mean, variance = (_drop_leading_ones(x, rank) for x in (mean, variance))
        super().__init__(axis=axis, mean=mean, variance=variance, invert=invert, **kwargs)
        check_choice("method", method, METHODS)
        low, high = feature_range
        if not low < high:
            raise ValueError(
                "`feature_range` must be a pair (low, high) of numbers, low < high. Received: "
                f"feature_range={feature_range}."
            )
        self.method = method
        self.feature_range = (low, high)
        self._moments: Any = None
        # A mean as rounded to the variables' dtype and what rounding left of it, in `mean`'s shape.
        self._rest: Any = None
        self._is_checked = mean is not None  # for statistics, before it is trained or saved
        self._is_as_made: bool | None = None  # when its weights could be read last

    @property
    def moments(self) -> Any:
        """The `Moments` of the last `adapt()`, of shape `(features,)`, or `None`.

        They can be saved (`get_state()`), merged, and given to `adapt(…, initial=)`. They are not
        in the saved model.
        """
        return self._moments

    def adapt(
        self,
        data: Any,
        *,
        mask: Any = None,
        mask_value: float | None = None,
        sample_weight: Any = None,
        nan: str = "error",
        steps: int | None = None,
        max_rows: int | None = None,
        verbose: int | str = "auto",
        initial: Any = None,
        engine: str | Engine | None = None,
    ) -> None:
        """Compute mean and variance in one pass, in place of any former ones.

        Ctrl-C ends the pass; the statistics are then those of what was read, and a warning says
        so. A second one interrupts.

        Args:
            data: A NumPy array of shape `(rows, ...)` (a memory mapped one is read by pieces), a
                tensor, dense, ragged or sparse; a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
                PyTorch `DataLoader`, an iterable of batches such as a generator or a list of
                arrays; a table of pandas, Polars or PyArrow, or the path of a Parquet, CSV or
                Arrow file or folder. Of batches `(x, y[, sample_weight])` x and the weights are
                taken. Values may be of any integer, boolean or real floating point type.
            mask: Booleans, of the shape of leading axes of the data: True where values count. For
                data given whole.
            mask_value: Steps with this value in all features do not count, as with
                `keras.layers.Masking`.
            sample_weight: Weights ≥ 0, of the shape of leading axes of the data. For data given
                whole; in a stream they are part of a batch.
            nan: `"error"`; `"ignore"`, to leave NaN and missing values out; or `"propagate"`, to
                have NaN for the features with any. Defaults to `"error"`.
            steps: Number of batches to read, of long or endless data. Defaults to `None`: all.
            max_rows: Number of rows to read. Defaults to `None`: all.
            verbose: 1 to show progress, 0 not to, `"auto"` to show it when it takes more than
                5 s. Defaults to `"auto"`.
            initial: `moments` of a former pass to add to; they are left as they are.
            engine: `"dask"`, `"beam"` or a function, to read a list of parts (arrays, paths of
                files, functions without arguments) on several processes or machines. See
                `docs/how_to/several_machines.md`.

        Raises:
            TypeError: If data of this type can't be read.
            ValueError: If the data are empty, endless, not finite or not of the built layer's
                shape, if the layer was given `mean` and `variance`, or if `initial` lacks the
                extremes for "min_max".
        """
        if self.input_mean is not None:
            raise ValueError(
                "`adapt()` must be called on a layer without given statistics. Received: "
                f"mean={self.input_mean} and variance={self.input_variance} at "
                "construction. Drop these two arguments, or the call."
            )
        if self.method == "min_max" and not getattr(initial, "extremes", True):
            raise ValueError(
                "`initial` must hold minima and maxima for method='min_max'. Received: moments "
                "without them. Take those of a layer of the same method, or "
                "`keras_initkit.Moments(…)`."
            )
        result = read_statistics(
            data,
            Reading(
                mask=mask,
                mask_value=mask_value,
                sample_weight=sample_weight,
                nan=nan,
                steps=steps,
                max_rows=max_rows,
                verbose=verbose,
            ),
            self.axis,
            extremes=self.method == "min_max",
            check=self._check_shape,
            initial=initial,
            engine=engine,
        )
        self.take_statistics(result)

    def take_statistics(self, result: Result) -> None:
        """Take over the statistics of a pass, with extremes if `method` needs them."""
        moments, dtype = result.moments, self.variable_dtype
        scaling = compute_scaling(moments, dtype, self.method, self.feature_range)
        # Only now: a failed adapt must leave an unbuilt layer unbuilt.
        if not self.built:
            self.build(result.shape)
        shape = self.adapt_mean.shape
        for problem in describe_problems(scaling, dtype, self.method, result.name_features):
            warn_user(f"Layer {self.name!r}: {problem}")
        self.adapt_mean.assign(scaling.location.reshape(shape))
        self.adapt_variance.assign(np.square(scaling.scale).reshape(shape))
        self.finalize_state()
        held = np.asarray(keras.ops.convert_to_numpy(self.mean), np.float64)
        rest = find_rest(scaling, held.ravel())
        self._rest = None if rest is None else (held, rest.reshape(held.shape))
        self._moments = moments
        self._is_checked = True

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Add a weight that mixed precision leaves alone: a variance overflows float16."""
        kwargs.setdefault("autocast", False)
        return super().add_weight(*args, **kwargs)

    def finalize_state(self) -> None:
        """Refresh the constants that `tf.data.Dataset.map` uses."""
        super().finalize_state()
        if self.input_mean is None and self.built:  # Keras has cast them to the compute dtype
            self.mean, self.variance = self._live_statistics()

    def build(self, input_shape: Any) -> None:
        """Create the weights, or the constants of given statistics, for a shape of inputs."""
        super().build(input_shape)
        if self.input_mean is not None and input_shape is not None:
            # Keras has rounded them to the compute dtype.
            shape = tuple(self.mean.shape)
            kept = [shape[axis] for axis in kept_axes(self.axis, shape)]
            self.mean, self.variance = (
                keras.ops.convert_to_tensor(
                    np.broadcast_to(keras.ops.convert_to_numpy(given), kept).reshape(shape),
                    self.variable_dtype,
                )
                for given in (self.input_mean, self.input_variance)
            )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalize inputs of the built layer's shape."""
        if training:
            self._warn_if_not_adapted("trained")
        return self.transform(inputs, self.invert)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; those beside Keras's only if they are used."""
        config = super().get_config()
        if self.method != "standard":
            config["method"] = self.method
        if self.feature_range != (0.0, 1.0):
            config["feature_range"] = list(self.feature_range)
        if self._rest is not None:
            config["mean_rest"] = [part.tolist() for part in self._rest]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a layer of its config. The rest of a mean counts once the weights are loaded."""
        config = dict(config)
        rest = config.pop("mean_rest", None)
        layer = cls(**config)
        if rest is not None:  # a legacy file (`.h5`) holds nothing beside config and weights
            layer._rest = tuple(np.asarray(part, np.float64) for part in rest)
        return layer

    @property
    def variables(self) -> list[Any]:
        """The state, which Keras asks for before it trains on JAX: then it can't be read."""
        self._look_at_weights()
        return super().variables

    @property
    def weights(self) -> list[Any]:
        """The weights, which Keras asks for to save a legacy file."""
        if not self._is_checked and is_saved_to_legacy_file():
            self._warn_if_not_adapted("saved")
        return super().weights

    def save_own_variables(self, store: Any) -> None:
        """Save the weights, and the rests of large means."""
        self._warn_if_not_adapted("saved")
        super().save_own_variables(store)
        if self._rest is not None:
            store["rounded_mean"], store["mean_rest"] = self._rest

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables()` or Keras's layer has saved."""
        keys = list(store.keys())
        self._rest, self._is_checked = None, True
        if "mean_rest" in keys:
            self._rest = np.asarray(store["rounded_mean"]), np.asarray(store["mean_rest"])
        super().load_own_variables({key: store[key] for key in keys if key.isdigit()})

    def transform(self, inputs: Any, invert: bool) -> Any:
        """Normalize values of the built layer's shape, or undo it, whatever the layer does."""
        ops = self.backend.numpy
        mean, variance, rest = self._choose_statistics()
        inputs = self.backend.core.convert_to_tensor(inputs)
        inputs = self.backend.core.cast(inputs, self.variable_dtype)
        scale = ops.where(variance > 0, ops.sqrt(variance), ops.ones_like(variance))
        if invert:
            outputs = ops.multiply(inputs, scale)
            outputs = ops.add(outputs if rest is None else ops.add(outputs, rest), mean)
        else:
            outputs = ops.subtract(inputs, mean)
            outputs = outputs if rest is None else ops.subtract(outputs, rest)
            outputs = ops.divide(outputs, scale)
        return self.backend.core.cast(outputs, self.compute_dtype)

    def _warn_if_not_adapted(self, use: str) -> None:
        """Warn once of a layer whose weights are as they were made, mean 0 and variance 1."""
        self._look_at_weights()
        if self._is_checked or self._is_as_made is None:
            return
        self._is_checked = True
        if self._is_as_made:
            warn_user(
                f"Layer {self.name!r} is {use} without statistics: its outputs are its inputs. "
                "Call `layer.adapt(data)` first."
            )

    def _look_at_weights(self) -> None:
        if not self._is_checked and self.built:
            mean, variance = read_value(self.adapt_mean), read_value(self.adapt_variance)
            if mean is not None and variance is not None:
                self._is_as_made = not mean.any() and bool((variance == 1).all())

    def _choose_statistics(self) -> tuple[Any, Any, Any]:
        """Return mean, variance and the rest of the mean (or `None`), in the variables' dtype."""
        native = self.backend.name == keras.backend.backend()
        if self.input_mean is None and native and not is_in_tf_data():
            mean, variance = self._live_statistics()
        else:  # constants of this dtype, made by `build()` or `finalize_state()`
            mean, variance = self.convert_weight(self.mean), self.convert_weight(self.variance)
        if self._rest is None:
            return mean, variance, None
        ops = self.backend.numpy
        rounded, rest = (
            self.backend.core.convert_to_tensor(x, self.variable_dtype) for x in self._rest
        )
        # It is of no other mean: the weights may have been set since.
        return mean, variance, ops.where(ops.equal(mean, rounded), rest, ops.zeros_like(rest))

    def _live_statistics(self) -> tuple[Any, Any]:
        """Return the weights as they are now, for compiled functions to read at each run."""
        shape = tuple(self.mean.shape)
        return tuple(keras.ops.reshape(w, shape) for w in (self.adapt_mean, self.adapt_variance))

    def _check_shape(self, shape: tuple[int | None, ...]) -> None:
        """Check the shape of data against that of the built layer."""
        if not self.built:
            return
        built = tuple(self.get_build_config()["input_shape"])
        keep = kept_axes(self.axis, shape)
        if len(built) != len(shape) or any(built[axis] != shape[axis] for axis in keep):
            raise ValueError(
                f"`data` must have the shape {(None, *built[1:])} of the built layer. "
                f"Received: an incompatible shape, {shape}. Reshape the data, or adapt a new layer."
            )


def _drop_leading_ones(statistic: Any, rank: int) -> Any:
    """Give a statistic as another layer has it, `(1, features)`, the shape `(features,)`."""
    shape = np.shape(statistic)
    extra = max(0, len(shape) - rank)
    if not extra or any(size != 1 for size in shape[:extra]):
        return statistic
    return np.reshape(keras.ops.convert_to_numpy(statistic), shape[extra:])
