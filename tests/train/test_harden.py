from collections import Counter

import pytest
import torch
from torch import nn

from bibench_train import algorithms, architectures
from bibench_train.harden import HardBinaryConv2d, HardBinaryLayer, harden
from bibench_train.layers import BinaryLayer, binary_layers, make_conv2d, make_linear


def settle(model: nn.Module) -> nn.Module:
    """The last epoch, and batch norms and shifts as training leaves them: signs are spread."""
    torch.manual_seed(1)
    for _, layer in binary_layers(model):
        layer.binarizer.start_epoch(199, 200)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bn" in name or "shift" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.train()
        for _ in range(2):
            model(torch.randn(4, 3, 32, 32))
    return model.eval()


@pytest.mark.parametrize("algorithm", algorithms.names())
@pytest.mark.parametrize("name", ["resnet20", "vgg_small"])
def test_a_hardened_network_gives_the_same_outputs(name: str, algorithm: str) -> None:
    model = settle(architectures.build(name, algorithm=algorithm))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(harden(model)(x), model(x))


def test_every_binary_layer_is_replaced_and_the_model_is_left_as_it_was() -> None:
    model = architectures.build("resnet20", algorithm="reactnet").train()
    intended = [name for name, _ in binary_layers(model)]
    hard = harden(model)
    assert [n for n, m in hard.named_modules() if isinstance(m, HardBinaryLayer)] == intended
    assert not [m for m in hard.modules() if isinstance(m, BinaryLayer)]
    assert model.training
    assert not hard.training
    assert [name for name, _ in binary_layers(model)] == intended


def test_a_float_model_is_only_copied() -> None:
    model = architectures.build("resnet20", algorithm="fp32")
    hard = harden(model)
    assert hard is not model
    assert list(hard.state_dict()) == list(model.state_dict())


def test_a_hardened_layer_does_not_follow_its_source() -> None:
    layer = make_conv2d(algorithms.load("bireal"), 2, 2, 3)
    hard = harden(layer)
    before = hard.scale.clone()
    layer.weight.data.mul_(3)
    layer.bias.data.add_(1)
    assert torch.equal(hard.scale, before)
    assert not torch.equal(hard.bias.flatten(), layer.bias)


def test_a_binary_layer_of_an_unknown_class_is_refused() -> None:
    class Other(BinaryLayer):
        pass

    with pytest.raises(TypeError, match="0: no hard form of Other is known"):
        harden(nn.Sequential(Other()))


def test_exports_to_plain_operations_with_scalar_constants() -> None:
    layer = make_conv2d(algorithms.load("reactnet"), 4, 8, 3, padding=1)
    hard = harden(layer)
    assert isinstance(hard, HardBinaryConv2d)
    program = torch.onnx.export(
        hard,
        (torch.randn(1, 4, 8, 8),),
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    graph = program.model.graph
    operations = Counter(node.op_type for node in graph)
    for name, count in {
        "Add": 2,  # the shift and the bias
        "GreaterOrEqual": 1,
        "Where": 1,
        "Conv": 1,
        "Mul": 1,
    }.items():
        assert operations[name] == count, operations
    # What the exporter itself writes for the absent bias of a convolution; folds to zeros.
    assert set(operations) - {"Shape", "Expand", "CastLike", "Constant"} == {
        "Add",
        "GreaterOrEqual",
        "Where",
        "Conv",
        "Mul",
    }
    (where,) = [node for node in graph if node.op_type == "Where"]
    for value, expected in zip(where.inputs[1:], (1.0, -1.0), strict=True):
        constant = value.producer().attributes["value"].value.numpy()
        assert constant.shape == ()
        assert constant == expected


def test_a_layer_in_two_places_stays_one_hardened_layer() -> None:
    shared = make_linear(algorithms.load("bireal"), 4, 4)
    hard = harden(nn.Sequential(shared, nn.BatchNorm1d(4), shared))
    assert isinstance(hard, nn.Sequential)
    assert isinstance(hard[0], HardBinaryLayer)
    assert hard[2] is hard[0]
