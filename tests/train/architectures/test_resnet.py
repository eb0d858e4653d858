from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bibench_train import architectures
from bibench_train.architectures.resnet import BasicBlock
from bibench_train.layers import BinaryConv2d, binary_layers


def count_macs(model: nn.Module, size: int) -> tuple[int, int]:
    """Multiply-accumulates of all layers, and of the binary ones."""
    counts = [0, 0]

    def count(layer: Any, _: Any, output: Tensor) -> None:
        macs = layer.weight[0].numel() * output.numel()
        counts[0] += macs
        counts[1] += macs if isinstance(layer, BinaryConv2d) else 0

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model.eval()(torch.zeros(1, 3, size, size, device="meta"))
    return counts[0], counts[1]


def test_resnet18_has_the_counts_of_the_complexity_table() -> None:
    with torch.device("meta"):
        model = architectures.build(
            "resnet18", algorithm="bnn", num_classes=1000, downsample="binary"
        )
    assert sum(p.numel() for p in model.parameters()) == 11_689_512
    assert sum(layer.weight.numel() for _, layer in binary_layers(model)) == 11_157_504
    assert count_macs(model, 224) == (1_814_073_344, 1_695_547_392)


def test_resnet34_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        model = architectures.build("resnet34", num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 21_797_672


def test_resnet20_has_a_stem_of_16_channels_and_three_stages() -> None:
    model = architectures.build("resnet20", algorithm="bnn")
    assert sum(p.numel() for p in model.parameters()) == 272_474
    assert [layer.weight.shape[0] for _, layer in binary_layers(model)] == (
        [16] * 6 + [32] * 6 + [64] * 6
    )


@pytest.mark.parametrize(("form", "size"), [("cifar", 4), ("imagenet", 1)])
def test_the_form_decides_the_resolution(form: str, size: int) -> None:
    model = architectures.build("resnet18", form=form).eval()
    features = nn.Sequential(model.get_submodule("stem"), model.get_submodule("stages"))
    assert features(torch.randn(1, 3, 32, 32)).shape == (1, 512, size, size)


def test_shortcut_convolutions_are_float_unless_asked() -> None:
    def binary_shortcuts(**options: str) -> int:
        model = architectures.build("resnet20", algorithm="bnn", **options)
        return len([name for name, _ in binary_layers(model) if "shortcut" in name])

    assert binary_shortcuts() == 0
    assert binary_shortcuts(downsample="binary") == 2
    with pytest.raises(ValueError, match='"fp32" or "binary", not "none"'):
        binary_shortcuts(downsample="none")


def test_the_shortcut_spans_both_convolutions() -> None:
    block = BasicBlock(None, 8, 8, 1, "fp32")
    nn.init.zeros_(block.bn2.weight)
    x = torch.empty(1, 8, 4, 4).uniform_(-1, 1)
    torch.testing.assert_close(block(x), x)


def test_outputs_of_a_block_are_within_the_hardtanh() -> None:
    output = BasicBlock(None, 8, 16, 2, "fp32")(10 * torch.randn(2, 8, 4, 4))
    assert output.abs().max() <= 1
