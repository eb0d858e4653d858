"""The slots that stateful algorithms fill: shown with made-up algorithms."""

import pytest
import torch
from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, LayerShape, stage_of
from bibench_train.errors import NotBinaryError
from bibench_train.harden import harden
from bibench_train.layers import BinaryConv2d, BinaryLinear
from bibench_train.ops.estimators import sign_clipped_ste
from bibench_train.training.loop import penalty, start_epoch


class Annealed(Binarizer):
    """Weights that become binary only in the last epoch, a dynamic scale, a penalty."""

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.register_buffer("softness", torch.tensor(1.0))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.softness.fill_(1 - (epoch + 1) / epochs)

    def binarize_weight(self, weight: Tensor) -> Tensor:
        return super().binarize_weight(weight) * (1 - self.softness) + weight * self.softness

    def rescale(self, output: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return output * x.abs().mean()

    def penalty(self, weight: Tensor) -> Tensor:
        return (1 - weight.square()).square().mean()


ANNEALED = Algorithm(
    title="Annealed",
    source="https://example.org",
    binarize_input=sign_clipped_ste,
    binarize_weight=sign_clipped_ste,
    binarizer=Annealed,
)
PLAIN = Algorithm(
    title="Plain",
    source="https://example.org",
    binarize_input=sign_clipped_ste,
    binarize_weight=sign_clipped_ste,
)


def test_layer_shape_gives_the_weight_shape() -> None:
    shape = LayerShape(8, 4, (3, 5), groups=2)
    assert shape.weight_shape == (4, 4, 3, 5)
    assert BinaryConv2d(PLAIN, 8, 4, (3, 5), groups=2).binarizer.shape.weight_shape == (4, 4, 3, 5)


def test_schedules_move_through_the_epoch_hook_and_are_stored() -> None:
    model = nn.Sequential(BinaryLinear(ANNEALED, 4, 2))
    assert model.state_dict()["0.binarizer.softness"] == 1.0
    start_epoch(model, 0, 4)
    assert model.state_dict()["0.binarizer.softness"] == 0.75


def test_hardening_before_the_schedule_ends_is_refused() -> None:
    model = nn.Sequential(BinaryLinear(ANNEALED, 4, 2))
    with pytest.raises(NotBinaryError, match=r"0: Annealed: 100% .* are not -1 or \+1 yet"):
        harden(model)
    start_epoch(model, 3, 4)
    assert set(harden(model)[0].weight.unique().tolist()) <= {-1.0, 1.0}


def test_a_scale_may_depend_on_the_input() -> None:
    layer = BinaryLinear(ANNEALED, 4, 2, bias=False)
    x = torch.rand(3, 4)
    torch.testing.assert_close(layer(2 * x), 2 * layer(x))


def test_penalties_are_summed_over_the_layers_and_reach_the_weights() -> None:
    model = nn.Sequential(BinaryLinear(ANNEALED, 4, 2), BinaryLinear(ANNEALED, 2, 2))
    total = penalty(model)
    assert isinstance(total, Tensor)
    total.backward()
    assert all(layer.weight.grad is not None for layer in model)


def test_without_penalties_nothing_is_added_to_the_loss() -> None:
    assert penalty(nn.Sequential(BinaryLinear(PLAIN, 4, 2), nn.Linear(2, 2))) == 0.0


@pytest.mark.parametrize("epochs", range(1, 9))
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_come_in_order_and_the_last_epoch_is_in_the_last_one(
    epochs: int, stages: int
) -> None:
    found = [stage_of(epoch, epochs, stages) for epoch in range(epochs)]
    assert found == sorted(found)
    assert found[-1] == stages - 1
    if epochs >= stages:
        assert set(found) == set(range(stages))


@pytest.mark.parametrize(("epochs", "first"), [(200, 100), (5, 3), (2, 1), (1, 0)])
def test_the_second_of_two_stages_begins_at_half_the_epochs_rounded_up(
    epochs: int, first: int
) -> None:
    assert [stage_of(epoch, epochs, 2) for epoch in range(epochs)].index(1) == first
