"""Aims: what a scheme wants of each kernel."""

from typing import Any, NamedTuple

from keras_initkit.models.initialize.architecture import Kernel


class Aim(NamedTuple):
    """The start of a kernel, and of the bias of its layer.

    Attributes:
        kernel: The kernel.
        initializer: Draws it.
        variance: What is wanted of the layer's output, before its activation, on the batch; of a
            recurrent layer, of what its kernel makes of the inputs. `None` for a kernel that stays
            as it is drawn.
        statistic: What is brought to `variance`: the mean square, "rms", or the variance, "std".
        bias_variance: Variance of the bias.
        is_centred: Whether the bias also takes away what the mean of the inputs makes.
        mirrored: Whether inputs, and outputs, are pairs of opposite units.
    """

    kernel: Kernel
    initializer: Any
    variance: float | None = None
    statistic: str = "rms"
    bias_variance: float = 0.0
    is_centred: bool = False
    mirrored: tuple[bool, bool] = (False, False)

    @property
    def variable(self) -> Any:
        """The variable of the kernel."""
        return self.kernel.part.weight.variable

    @property
    def bias(self) -> Any | None:
        """The variable of the bias, or `None`."""
        return self.kernel.bias and self.kernel.bias.weight.variable

    @property
    def holder(self) -> Any:
        """The layer with the kernel."""
        return self.kernel.part.weight.holder
