"""ResNet-20 (CIFAR), ResNet-18 and ResNet-34 (CIFAR and ImageNet forms), as BiBench has them.

    block    x → binconv → BN → Hardtanh → binconv → BN → + shortcut → Hardtanh
    stem     imagenet: conv 7×7 s2 → BN → Hardtanh → MaxPool 3×3 s2
             cifar: conv 3×3 s1 → BN → Hardtanh
    head     global average pool → linear

The stem and the head stay FP32. A shortcut that changes size is a 1×1 convolution and a BN:
`downsample="fp32"` as in BiBench's code, `"binary"` as its complexity table counts it.

Source: He et al., "Deep Residual Learning", 2015, https://arxiv.org/abs/1512.03385.
Differs from the paper: Hardtanh in place of ReLU, since a sign after ReLU would give +1 only;
ResNet-20 shortcuts are convolutions (option B of the paper), not padded identities.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.architectures._architecture import Architecture
from bibench_train.layers import make_conv2d


class BasicBlock(nn.Module):
    """Two 3×3 binary convolutions and the shortcut that spans both.

    Args:
        algorithm: How to binarize; None for FP32.
        in_channels: I.
        out_channels: O.
        stride: Of the first convolution and of the shortcut.
        downsample: "fp32" or "binary": the shortcut's convolution, where there is one.
    """

    def __init__(
        self,
        algorithm: Algorithm | None,
        in_channels: int,
        out_channels: int,
        stride: int,
        downsample: str,
    ) -> None:
        super().__init__()
        self.conv1 = make_conv2d(algorithm, in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.Hardtanh()
        self.conv2 = make_conv2d(algorithm, out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.Hardtanh()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            projection = algorithm if downsample == "binary" else None
            self.shortcut = nn.Sequential(
                make_conv2d(projection, in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] → [N, O, H/stride, W/stride], in [-1, 1]."""
        output: Tensor = self.act1(self.bn1(self.conv1(x)))
        output = self.bn2(self.conv2(output)) + self.shortcut(x)
        activated: Tensor = self.act2(output)
        return activated


class ResNet(nn.Module):
    """Stem, stages of basic blocks, global average pool, linear head.

    Args:
        algorithm: How to binarize the blocks; None for FP32.
        num_classes: Outputs.
        in_channels: Channels of the image.
        form: "cifar" or "imagenet".
        downsample: "fp32" (default) or "binary": the convolutions in the shortcuts.
        widths: Channels of each stage; the stem has those of the first.
        depths: Blocks of each stage; every stage but the first halves the resolution.

    Raises:
        ValueError: `downsample` is neither.
    """

    def __init__(
        self,
        *,
        algorithm: Algorithm | None,
        num_classes: int,
        in_channels: int,
        form: str,
        downsample: str = "fp32",
        widths: tuple[int, ...],
        depths: tuple[int, ...],
    ) -> None:
        super().__init__()
        if downsample not in ("fp32", "binary"):
            raise ValueError(f'downsample is "fp32" or "binary", not "{downsample}"')
        stem: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.Hardtanh()]
        if form == "imagenet":
            conv = nn.Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False)
            stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        else:
            conv = nn.Conv2d(in_channels, widths[0], 3, stride=1, padding=1, bias=False)
        self.stem = nn.Sequential(conv, *stem)
        stages: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks: list[nn.Module] = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(algorithm, channels, width, stride, downsample))
                channels = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → logits [N, num_classes]."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(x))).flatten(1))
        return logits


_SOURCE = "https://arxiv.org/abs/1512.03385"

ARCHITECTURES = {
    "resnet20": Architecture(
        title="ResNet-20",
        source=_SOURCE,
        make=partial(ResNet, widths=(16, 32, 64), depths=(3, 3, 3)),
        forms=("cifar",),
    ),
    "resnet18": Architecture(
        title="ResNet-18",
        source=_SOURCE,
        make=partial(ResNet, widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)),
        forms=("imagenet", "cifar"),
    ),
    "resnet34": Architecture(
        title="ResNet-34",
        source=_SOURCE,
        make=partial(ResNet, widths=(64, 128, 256, 512), depths=(3, 4, 6, 3)),
        forms=("imagenet", "cifar"),
    ),
}
