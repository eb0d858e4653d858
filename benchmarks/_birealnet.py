"""Bi-Real Net of 18 layers as Larq Zoo has it, in PyTorch, and ResNet-18 with settled statistics.

    layer    x → sign → conv 3×3 → BN → + shortcut
    shortcut identity; where the size changes average pool 2×2 → conv 1×1 → BN

Source: Liu et al., "Bi-Real Net", 2018, https://arxiv.org/abs/1808.00278.
"""

from __future__ import annotations

from itertools import pairwise

import torch  # noqa: TID253 - the models that are exported
from torch import Tensor, nn  # noqa: TID253 - the models that are exported

from bibench_train import algorithms, architectures  # noqa: TID253 - the models that are exported
from bibench_train.layers import make_conv2d  # noqa: TID253 - the models that are exported

EPSILON = 1e-3  # of Keras' batch norm
WIDTHS = (64, 128, 256, 512)


class Layer(nn.Module):
    """One binary convolution and the shortcut that spans it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        stride = 1 if in_channels == out_channels else 2
        chosen = algorithms.load("bireal")
        self.conv = make_conv2d(chosen, in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, EPSILON)
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(2),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels, EPSILON),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] → [N, O, H/stride, W/stride]."""
        result: Tensor = self.norm(self.conv(x)) + self.shortcut(x)
        return result


def birealnet() -> nn.Module:
    """Bi-Real Net for 224 × 224 images and 1000 classes, with a softmax."""
    torch.manual_seed(0)
    channels = [WIDTHS[0], *(width for width in WIDTHS for _ in range(4))]
    body = [Layer(*pair) for pair in pairwise(channels)]
    model = nn.Sequential(
        nn.Conv2d(3, channels[0], 7, 2, 3, bias=False), nn.BatchNorm2d(channels[0], EPSILON),
        nn.MaxPool2d(3, 2, 1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels[-1], 1000), nn.Softmax(-1),
    )  # fmt: skip
    return settled(model)


def resnet18() -> nn.Module:
    """ResNet-18 of bibench_train, `bireal`, for 224 × 224 images and 1000 classes."""
    torch.manual_seed(0)
    return settled(
        architectures.build("resnet18", algorithm="bireal", num_classes=1000, form="imagenet")
    )


def settled(model: nn.Module) -> nn.Module:
    """A model whose batch norms hold random numbers: equal ones would be stored once."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5),
                (norm.running_mean, -0.5, 0.5), (norm.running_var, 10, 50),
            ):  # fmt: skip
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
    return model
