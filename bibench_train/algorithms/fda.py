"""FDA-BNN: a gradient from the Fourier series of a square wave, a learned noise that fades out.

    forward     y = α · ((sign(W) + a · η_w(W)) ⊛ (sign(A) + a · η_a(A)))
                η(x) = fc2(relu(fc1(x))) + 0.1 · sin(x), no biases;  α_o = mean |W_o|, detached
    gradient    g · (4ω/π · Σ cos((2i + 1)ωx) · 1[|x| <= 1] + a · dη/dx),  i = 0..n, ω = 0.1
    inference   ±1 weights and α, which folds into the batch norm that follows
    schedule    a(e) = 0.05 · (1 + cos(π (e + 1) / E)): 0 in the last epoch;  n(e) = 9 + ⌊9e / E⌋

g is the gradient that arrives at the convolution's operand, for W and A alike. η_w sees a whole
filter, d = I/groups · kH · kW numbers; η_a sees the channels of one position, d = I. The hidden
width is ⌊d/64⌋, for d < 64 ⌊d/4⌋, and at least 1.

Source: Xu et al., "Learning Frequency Domain Approximation for Binary Neural Networks", 2021,
https://arxiv.org/abs/2103.00841, and BiBench's code. Differs from that code: both modules of noise
are created with the layer, where η_a is created in the first forward pass there, and so is missing
from the optimizer and from what is loaded; α multiplies the finished convolution. A filter is read
position by position, with its channels innermost.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.5]]))
    >>> x = torch.tensor([[3.0, -1.0]])
    >>> layer(x).item() == 2.0  # noise
    False
    >>> layer.binarizer.start_epoch(199, 200)
    >>> layer(x).item()  # ((+1)(+1) + (-1)(-1)) · α 1
    2.0
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, Hardened, LayerShape
from bibench_train.errors import NotBinaryError
from bibench_train.ops.fourier_sign import fourier_slope, sign_fourier
from bibench_train.ops.scale import mean_magnitude
from bibench_train.ops.sign import sign

FIRST_TERMS = 9
"""n in the first epoch; it doubles over a run."""
LARGEST_AMPLITUDE = 0.1
"""a at the beginning of a run."""
SINE_SHARE = 0.1
"""The factor of the sine within the noise."""


class _NoisySign(torch.autograd.Function):
    """`sign(rows) + a · noise(rows)` of [M, d]; keeps rows and hidden values for the backward."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, fc1: Tensor, fc2: Tensor, amplitude: Tensor, terms: Tensor
    ) -> Tensor:
        # Autocast narrows what is not in place, and parameters may be wider than rows.
        fc1, fc2 = fc1.to(rows.dtype), fc2.to(rows.dtype)
        hidden = (rows @ fc1.t()).to(rows.dtype).relu_()
        noise = rows.sin().mul_(SINE_SHARE * amplitude).addmm_(hidden * amplitude, fc2.t())
        ctx.save_for_backward(rows, hidden, fc1, fc2, amplitude, terms)
        return noise.add_(sign(rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        rows, hidden, fc1, fc2, amplitude, terms = ctx.saved_tensors
        upstream = grads[0]
        at_hidden = (upstream @ fc2).to(rows.dtype).mul_(amplitude).mul_(hidden.sign())
        slope = fourier_slope(rows, terms)
        slope.addcmul_(rows.cos(), SINE_SHARE * amplitude.to(rows.dtype))
        at_rows = slope.mul_(upstream).addmm_(at_hidden, fc1)
        # Transposed twice: the few hidden values in front make the product ten times as fast.
        # In the parameter's own memory order, which data-parallel training wants.
        at_fc2 = ((hidden.t() @ upstream).t() * amplitude).contiguous()
        return at_rows, at_hidden.t() @ rows, at_fc2, None, None


class NoiseAdaptation(nn.Module):
    """Adds a·η to a sign: a two-layer network and a sine of the same input.

    Args:
        size: d, how many numbers the network sees at once.
        channel_dim: The dimension of the channels, counted from the last: they are innermost in
            what the network sees, as they are in channels-last memory.
    """

    def __init__(self, size: int, channel_dim: int) -> None:
        super().__init__()
        hidden = max(1, size // 64 if size >= 64 else size // 4)
        self.fc1 = nn.Linear(size, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, size, bias=False)
        self.channel_dim = channel_dim

    def forward(self, x: Tensor, amplitude: Tensor, terms: Tensor) -> Tensor:
        """`sign(x) + a · η(x)`, same shape as `x`.

        Args:
            x: Weights [O, I/groups, *kernel] or activations [N, I, *size]; [..., I] of a linear
                layer.
            amplitude: a, a scalar tensor.
            terms: n of the sign's estimator, a scalar tensor.
        """
        moved = x.movedim(self.channel_dim, -1)
        rows = moved.reshape(-1, self.fc1.in_features)
        noisy: Tensor = _NoisySign.apply(  # type: ignore[no-untyped-call]  # torch gives it no types
            rows, self.fc1.weight, self.fc2.weight, amplitude, terms
        )
        return noisy.reshape(moved.shape).movedim(-1, self.channel_dim)


class FadingNoise(Binarizer):
    """Binarizes with the Fourier estimator and a noise that fades to nothing.

    Attributes:
        weight_noise: η_w.
        input_noise: η_a.
        amplitude: a, a scalar.
        terms: n, a scalar.
    """

    amplitude: Tensor
    terms: Tensor

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        channel_dim = -1 - len(shape.kernel_size)
        self.weight_noise = NoiseAdaptation(math.prod(shape.weight_shape[1:]), channel_dim)
        self.input_noise = NoiseAdaptation(shape.in_channels, channel_dim)
        self.register_buffer("amplitude", torch.tensor(LARGEST_AMPLITUDE))
        self.register_buffer("terms", torch.tensor(FIRST_TERMS))

    def binarize_input(self, x: Tensor) -> Tensor:
        """`sign(x) + a · η_a(x)`, same shape as `x`."""
        return self._binarize(x, self.input_noise)

    def binarize_weight(self, weight: Tensor) -> Tensor:
        """`sign(W) + a · η_w(W)`, same shape as `weight`."""
        return self._binarize(weight, self.weight_noise)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set a and n."""
        turn = math.cos(math.pi * ((epoch + 1) / epochs))
        self.amplitude.fill_(LARGEST_AMPLITUDE / 2 * (1 + turn))
        self.terms.fill_(FIRST_TERMS + FIRST_TERMS * epoch // epochs)

    def harden(self, weight: Tensor) -> Hardened:
        """±1 weights and α.

        Raises:
            NotBinaryError: The amplitude of the noise is not 0.
        """
        amplitude = self.amplitude.item()
        if amplitude != 0:
            raise NotBinaryError(
                "FDA-BNN still adds noise to weights and inputs, so that they are not -1 and +1: "
                f"its amplitude is {amplitude:.2g}, and 0 in the last epoch of a run; finish it "
                "with bibench train --resume"
            )
        return super().harden(weight)

    def _binarize(self, x: Tensor, noise: NoiseAdaptation) -> Tensor:
        # In training also where a is 0: a parameter without a gradient stops data-parallel runs.
        if self.training or self.amplitude.item() != 0:
            noisy: Tensor = noise(x, self.amplitude, self.terms)
            return noisy
        return sign_fourier(x, self.terms)


ALGORITHM = Algorithm(
    title="FDA-BNN",
    source="https://arxiv.org/abs/2103.00841",
    binarize_input=partial(sign_fourier, terms=torch.tensor(FIRST_TERMS)),
    binarize_weight=partial(sign_fourier, terms=torch.tensor(FIRST_TERMS)),
    channel_scale=mean_magnitude,
    binarizer=FadingNoise,
    scale_granularity="channel",
    schedule="noise amplitude a, from 0.1 to 0 in the last epoch; n cosines, from 9 towards 18",
    scale="mean |W| per output channel",
    gradient="Fourier series with n cosines, both",
    remains="α per output channel",
)
