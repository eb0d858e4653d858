import pytest

from bibench_train import algorithms
from bibench_train.errors import UnknownNameError


def test_the_files_of_the_folder_are_the_names() -> None:
    assert {"bireal", "bnn", "reactnet"} <= set(algorithms.names())


def test_files_with_an_underscore_are_no_algorithms() -> None:
    assert not [name for name in algorithms.names() if name.startswith("_")]


def test_fp32_is_valid_and_stands_for_no_algorithm() -> None:
    assert algorithms.load("fp32") is None


def test_an_unknown_name_lists_fp32_and_every_algorithm() -> None:
    with pytest.raises(UnknownNameError, match='unknown algorithm "bnnn"') as raised:
        algorithms.load("bnnn")
    assert str(raised.value).endswith(f"one of: {', '.join(['fp32', *algorithms.names()])}")
