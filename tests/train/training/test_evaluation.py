import torch
from torch import Tensor, nn

from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.training.evaluation import Accuracy, evaluate


class AlwaysClass1(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3)


def test_counts_the_images_that_are_right(tiny: ImagesInMemory) -> None:
    assert evaluate(AlwaysClass1(), tiny) == Accuracy(correct=4, images=12)


def test_the_batch_size_changes_nothing(tiny: ImagesInMemory) -> None:
    assert evaluate(AlwaysClass1(), tiny, batch_size=5) == Accuracy(correct=4, images=12)


def test_the_model_is_left_in_the_mode_it_was_in(tiny: ImagesInMemory) -> None:
    for is_training in (True, False):
        model = AlwaysClass1().train(is_training)
        evaluate(model, tiny)
        assert model.training == is_training


def test_percent_has_two_decimals() -> None:
    assert Accuracy(correct=1, images=3).percent == 33.33
