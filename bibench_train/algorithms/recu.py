"""ReCU: weights standardised per filter and clamped, so that those far out can change their sign.

    forward     y = α · (sign(W̃) ⊛ sign(A)),  α learned per output channel
                W̃ = clamp((W - μ) · 2√2 / √(σ² + 1e-5), ±Q),  μ and σ² of the filter
                Q = -b · ln(2 - 2τ),  b = mean of the unclamped |W̃| over the layer, detached
    gradient    dL/dW: identity through the sign, then that of the clamp and of (W - μ) / σ
                dL/dA: the polynomial, g · max(0, 2 - 2|Â|), and that of  = A / √(var + 1e-5),
                with the variance of each sample; dL/dα_o = Σ g_y · (sign(W̃) ⊛ sign(A))
    inference   ±1 weights sign(W - μ) and α, which folds into the batch norm that follows
    schedule    τ(e) = 0.85 + 0.14 · (exp(e / E) - 1) / (exp(1) - 1): from 0.85 towards 0.99

g is the gradient that arrives at sign(W̃) or sign(A). α starts as uniform numbers in (0, 1).
Variances divide by count - 1. A is normalised in training only: it changes gradients, not signs.
A sample is an image or a sequence of a convolution, a row of a linear layer.

Source: Xu et al., "ReCU: Reviving the Dead Weights", 2021, https://arxiv.org/abs/2103.12369, and
its public code, from which 2√2, α and the normalised A are. Differs from them: the variance of a
single element is 0.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, 1.5]]))
    >>> _ = layer.binarizer.alpha.data.fill_(0.25)
    >>> layer(torch.tensor([[3.0, 1.0]])).item()  # ((-1)(+1) + (+1)(+1)) · 0.25: μ is 1
    0.0
    >>> layer(torch.tensor([[3.0, -1.0]])).item()
    -0.5
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from bibench_train.algorithms._algorithm import Algorithm, LayerShape
from bibench_train.algorithms._normalized_input import NormalizedInput
from bibench_train.ops.estimators import sign_polynomial
from bibench_train.ops.rectified_sign import sign_rectified

FIRST_TAU = 0.85
LAST_TAU = 0.99


class Rectified(NormalizedInput):
    """Binarizes weights around the mean of their filter, and pulls outliers in.

    Attributes:
        tau: τ, a scalar: the quantile at which weights are clamped.
    """

    tau: Tensor

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.register_buffer("tau", torch.tensor(FIRST_TAU))

    def binarize_weight(self, weight: Tensor) -> Tensor:
        """`sign(W - μ)`, same shape as `weight`."""
        return sign_rectified(weight, self.tau)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set τ."""
        share = (math.exp(epoch / epochs) - 1) / (math.e - 1)
        self.tau.fill_(FIRST_TAU + (LAST_TAU - FIRST_TAU) * share)


ALGORITHM = Algorithm(
    title="ReCU",
    source="https://arxiv.org/abs/2103.12369",
    binarize_input=sign_polynomial,
    binarize_weight=partial(sign_rectified, tau=torch.tensor(FIRST_TAU)),
    binarizer=Rectified,
    scale_granularity="channel",
    schedule="the clamp's quantile τ, from 0.85 towards 0.99",
    scale="learned per output channel",
    gradient="clamp and standardisation / polynomial at unit variance",
    remains="α per output channel",
)
