"""DoReFa-Net with one bit: clipped straight-through gradients, a scale per output channel.

    forward     y = α · (sign(W) ⊛ sign(A)),  α_o = mean |W_o|, detached
    gradient    dL/dW = g · 1[|W| <= 1]        dL/dA = g · 1[|A| <= 1]
    inference   ±1 weights and α, which folds into the batch norm that follows

g is the gradient that arrives at sign(W) or sign(A). Source: Zhou et al., "DoReFa-Net", 2016,
https://arxiv.org/abs/1606.06160. Differs from the paper, as BiBench does: the paper has one α per
layer and not one per output channel, passes the gradient of W unclipped, maps activations to
{0, 1}, and quantizes gradients too.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.5], [0.25, 0.25]]))
    >>> layer(torch.tensor([[3.0, -1.0]])).tolist()  # α = 1 and 0.25
    [[2.0, 0.0]]
"""

from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.ops.estimators import sign_clipped_ste
from bibench_train.ops.scale import mean_magnitude

ALGORITHM = Algorithm(
    title="DoReFa-Net",
    source="https://arxiv.org/abs/1606.06160",
    binarize_input=sign_clipped_ste,
    binarize_weight=sign_clipped_ste,
    channel_scale=mean_magnitude,
    scale_granularity="channel",
    scale="mean |W| per output channel",
    gradient="STE / STE",
    remains="α per output channel",
)
