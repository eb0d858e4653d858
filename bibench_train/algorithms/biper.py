"""BiPer: weights from a periodic function, first its sine wave, then the square wave of its sign.

    forward     y = α · (W_b ⊛ sign(A)),  α learned per output channel
                stage 1: W_b = sin(ωW), real;  stage 2: W_b = sign(sin(ωW));  ω = 20
    gradient    dL/dW = g · ω · cos(ωW) in both stages
                dL/dA: the polynomial, g · max(0, 2 - 2|Â|), and that of  = A / √(var + 1e-5),
                with the variance of each sample, in training only
    penalty     τ · mean(½ + ½ cos(2ωW)) = τ · mean(cos²(ωW)) for each layer
    inference   ±1 weights and α, which folds into the batch norm that follows
    schedule    two stages of equal length, learning rate and optimizer anew in each

g is the gradient that arrives at W_b or sign(A). α starts as uniform numbers in (0, 1). The second
stage begins at half the epochs, rounded up, and a run of one epoch is that stage alone: only what
it leaves can be deployed.

Source: Vargas et al., "BiPer", 2024, https://arxiv.org/abs/2404.01278, and its public code.
Differs from the code in the penalty, which there is τ · mean(½ - ½ cos(2ωW)) = τ · mean(sin²(ωW)):
added to the loss, that draws every weight to sin = 0, halfway between -1 and +1, where a sign costs
most. The paper wants a small quantization error |sign(sin) - sin|, so |sin| is drawn to 1 here.
τ = 0.037 in stage 1 and 0.0468 in stage 2, of the published CIFAR-10 recipes for ResNet-18; there
stage 1 has twice the epochs of stage 2, and the weights with which stage 2 begins are the best of
stage 1, not the last.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.05, 0.2]]))  # sin 1.0 and sin 4.0
    >>> _ = layer.binarizer.alpha.data.fill_(0.5)
    >>> x = torch.tensor([[3.0, -1.0]])
    >>> round(layer(x).item(), 4)  # (0.8415 · (+1) + (-0.7568) · (-1)) · 0.5
    0.7991
    >>> layer.binarizer.start_epoch(1, 2)
    >>> layer(x).item()  # ((+1)(+1) + (-1)(-1)) · 0.5
    1.0
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bibench_train.algorithms._algorithm import Algorithm, Hardened, LayerShape, stage_of
from bibench_train.algorithms._normalized_input import NormalizedInput
from bibench_train.errors import NotBinaryError
from bibench_train.ops.estimators import sign_polynomial
from bibench_train.ops.sine_sign import mean_squared_cosine, sign_sine

FREQUENCY = 20.0
"""ω."""
FIRST_PENALTY = 0.037
"""τ in stage 1."""
LAST_PENALTY = 0.0468
"""τ in stage 2."""


class Periodic(NormalizedInput):
    """Takes the sine of the weights, in the last stage its sign.

    Attributes:
        stage: A scalar integer: 0 in stage 1, 1 in stage 2.
    """

    stage: Tensor

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.register_buffer("stage", torch.tensor(0))

    def binarize_weight(self, weight: Tensor) -> Tensor:
        """`sin(ωW)` in stage 1, its sign in stage 2, same shape as `weight`."""
        return sign_sine(weight, FREQUENCY, self.stage > 0)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the stage."""
        self.stage.fill_(stage_of(epoch, epochs, self.algorithm.stages))

    def penalty(self, weight: Tensor) -> Tensor:
        """`τ · mean(cos²(ωW))`, 0 where every sine is -1 or +1."""
        tau = torch.where(self.stage > 0, LAST_PENALTY, FIRST_PENALTY)
        return tau.to(weight.dtype) * mean_squared_cosine(weight, FREQUENCY)

    def harden(self, weight: Tensor) -> Hardened:
        """±1 weights and α.

        Raises:
            NotBinaryError: The layer is in stage 1.
        """
        if self.stage.item() == 0:
            raise NotBinaryError(
                "BiPer's weights are a sine wave in the first half of a run, and -1 and +1 in the "
                "second; finish the run with bibench train --resume"
            )
        return super().harden(weight)


ALGORITHM = Algorithm(
    title="BiPer",
    source="https://arxiv.org/abs/2404.01278",
    binarize_input=sign_polynomial,
    binarize_weight=partial(sign_sine, frequency=FREQUENCY, is_binary=torch.tensor(True)),
    binarizer=Periodic,
    stages=2,
    scale_granularity="channel",
    schedule="two stages: real sine weights, then their signs",
    scale="learned per output channel",
    gradient="ω · cos(ωW) / polynomial at unit variance",
    remains="α per output channel",
)
