import pytest
import torch
from torch import nn

from bibench_train import algorithms
from bibench_train.layers import make_conv2d
from bibench_train.training.optimizer import make_optimizer
from bibench_train.training.recipe import Recipe


def small_network() -> nn.Module:
    torch.manual_seed(0)
    conv = make_conv2d(algorithms.load("reactnet"), 2, 3, 3)
    return nn.Sequential(conv, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_the_name_gives_torchs_optimizer_over_every_parameter(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    model = small_network()
    optimizer = make_optimizer(model, Recipe(optimizer=name, learning_rate=0.25))
    assert type(optimizer) is kind
    found = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in found} == {id(p) for p in model.parameters()}
    assert len(found) == len(list(model.parameters()))
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


def test_weight_decay_pulls_weights_alone() -> None:
    model = small_network()
    optimizer = make_optimizer(
        model, Recipe(optimizer="sgd", learning_rate=0.5, weight_decay=0.5, momentum=0.0)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if p.flatten()[0] == 0.75}
    assert moved == {"0.weight", "3.weight"}
    assert all(p.eq(1.0).all() for name, p in model.named_parameters() if name not in moved)


def test_the_momentum_is_the_recipes() -> None:
    optimizer = make_optimizer(small_network(), Recipe(optimizer="sgd", momentum=0.5))
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}
