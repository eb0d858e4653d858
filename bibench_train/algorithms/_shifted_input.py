"""A learned shift per input channel before the sign, as ReActNet's RSign has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, Hardened, LayerShape


class ShiftedInput(Binarizer):
    """Adds a learned β per input channel before binarizing (RSign).

    Attributes:
        shift: β [I], starts at 0.
    """

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.shift = nn.Parameter(torch.zeros(shape.in_channels))

    def binarize_input(self, x: Tensor) -> Tensor:
        """`sign(x + β)`, same shape as `x`."""
        return super().binarize_input(x + self.shape.broadcast(self.shift))

    def harden(self, weight: Tensor) -> Hardened:
        """±1 weights, α and β."""
        hard = super().harden(weight)
        return Hardened(hard.weight, hard.scale, self.shift.detach().clone())
