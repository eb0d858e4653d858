"""BNext's binary convolution: weights that harden as a temperature falls, a learned shift.

    forward     y = W_b ⊛ sign(A + b),  W_b = clamp(W / T, ±1), and sign(W) once T < 1e-7
    gradient    dL/dW = g, with W clamped to ±1.5 in place in training
                dL/dA = g · 1[|A + b| <= 1.5],  dL/db_i = Σ dL/dA over channel i
    inference   ±1 weights and b (an Add before the sign); the batch norm that follows
    schedule    T = 0.9^e in epoch e, counted from 0

g is the gradient that arrives at W_b or at sign(A + b). b is one number per input channel and
starts at 0. Source: Guo et al., "BNext", 2022, https://arxiv.org/abs/2211.12933, and its public
code.

Differs from the paper: this is its binary convolution alone; squeeze-and-expand branches, PReLU and
element-wise multiplications are part of its architecture. Differs from the public code: 0.9^e
takes 155 epochs to fall below 1e-7; in a shorter run T falls faster, by the constant factor that
brings it there in the last epoch, so that a finished run is strictly binary. A network with soft
weights is refused when it is hardened.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.25]]))
    >>> x = torch.tensor([[3.0, -1.0]])
    >>> layer(x).item()  # (0.5)(+1) + (-1)(-1)
    1.5
    >>> layer.binarizer.start_epoch(199, 200)
    >>> layer(x).item()  # (+1)(+1) + (-1)(-1)
    2.0
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bibench_train.algorithms._algorithm import Algorithm, Hardened, LayerShape
from bibench_train.algorithms._shifted_input import ShiftedInput
from bibench_train.errors import NotBinaryError
from bibench_train.ops.annealed_sign import HARD_BELOW, sign_annealed
from bibench_train.ops.estimators import sign_clipped_ste

DECAY = 0.9
"""By which T is multiplied from one epoch to the next, in a run that is long enough."""
STEPS = 154
"""So many times: 0.9^154 = 9.0e-8 is below 1e-7, also as a bfloat16."""
WEIGHT_LIMIT = 1.5
INPUT_LIMIT = 1.5


class Annealed(ShiftedInput):
    """Binarizes weights by a temperature; adds b per input channel to the input.

    Attributes:
        shift: b [I], starts at 0.
        temperature: T, a scalar.
    """

    temperature: Tensor

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.register_buffer("temperature", torch.tensor(1.0))

    def binarize_weight(self, weight: Tensor) -> Tensor:
        """`clamp(W / T, ±1)` or `sign(W)`; clamps the latent weights themselves in training."""
        if self.training:
            with torch.no_grad():
                weight.clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        return sign_annealed(weight, self.temperature)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set T."""
        steps = epoch * max(1.0, STEPS / (epochs - 1)) if epochs > 1 else STEPS
        self.temperature.fill_(DECAY**steps)

    def harden(self, weight: Tensor) -> Hardened:
        """±1 weights and b.

        Raises:
            NotBinaryError: T is not below 1e-7 yet.
        """
        temperature = self.temperature.item()
        if not temperature < HARD_BELOW:
            raise NotBinaryError(
                f"BNext's weights are soft: their temperature is {temperature:.2g}, and they are "
                f"-1 and +1 below {HARD_BELOW:g}, in the last epoch of a run; finish it with "
                "bibench train --resume"
            )
        return super().harden(weight)


ALGORITHM = Algorithm(
    title="BNext",
    source="https://arxiv.org/abs/2211.12933",
    binarize_input=partial(sign_clipped_ste, limit=INPUT_LIMIT),
    binarize_weight=partial(sign_annealed, temperature=torch.tensor(0.0)),
    binarizer=Annealed,
    shifts_input=True,
    schedule="temperature T = 0.9^e, to below 1e-7 in the last epoch at the latest",
    gradient="identity / STE within ±1.5",
    remains="b per input channel (an Add before the sign)",
)
