"""A learned scale, and inputs whose surrogate gradient is taken at unit variance, as in ReCU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, LayerShape
from bibench_train.ops.normalized_sign import sign_normalized_polynomial


class NormalizedInput(Binarizer):
    """Learns α per output channel; takes the input's surrogate gradient at unit variance.

    Attributes:
        alpha: α [O], starts as uniform numbers in (0, 1).
    """

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.alpha = nn.Parameter(torch.rand(shape.out_channels))

    def binarize_input(self, x: Tensor) -> Tensor:
        """`sign(x)`, same shape as `x`."""
        if not self.training:
            return super().binarize_input(x)
        return sign_normalized_polynomial(x, len(self.shape.kernel_size) + 1)

    def channel_scale(self, weight: Tensor) -> Tensor:  # noqa: ARG002 - learned, not computed
        """α [O]."""
        return self.alpha
