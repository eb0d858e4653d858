"""BNN: sign on weights and activations, clipped straight-through gradients, no scale.

    forward     y = sign(W) ⊛ sign(A)
    gradient    dL/dW = g · 1[|W| <= 1]        dL/dA = g · 1[|A| <= 1]
    inference   ±1 weights; the batch norm that follows is all that is left in float

Source: Hubara et al., "Binarized Neural Networks", 2016, https://arxiv.org/abs/1602.02830.
Differs from the paper: the deterministic sign only, and latent weights are not clipped after
a step (the gradient beyond ±1 is 0 already), as in BiBench.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 3, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -2.0, 0.0]]))
    >>> layer(torch.tensor([[3.0, 1.0, -1.0]])).item()  # (+1)(+1) + (-1)(+1) + (+1)(-1)
    -1.0
"""

from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.ops.estimators import sign_clipped_ste

ALGORITHM = Algorithm(
    title="BNN",
    source="https://arxiv.org/abs/1602.02830",
    binarize_input=sign_clipped_ste,
    binarize_weight=sign_clipped_ste,
    gradient="STE / STE",
    remains="nothing",
)
