import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import CheckpointError, UnknownNameError
from bibench_train.training import load_run, train
from bibench_train.training.checkpoint import load_init, load_resume, read_weights
from bibench_train.training.run_info import read_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: ImagesInMemory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    train(algorithm="reactnet", dataset=tiny, out=out)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def rewrite(run: Path, **changes: Any) -> None:
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_checkpoint(run: Path, content: bytes) -> None:
    (run / "checkpoint.safetensors").write_bytes(content)
    rewrite(run, checkpoint_sha256=hashlib.sha256(content).hexdigest())


def test_a_run_folder_holds_what_the_contract_says(trained: Path) -> None:
    assert {p.name for p in trained.iterdir()} == {
        "checkpoint.safetensors",
        "best.safetensors",
        "run.json",
        "metrics.csv",
        "metrics.jsonl",
        "resume.safetensors",
    }
    content = (trained / "checkpoint.safetensors").read_bytes()
    info = read_run(trained)
    assert info.checkpoint_sha256 == hashlib.sha256(content).hexdigest()
    assert info.epochs_done == info.recipe.epochs


def test_a_loaded_run_is_in_eval_mode_with_the_trained_weights(trained: Path) -> None:
    model, info = load_run(trained)
    assert not model.training
    assert info.algorithm == "reactnet"
    weights = safetensors.torch.load_file(trained / "checkpoint.safetensors")
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_checkpoint_is_never_executed(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    replace_checkpoint(run, pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_run(run)
    (run / "resume.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_resume(run)
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_fails_its_sha256(run: Path, damage: str) -> None:
    path = run / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    else:
        del content[len(content) // 2 if damage == "cut" else 0 :]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged or not the one that run\.json"):
        load_run(run)


@pytest.mark.parametrize("length", [0, 4, 8, 100, 2000])
def test_a_cut_file_whose_sha256_fits_is_damaged_all_the_same(run: Path, length: int) -> None:
    replace_checkpoint(run, (run / "checkpoint.safetensors").read_bytes()[:length])
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_run(run)
    (run / "resume.safetensors").write_bytes((run / "resume.safetensors").read_bytes()[:length])
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_resume(run)


def test_a_missing_checkpoint_is_named(run: Path) -> None:
    (run / "checkpoint.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has a run\.json but no checkpoint\.safetensors"):
        load_run(run)


def test_a_checkpoint_of_another_architecture_names_both(run: Path) -> None:
    rewrite(run, architecture="resnet18")
    with pytest.raises(
        CheckpointError, match=r"holds resnet20 \(reactnet\), not resnet18 \(reactnet\)"
    ):
        load_run(run)


def test_a_checkpoint_of_another_algorithm_names_both(run: Path) -> None:
    rewrite(run, algorithm="bnn")
    with pytest.raises(CheckpointError, match=r"holds resnet20 \(reactnet\), not resnet20 \(bnn\)"):
        load_run(run)


def test_a_checkpoint_of_other_shapes_says_which(run: Path) -> None:
    rewrite(run, num_classes=7)
    with pytest.raises(CheckpointError, match=r"head\.weight is \[3, 64\], not \[7, 64\]"):
        load_run(run)


def test_names_that_do_not_exist_here_are_said(run: Path) -> None:
    rewrite(run, algorithm="newest")
    with pytest.raises(UnknownNameError, match='unknown algorithm "newest"'):
        load_run(run)


@pytest.mark.parametrize("options", [{"form": "round"}, {"colour": "red"}])
def test_options_that_do_not_exist_here_are_said(run: Path, options: dict[str, str]) -> None:
    rewrite(run, architecture_options=options)
    with pytest.raises(CheckpointError, match="no resnet20 can be built with"):
        load_run(run)


def test_a_binarized_run_starts_from_the_weights_of_its_fp32_run(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    train(algorithm="fp32", dataset=tiny, out=tmp_path / "fp32")
    info = read_run(tmp_path / "fp32")
    twin = train(algorithm="reactnet", dataset=tiny, out=tmp_path / "b", init=tmp_path / "fp32")
    assert twin.info.init is not None
    assert twin.info.init.endswith("fp32")
    model, _ = load_run(twin.run_dir)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(0.25 if "binarizer" in name else 9.0)
    load_init(model, twin.info, tmp_path / "fp32")
    weights = read_weights(tmp_path / "fp32", info)
    for name, value in model.state_dict().items():
        if ".binarizer." in name:
            assert (value == 0.25).all()
        else:
            assert torch.equal(value, weights[name])


def test_what_another_algorithm_learned_is_left_out_of_an_init(
    tiny: ImagesInMemory, trained: Path
) -> None:
    run = train(algorithm="bnn", dataset=tiny, out=trained.parent / "from-reactnet", init=trained)
    assert not [name for name in load_run(run.run_dir)[0].state_dict() if ".binarizer." in name]


def test_an_init_of_another_architecture_names_both(
    tiny: ImagesInMemory, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"is a resnet20 \(reactnet\), but a resnet18 \(bnn"):
        train(
            architecture="resnet18",
            algorithm="bnn",
            dataset=tiny,
            out=tmp_path / "out",
            init=trained,
        )
    assert not (tmp_path / "out").exists()


def test_run_json_names_no_folder_of_this_machine(
    tiny: ImagesInMemory, trained: Path, tmp_path: Path
) -> None:
    run = train(algorithm="bnn", dataset=tiny, out=tmp_path / "a" / "b", init=trained)
    assert str(tmp_path.parent) not in (run.run_dir / "run.json").read_text()
