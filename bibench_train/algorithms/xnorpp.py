"""XNOR-Net++: one learned scale for each position of the output, as a product of vectors.

    forward     y = (sign(W) ⊛ sign(A)) ⊙ Γ,  Γ_chw = α_c · β_h · γ_w
    gradient    dL/dW = g · 1[|W| <= 1]        dL/dA = g · 1[|A| <= 1]
                dL/dΓ = Σ over the batch of dL/dy · (sign(W) ⊛ sign(A)), on to α, β and γ
    inference   ±1 weights and Γ, a constant of the output's size that folds into no batch norm

α, β and γ start at 1. A 1-d convolution has α and β, one for each position; a linear layer has α
only, which folds. g is the gradient that arrives at sign(W) or sign(A). The size of the output is
part of the layer: `bibench_train.layers.set_output_sizes` gives it, before the first forward pass.

Source: Bulat and Tzimiropoulos, "XNOR-Net++", 2019, https://arxiv.org/abs/1909.13863, its case 4.
Differs from BiBench's code, which creates 2000 entries of β and of γ in every layer and uses the
first of them: here there are as many as the output has rows and columns, so that none stays
untrained and another size is an error.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.5]]))
    >>> _ = layer.binarizer.alpha.data.fill_(0.25)
    >>> layer(torch.tensor([[3.0, -1.0]])).item()  # ((+1)(+1) + (-1)(-1)) · 0.25
    0.5
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, Hardened, LayerShape
from bibench_train.errors import NotBinaryError
from bibench_train.ops.estimators import sign_clipped_ste


class SpatialScale(Binarizer):
    """Multiplies the output by Γ = α ⊗ β ⊗ γ.

    Attributes:
        alpha: α [O].
        beta: β [H], or [L] for a 1-d convolution; None until the size is known.
        gamma: γ [W]; None until the size is known, and for a 1-d convolution.
    """

    needs_output_size = True

    alpha: Tensor
    beta: Tensor | None
    gamma: Tensor | None

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.alpha = nn.Parameter(torch.ones(shape.out_channels))
        self.register_parameter("beta", None)
        self.register_parameter("gamma", None)

    @property
    def output_size(self) -> tuple[int, ...] | None:
        """(H, W), (L,) or (): what Γ was made for; None until it is known."""
        factors = [factor for factor in (self.beta, self.gamma) if factor is not None]
        is_known = len(factors) == len(self.shape.kernel_size)
        return tuple(len(factor) for factor in factors) if is_known else None

    def set_output_size(self, size: tuple[int, ...]) -> None:
        """Create β and γ, all ones; nothing is done where they have this size already.

        Raises:
            ValueError: They have another size.
        """
        if self.output_size is not None:
            self._check(size)
            return
        for name, length in zip(("beta", "gamma"), size, strict=False):
            self.register_parameter(name, nn.Parameter(self.alpha.new_ones(length)))

    def rescale(self, output: Tensor, weight: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 - Γ is learned
        """`output · Γ`.

        Raises:
            ValueError: Γ has no size yet, or was made for an output of another size.
        """
        if self.output_size is None and output.is_meta:
            return output  # the dry pass that finds the size
        self._check(tuple(output.shape[output.dim() - len(self.shape.kernel_size) :]))
        return output * self.scale()

    def scale(self) -> Tensor:
        """Γ [O, H, W], [O, L] or [O]."""
        scale = self.alpha
        for factor in (self.beta, self.gamma):
            if factor is not None:
                scale = scale.unsqueeze(-1) * factor
        return scale

    def harden(self, weight: Tensor) -> Hardened:
        """±1 weights and Γ.

        Raises:
            NotBinaryError: Γ has no size yet.
        """
        if self.output_size is None:
            raise NotBinaryError(_UNKNOWN_SIZE)
        return Hardened(super().harden(weight).weight, self.scale().detach().clone())

    def _check(self, size: tuple[int, ...]) -> None:
        if self.output_size is None:
            raise ValueError(_UNKNOWN_SIZE)
        if size != self.output_size:
            raise ValueError(
                f"XNOR-Net++: an output of {_words(size)}, but this layer's scale was made for "
                f"{_words(self.output_size)}; give inputs of the size the model was built for, or "
                "build and train one for this size (image_size in architectures.build)"
            )


_UNKNOWN_SIZE = (
    "XNOR-Net++: the size of this layer's output is not known; call "
    "bibench_train.layers.set_output_sizes(model, input_shape) before the first forward pass"
)


def _words(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))


ALGORITHM = Algorithm(
    title="XNOR-Net++",
    source="https://arxiv.org/abs/1909.13863",
    binarize_input=sign_clipped_ste,
    binarize_weight=sign_clipped_ste,
    binarizer=SpatialScale,
    scale_granularity="spatial",
    scale="learned α ⊗ β ⊗ γ over channel, height and width",
    gradient="STE / STE",
    remains="Γ, one number per channel and position (α per output feature of a linear layer)",
)
