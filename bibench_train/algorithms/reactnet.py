"""ReActNet: Bi-Real Net's gradients, and a learned shift per input channel before the sign.

    forward     y = α · (sign(W) ⊛ sign(A + β)),  α_o = mean |W_o|, detached
    gradient    dL/dW = g · 1[|W| <= 1]
                dL/dA = g · max(0, 2 - 2|A + β|),  dL/dβ_i = Σ dL/dA over channel i
    inference   ±1 weights, α (folds into the next batch norm) and β (an Add before the sign)

β starts at 0. Source: Liu et al., "ReActNet", 2020, https://arxiv.org/abs/2003.03488.
Differs from the paper: it writes sign(x - β), the same with β negated; its RPReLU is part of its
architecture, not of this operator. Convolution and linear layer alike apply β in the forward pass.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.5]]))
    >>> x = torch.tensor([[0.25, -1.0]])
    >>> layer(x).item()
    2.0
    >>> _ = layer.binarizer.shift.data.copy_(torch.tensor([-0.5, 0.0]))
    >>> layer(x).item()  # the first input is now -0.25
    0.0
"""

from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.algorithms._shifted_input import ShiftedInput
from bibench_train.ops.estimators import sign_clipped_ste, sign_polynomial
from bibench_train.ops.scale import mean_magnitude

ALGORITHM = Algorithm(
    title="ReActNet",
    source="https://arxiv.org/abs/2003.03488",
    binarize_input=sign_polynomial,
    binarize_weight=sign_clipped_ste,
    channel_scale=mean_magnitude,
    binarizer=ShiftedInput,
    scale_granularity="channel",
    shifts_input=True,
    scale="mean |W| per output channel",
    gradient="STE / polynomial",
    remains="α per output channel, β per input channel (an Add before the sign)",
)
