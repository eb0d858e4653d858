import pytest

from bibench_train import datasets
from bibench_train.errors import UnknownNameError


def test_the_files_of_the_folder_are_the_names() -> None:
    assert set(datasets.names()) >= {"cifar10", "digits"}


def test_an_unknown_data_set_lists_the_valid_ones() -> None:
    with pytest.raises(UnknownNameError, match=r'"cifar100" \(did you mean "cifar10"\?\)'):
        datasets.load("cifar100")
