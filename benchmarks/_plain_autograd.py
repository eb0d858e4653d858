"""Binarization as research code writes it: the published formulas, the gradient left to autograd.

Each function takes a binary layer and its input and gives what the layer's convolution would be
given; two more give the output's scale, where it varies within an output. Written anew from the
papers' formulas, in the form that their public code has: masks multiplied with branches,
`a.detach() - b.detach() + b`, a variance by `var`, a sum of cosines term by term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - this is a form of training
import torch.nn.functional as F  # noqa: TID253 - this is a form of training
from torch import Tensor  # noqa: TID253 - this is a form of training

from bibench_train.layers import BinaryLayer  # noqa: TID253 - this is a form of training

Operands = tuple[Tensor, Tensor]
"""The binarized input and weight."""


@dataclass(frozen=True)
class Way:
    """One way to do what a binarizer does."""

    binarize: Callable[[BinaryLayer, Tensor], Operands]
    rescale: Callable[[BinaryLayer, Tensor, Tensor], Tensor] | None = None
    """(layer, its input, the finished ±1 convolution) → the scaled output."""


def clipped(x: Tensor, limit: float = 1.0) -> Tensor:
    """The clipped straight-through estimator."""
    inner = torch.clamp(x, -limit, limit)
    return torch.sign(x).detach() - inner.detach() + inner


def piecewise(x: Tensor) -> Tensor:
    """Bi-Real Net's polynomial, its three pieces chosen by masks."""
    below, negative, within = (mask.type(torch.float32) for mask in (x < -1, x < 0, x < 1))
    left = -1 * below + (x * x + 2 * x) * (1 - below)
    middle = left * negative + (-x * x + 2 * x) * (1 - negative)
    surrogate = middle * within + 1 * (1 - within)
    return torch.sign(x).detach() - surrogate.detach() + surrogate


class _Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - nothing is saved
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - identity
        return gradient.clone()


class _Polynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (2 - torch.abs(2 * x)).clamp(min=0) * gradient.clone()


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, terms: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.terms = terms
        return torch.sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        total = sum(torch.cos((2 * i + 1) * 0.1 * x) for i in range(ctx.terms + 1))
        gradient = 4 * 0.1 / math.pi * total * gradient
        gradient[x.gt(1)] = 0
        gradient[x.lt(-1)] = 0
        return gradient, None


def bnn(layer: BinaryLayer, x: Tensor) -> Operands:
    """BNN, and all that differ from it in the scale alone."""
    return clipped(x), clipped(layer.weight)


def bireal(layer: BinaryLayer, x: Tensor) -> Operands:
    """Bi-Real Net."""
    return piecewise(x), clipped(layer.weight)


def reactnet(layer: BinaryLayer, x: Tensor) -> Operands:
    """ReActNet."""
    shift = layer.binarizer.shape.broadcast(layer.binarizer.shift)
    return piecewise(x + shift.expand_as(x)), clipped(layer.weight)


def rescale_xnor(layer: BinaryLayer, x: Tensor, output: Tensor) -> Tensor:
    """XNOR-Net's α and K."""
    shape = layer.binarizer.shape
    alpha = layer.weight.abs().mean((1, 2, 3), keepdim=True).detach().view(1, -1, 1, 1)
    box = x.new_full((1, 1, *shape.kernel_size), 1 / math.prod(shape.kernel_size))
    magnitude = torch.mean(torch.abs(x), dim=1, keepdim=True)
    factor = F.conv2d(magnitude, box, None, shape.stride, shape.padding).detach()
    return output * factor.expand_as(output) * alpha


def rescale_xnorpp(layer: BinaryLayer, x: Tensor, output: Tensor) -> Tensor:  # noqa: ARG001 - of K
    """XNOR-Net++'s Γ."""
    binarizer = layer.binarizer
    alpha, beta, gamma = binarizer.alpha, binarizer.beta, binarizer.gamma
    scale = alpha.view(1, -1, 1, 1) * beta.view(1, 1, -1, 1) * gamma.view(1, 1, 1, -1)
    return output * scale


def normalized(x: Tensor) -> Tensor:
    """The polynomial at unit variance."""
    polynomial: Tensor = _Polynomial.apply(x / torch.sqrt(x.var([1, 2, 3], keepdim=True) + 1e-5))
    return polynomial


def recu(layer: BinaryLayer, x: Tensor) -> Operands:
    """ReCU."""
    weight = layer.weight
    centred = weight - weight.mean([1, 2, 3], keepdim=True)
    deviation = torch.sqrt(centred.var([1, 2, 3], keepdim=True) + 1e-5) / 2 / math.sqrt(2)
    standard = centred / deviation
    spread = torch.mean(torch.abs(standard))
    bound = (-spread * torch.log(2 - 2 * layer.binarizer.tau)).detach().cpu().item()
    return normalized(x), _Identity.apply(torch.clamp(standard, -bound, bound))


def biper(layer: BinaryLayer, x: Tensor) -> Operands:
    """BiPer in its second stage."""
    return normalized(x), _Identity.apply(torch.sin(20.0 * layer.weight))


def noise(rows: Tensor, module: Any) -> Tensor:
    """FDA's learned noise."""
    learned: Tensor = module.fc2(F.relu(module.fc1(rows)))
    return learned + 0.1 * torch.sin(rows)


def fda(layer: BinaryLayer, x: Tensor) -> Operands:
    """FDA-BNN."""
    binarizer, weight = layer.binarizer, layer.weight
    terms = int(binarizer.terms.item())
    # Our noise sees a filter's channels innermost, and a gradient can be compared only so.
    filters = weight.permute(0, 2, 3, 1)
    of_weight = noise(filters.flatten(1), binarizer.weight_noise).view(filters.shape)
    positions = x.flatten(2).contiguous().permute(0, 2, 1).contiguous()
    of_input = noise(positions, binarizer.input_noise).permute(0, 2, 1).contiguous()
    return (
        _Cosines.apply(x, terms) + binarizer.amplitude * of_input.reshape(x.shape),
        _Cosines.apply(weight, terms) + binarizer.amplitude * of_weight.permute(0, 3, 1, 2),
    )


def cosines(layer: BinaryLayer, x: Tensor) -> Operands:
    """FDA-BNN's estimator alone."""
    return _Cosines.apply(x, 9), _Cosines.apply(layer.weight, 9)


def bnext(layer: BinaryLayer, x: Tensor) -> Operands:
    """BNext's binary convolution."""
    layer.weight.data.clamp_(-1.5, 1.5)
    soft = torch.clamp(layer.weight / layer.binarizer.temperature, -1, 1)
    weight = soft.detach() - layer.weight.detach() + layer.weight
    shift = layer.binarizer.shape.broadcast(layer.binarizer.shift)
    return clipped(x + shift.expand_as(x), 1.5), weight


WAYS = {
    "bireal": Way(bireal),
    "biper": Way(biper),
    "bnext": Way(bnext),
    "bnn": Way(bnn),
    "dorefa": Way(bnn),
    "fda": Way(fda),
    "fda estimator": Way(cosines),
    "reactnet": Way(reactnet),
    "recu": Way(recu),
    "xnor": Way(bnn, rescale_xnor),
    "xnorpp": Way(bnn, rescale_xnorpp),
}
