import pytest
import torch

from bibench_train import algorithms, architectures
from bibench_train.errors import UnknownNameError


@pytest.mark.parametrize("name", architectures.names())
@pytest.mark.parametrize("algorithm", ["fp32", *algorithms.names()])
def test_every_architecture_trains_one_step_with_every_algorithm(name: str, algorithm: str) -> None:
    model = architectures.build(name, algorithm=algorithm, num_classes=7, form="cifar")
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", architectures.names())
def test_weights_have_the_same_names_binarized_or_not(name: str) -> None:
    with torch.device("meta"):
        plain = architectures.build(name).state_dict()
        binary = architectures.build(name, algorithm="reactnet").state_dict()
    assert set(plain) == {key for key in binary if ".binarizer." not in key}


@pytest.mark.parametrize("name", architectures.names())
def test_first_and_last_layer_stay_float(name: str) -> None:
    model = architectures.build(name, algorithm="bnn")
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert type(layers[0]) is torch.nn.Conv2d
    assert type(layers[-1]) is torch.nn.Linear


def test_one_seed_gives_one_set_of_weights() -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(5)
        return torch.nn.utils.parameters_to_vector(architectures.build("resnet20").parameters())

    assert torch.equal(weights(), weights())


def test_an_unknown_architecture_lists_the_valid_ones() -> None:
    with pytest.raises(UnknownNameError, match=r'"resnet21" \(did you mean "resnet20"\?\)'):
        architectures.build("resnet21")


def test_a_form_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match='resnet20 has no form "imagenet"; one of: cifar'):
        architectures.build("resnet20", form="imagenet")


def test_every_architecture_has_its_source() -> None:
    for architecture in architectures.all_architectures().values():
        assert architecture.source.startswith("https://")
        assert architecture.forms
