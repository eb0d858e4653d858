"""Every plug-in has its row in docs/, and the row says what the code says."""

from pathlib import Path

import pytest
import torch

from bibench_train import algorithms, architectures, datasets
from bibench_train.layers import binary_layers

DOCS = Path(__file__).parents[2] / "docs"


def rows(name: str) -> dict[str, str]:
    lines = (DOCS / name).read_text().splitlines()
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def test_every_algorithm_has_its_row_with_its_source() -> None:
    found = rows("algorithms.md")
    assert set(found) == set(algorithms.names())
    for name, row in found.items():
        algorithm = algorithms.load(name)
        assert algorithm is not None
        assert f"[{algorithm.title}, " in row
        assert f"({algorithm.source})" in row


def test_every_data_set_has_its_row() -> None:
    assert set(rows("datasets.md")) == set(datasets.names())


def test_every_architecture_has_its_row() -> None:
    assert set(rows("architectures.md")) == set(architectures.names())


@pytest.mark.parametrize(("name", "row"), rows("architectures.md").items())
def test_the_counts_of_an_architecture_are_those_of_the_code(name: str, row: str) -> None:
    classes = 1000 if "1000 classes" in row else 10
    with torch.device("meta"):
        model = architectures.build(name, algorithm="bnn", num_classes=classes)
    architecture = architectures.load(name)
    assert f"({architecture.source})" in row
    assert f"| {', '.join(architecture.forms)} |" in row
    assert f"| {sum(p.numel() for p in model.parameters()):,} " in row
    assert f"| {sum(layer.weight.numel() for _, layer in binary_layers(model)):,} |" in row


@pytest.mark.parametrize("name", algorithms.names())
def test_an_algorithm_opens_with_its_formulas_and_shows_numbers(name: str) -> None:
    import importlib

    text = importlib.import_module(f"bibench_train.algorithms.{name}").__doc__
    assert text is not None
    for part in ("forward ", "gradient ", "inference ", "https://", "Differs from", ">>> "):
        assert part in text, part
