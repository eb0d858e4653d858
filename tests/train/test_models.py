"""The shipped networks keep what their cards promise."""

import hashlib
import re
from pathlib import Path

import pytest
import tomlkit

from bibench_train import datasets
from bibench_train.harden import harden
from bibench_train.training import evaluate, load_run, read_run

MODELS = Path(__file__).parents[2] / "models"
CARDS = sorted(MODELS.glob("*/model.toml"))


def test_the_three_networks_are_there_and_small() -> None:
    assert {card.parent.name for card in CARDS} >= {
        "digits-resnet20-fp32",
        "digits-resnet20-bnn",
        "digits-resnet20-reactnet",
    }
    files = [path for card in CARDS for path in card.parent.iterdir()]
    assert {path.name for path in files} == {"checkpoint.safetensors", "run.json", "model.toml"}
    assert sum(path.stat().st_size for path in files) < 4_000_000


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_a_card_says_what_its_files_say(card: Path) -> None:
    said = tomlkit.parse(card.read_text()).unwrap()
    info = read_run(card.parent)
    assert said["name"] == info.name == card.parent.name
    assert (said["architecture"], said["algorithm"]) == (info.architecture, info.algorithm)
    assert said["data"]["name"] == info.dataset
    assert info.accuracy is not None
    assert said["accuracy"]["percent"] == info.accuracy.percent
    assert said["accuracy"]["correct"] == info.accuracy.correct
    content = (card.parent / said["checkpoint"]["file"]).read_bytes()
    assert said["checkpoint"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert said["checkpoint"]["size_bytes"] == len(content)
    assert said["licence"] == "Apache-2.0"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_no_file_names_a_folder_of_a_machine(card: Path) -> None:
    for name in ("model.toml", "run.json"):
        text = (card.parent / name).read_text()
        assert not re.search(r'"/|\\\\|/(home|root|tmp|work|Users)/', text)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_the_accuracy_is_measured_again_hardened_too(card: Path) -> None:
    model, info = load_run(card.parent)
    dataset = datasets.load(info.dataset)
    assert info.accuracy is not None
    assert info.accuracy.percent >= 95
    # Another CPU may sum floats in another order and tip an image that is on the fence.
    for network in (model, harden(model)):
        assert abs(evaluate(network, dataset).correct - info.accuracy.correct) <= 1
