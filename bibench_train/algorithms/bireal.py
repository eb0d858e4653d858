"""Bi-Real Net: a polynomial surrogate gradient for activations, a scale per output channel.

    forward     y = α · (sign(W) ⊛ sign(A)),  α_o = mean |W_o|, detached
    gradient    dL/dW = g · 1[|W| <= 1]        dL/dA = g · max(0, 2 - 2|A|)
    inference   ±1 weights and α, which folds into the batch norm that follows

g is the gradient that arrives at sign(W) or sign(A). Source: Liu et al., "Bi-Real Net", 2018,
https://arxiv.org/abs/1808.00278. Differs from the paper: weights use the plain clipped STE
without the magnitude-aware factor, as in BiBench.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.5]]))
    >>> layer(torch.tensor([[3.0, -1.0]])).item()  # α = 1, (+1)(+1) + (-1)(-1)
    2.0
"""

from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.ops.estimators import sign_clipped_ste, sign_polynomial
from bibench_train.ops.scale import mean_magnitude

ALGORITHM = Algorithm(
    title="Bi-Real Net",
    source="https://arxiv.org/abs/1808.00278",
    binarize_input=sign_polynomial,
    binarize_weight=sign_clipped_ste,
    channel_scale=mean_magnitude,
    scale_granularity="channel",
    scale="mean |W| per output channel",
    gradient="STE / polynomial",
    remains="α per output channel",
)
