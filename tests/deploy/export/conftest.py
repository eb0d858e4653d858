"""Small networks of bibench's own layers; LCE's conversion process is shared by all tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bibench_deploy.targets.lce.target import LceTarget
from bibench_train import algorithms
from bibench_train.architectures.resnet import BasicBlock
from bibench_train.layers import binary_layers, make_linear, set_output_sizes


class Small(nn.Module):
    """A stem, one block of stride 2 with a binary shortcut, a binary linear layer, a head."""

    def __init__(self, algorithm: str) -> None:
        super().__init__()
        chosen = algorithms.load(algorithm)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardtanh()
        )
        self.block = BasicBlock(chosen, 8, 16, 2, "binary")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = make_linear(chosen, 16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] → [N, 5]."""
        x = self.pool(self.block(self.stem(x))).flatten(1)
        return self.head(self.hidden(x))


EPOCHS = 200


@pytest.fixture(scope="session")
def make_network() -> Callable[..., nn.Module]:
    """make_network(algorithm, epoch): for [N, 3, 8, 8], with statistics as training leaves them.

    `epoch` is how far the algorithm's schedule has come, of 200; the last one unless given.
    """

    def make(algorithm: str = "reactnet", epoch: int = EPOCHS - 1) -> nn.Module:
        torch.manual_seed(0)
        network = Small(algorithm)
        set_output_sizes(network, (3, 8, 8))
        for _, layer in binary_layers(network):
            layer.binarizer.start_epoch(epoch, EPOCHS)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.3)
                nn.init.normal_(module.weight, 1, 0.5)
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.5, 8)
        for name, parameter in network.named_parameters():
            if "binarizer" in name:
                nn.init.normal_(parameter, std=0.2)
        return network

    return make


@pytest.fixture(autouse=True)
def _shared_conversion(lce_writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LceTarget, "open_writer", lambda _: contextlib.nullcontext(lce_writer))
