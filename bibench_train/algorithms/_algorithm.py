"""What an algorithm is: the functions a binary layer calls, and what it remembers per layer.

`Algorithm` is what each file in this folder fills in. Most algorithms are three pure functions.
Where one learns or remembers something in each layer (a shift, a temperature, a small network),
it subclasses `Binarizer` and names that class in its `Algorithm`; layers and training loop call
the methods below and know no algorithm by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bibench_train.errors import NotBinaryError
from bibench_train.ops.sign import sign


@dataclass(frozen=True)
class LayerShape:
    """The geometry of one binary layer; every tuple is empty for a linear layer."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[O, I/groups, *kernel]."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def broadcast(self, per_channel: Tensor) -> Tensor:
        """Shape [C] so that it multiplies or adds along the channels of this layer's tensors.

        Returns:
            [1, C, 1, 1] for a 2-d convolution, [1, C, 1] for a 1-d one, [C] for a linear layer.
        """
        if not self.kernel_size:
            return per_channel
        return per_channel.reshape(1, -1, *[1] * len(self.kernel_size))


@dataclass(frozen=True)
class Hardened:
    """What remains of a binary layer at inference.

    `output = conv(sign(input + shift), weight) * input_scale(input) * scale + bias`, multiplied in
    this order; the bias belongs to the layer.
    """

    weight: Tensor
    """[O, I/groups, *kernel], every element exactly -1 or +1."""
    scale: Tensor | None = None
    """[O], or [O, H, W] where the scale differs by position; None means 1."""
    shift: Tensor | None = None
    """[I], added to the input before it is binarized; None means 0."""
    input_scale: nn.Module | None = None
    """The layer's input → a factor that broadcasts to its output, from plain operations; None
    means 1. No engine folds a factor that is known only at run time."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One published way to binarize, as the layers use it.

    A layer computes `α · conv(binarize_input(x), binarize_weight(W)) + bias`. The scale multiplies
    the finished ±1 convolution, never its weights: rounding inside conv(±1, ±α) turns sums of
    exactly 0 into ±1e-9, which flips the signs of the next layer.
    """

    title: str
    """As the paper calls it."""
    source: str
    """Link to the paper."""
    binarize_input: Callable[[Tensor], Tensor]
    """Activations to {-1, +1}, with a surrogate gradient."""
    binarize_weight: Callable[[Tensor], Tensor]
    """Latent weights to {-1, +1}, with a surrogate gradient."""
    channel_scale: Callable[[Tensor], Tensor] | None = None
    """W → α [O]; None means no scale."""
    binarizer: type[Binarizer] | None = None
    """What a layer learns or remembers beyond its weight; None means nothing."""
    stages: int = 1
    """Equal parts into which a run is divided: optimizer and learning rate begin anew in each;
    `stage_of` says which epoch is in which."""
    scale_granularity: Literal["none", "channel", "spatial"] = "none"
    """What the constant scale of a convolution differs by at inference."""
    rescales_by_activation: bool = False
    """Whether the output is multiplied by a factor computed from the input."""
    shifts_input: bool = False
    """Whether something learned is added to the input before its sign."""
    schedule: str = ""
    """For people: what changes from epoch to epoch; empty where nothing does."""
    scale: str = "none"
    """For people: the scale in one phrase."""
    gradient: str = ""
    """For people: the surrogate gradients, weight then input."""
    remains: str = ""
    """For people: what is left at inference, batch norm aside."""

    def make_binarizer(self, shape: LayerShape) -> Binarizer:
        """The binarizer of one new layer."""
        return (self.binarizer or Binarizer)(self, shape)


def stage_of(epoch: int, epochs: int, stages: int) -> int:
    """The stage, counted from 0, that an epoch belongs to; the last epoch is in the last stage.

    A run with fewer epochs than stages leaves out the first stages: only the last one ends with
    what can be deployed.

    Args:
        epoch: Counted from 0.
        epochs: How many the run has.
        stages: How many equal parts the run has: `Algorithm.stages`.

    Example:
        >>> [stage_of(epoch, 5, 2) for epoch in range(5)]
        [0, 0, 0, 1, 1]
        >>> stage_of(0, 1, 2)
        1
    """
    return max(epoch * stages // epochs, stages - (epochs - epoch))


class Binarizer(nn.Module):
    """What one binary layer does to its input, weight and output; one instance per layer.

    The defaults call the algorithm's pure functions and hold no state. A subclass overrides the
    methods in which it differs; parameters and buffers it registers are trained and stored with
    the layer, under `<layer>.binarizer.<name>`. Create all of them in the constructor: whatever
    appears later is missing from the optimizer. The one exception is what depends on the size of
    the layer's output: `set_output_size` may create it, and is called before any optimizer exists.
    """

    needs_output_size: ClassVar[bool] = False
    """Whether `set_output_size` must be called before the first forward pass."""

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.shape = shape

    def binarize_input(self, x: Tensor) -> Tensor:
        """Activations to {-1, +1}, same shape as `x`."""
        return self.algorithm.binarize_input(x)

    def binarize_weight(self, weight: Tensor) -> Tensor:
        """Latent weights to {-1, +1}, same shape as `weight`."""
        return self.algorithm.binarize_weight(weight)

    def channel_scale(self, weight: Tensor) -> Tensor | None:
        """α [O] by which the output is multiplied, or None."""
        return self.algorithm.channel_scale(weight) if self.algorithm.channel_scale else None

    def rescale(self, output: Tensor, weight: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """The ±1 convolution's output times its scale.

        Args:
            output: `conv(±1, ±1)`, before any bias.
            weight: Latent weights.
            x: The layer's real input, for scales that depend on it.
        """
        alpha = self.channel_scale(weight)
        return output if alpha is None else output * self.shape.broadcast(alpha)

    def set_output_size(self, size: tuple[int, ...]) -> None:
        """Told once, when a model is built, the size of the layer's output: (H, W), (L,) or ()."""

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called by the training loop before each epoch, for schedules.

        Args:
            epoch: Counted from 0.
            epochs: How many there will be.
        """

    def penalty(self, weight: Tensor) -> Tensor | None:  # noqa: ARG002 - for subclasses
        """A scalar to add to the loss, or None."""
        return None

    def harden(self, weight: Tensor) -> Hardened:
        """What remains at inference.

        Raises:
            NotBinaryError: The algorithm's weights are not exactly ±1 yet.
        """
        with torch.no_grad():
            binary = self.binarize_weight(weight)
            if not torch.equal(binary, sign(binary)):
                share = (binary.abs() != 1).double().mean().item()
                raise NotBinaryError(
                    f"{self.algorithm.title}: {share:.0%} of a layer's weights are not -1 or +1 "
                    "yet; train until the end of the algorithm's schedule"
                )
            scale = self.channel_scale(weight)
            return Hardened(binary.clone(), None if scale is None else scale.clone())
