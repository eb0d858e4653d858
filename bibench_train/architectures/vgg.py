"""VGG-Small, the plain convolutional network of the binarization literature, for 32×32 images.

    conv 128 (FP32) → BN → Hardtanh
    binconv 128 → MaxPool → BN → Hardtanh
    binconv 256 → BN → Hardtanh → binconv 256 → MaxPool → BN → Hardtanh
    binconv 512 → BN → Hardtanh → binconv 512 → MaxPool → BN → Hardtanh
    flatten → linear 8192 → classes (FP32)

The max pool follows the 2nd, 4th and 6th convolution, before its batch norm: pooling after a
Hardtanh would mostly see values that are saturated already.

Source: Zhang et al., "LQ-Nets", 2018, https://arxiv.org/abs/1807.10029, in the form of BiBench.
"""

from __future__ import annotations

from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.architectures._architecture import Architecture
from bibench_train.layers import make_conv2d

_WIDTHS = (128, 256, 256, 512, 512)
# The 2nd, 4th and 6th convolution of the whole network, the stem being the 1st.
_IS_POOLED = (True, False, True, False, True)


class VGGSmall(nn.Module):
    """Six 3×3 convolutions, five of them binary, and one linear layer.

    Args:
        algorithm: How to binarize; None for FP32.
        num_classes: Outputs.
        in_channels: Channels of the image.
        form: "cifar"; the head takes 32×32 images only.
    """

    def __init__(
        self, *, algorithm: Algorithm | None, num_classes: int, in_channels: int, form: str
    ) -> None:
        super().__init__()
        self.form = form
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.Hardtanh(),
        ]
        channels = 128
        for width, is_pooled in zip(_WIDTHS, _IS_POOLED, strict=True):
            layers.append(make_conv2d(algorithm, channels, width, 3, padding=1, bias=False))
            if is_pooled:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(width), nn.Hardtanh()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels * 4 * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 32, 32] → logits [N, num_classes]."""
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


ARCHITECTURES = {
    "vgg_small": Architecture(
        title="VGG-Small",
        source="https://arxiv.org/abs/1807.10029",
        make=VGGSmall,
        image_size=32,
        forms=("cifar",),
    ),
}
