import subprocess
import sys

import pytest

from bibench_train import datasets
from bibench_train.errors import UnknownNameError


def test_the_files_of_the_folder_are_the_names() -> None:
    assert set(datasets.names()) >= {"cifar10", "digits", "image_folder"}


def test_an_unknown_data_set_lists_the_valid_ones() -> None:
    with pytest.raises(UnknownNameError, match=r'"cifar100" \(did you mean "cifar10"\?\)'):
        datasets.load("cifar100")


@pytest.mark.parametrize("name", [n for n in datasets.__all__ if n[0].isupper()])
def test_the_classes_for_own_data_are_names_of_the_package(name: str) -> None:
    assert getattr(datasets, name).__name__ == name


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TorchDatasets'"):
        _ = datasets.TorchDatasets


def test_the_names_import_no_torch_and_no_pillow() -> None:
    code = (
        "import sys; from bibench_train import datasets; datasets.check('image_folder'); "
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
