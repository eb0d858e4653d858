import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_deploy.errors import GraphError, MissingExtraError, SourceError
from bibench_deploy.export.pipeline import write_onnx
from bibench_deploy.export.source import (
    Source,
    from_module,
    latest_run,
    resolve_source,
    with_test_set,
)
from bibench_train.errors import CheckpointError

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "digits-resnet20-reactnet"
SHAPE = (1, 3, 32, 32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a copy of a run in runs/ and of a model in models/."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODEL, tmp_path / "runs" / "resnet20-reactnet-digits")
    shutil.copytree(MODEL, tmp_path / "models" / MODEL.name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def module(here, request):
    """module(text): networks.py in the current folder; gives its name, which is new each time."""

    def write(text: str) -> str:
        name = f"networks_{abs(hash(request.node.name))}"
        (here / f"{name}.py").write_text(text)
        request.addfinalizer(lambda: sys.modules.pop(name, None))
        return name

    return write


NETWORK = "import torch\ndef make():\n    return torch.nn.Conv2d(3, 4, 1)\nready = make()\n"


@pytest.mark.parametrize("text", ["runs/resnet20-reactnet-digits", f"models/{MODEL.name}"])
def test_a_run_folder_gives_its_network_and_facts(text, here) -> None:
    source = resolve_source(text)
    info = json.loads((MODEL / "run.json").read_text())
    assert (source.kind, source.name) == ("run", info["name"])
    assert source.input_shape == (3, 32, 32)
    facts = source.facts
    assert (facts["architecture"], facts["algorithm"]) == ("resnet20", "reactnet")
    assert facts["accuracy"] == info["accuracy"]["percent"]
    assert facts["trained"] is True
    assert source.model(torch.zeros(SHAPE)).shape == (1, 10)


def test_a_run_on_packaged_data_brings_its_held_out_images(here) -> None:
    images, labels = resolve_source(f"models/{MODEL.name}").test_set()
    assert (images.shape, labels.shape) == ((360, 3, 32, 32), (360,))


def test_an_onnx_file_is_a_source_by_its_name(here) -> None:
    (here / "net.onnx").write_bytes(b"anything")
    source = resolve_source("net.onnx")
    assert (source.kind, source.name, source.onnx_path) == ("onnx", "net", Path("net.onnx"))


@pytest.mark.parametrize("attribute", ["make", "ready", "make.__call__"])
def test_a_callable_or_a_module_of_the_current_folder_is_a_source(attribute, module) -> None:
    name = module(NETWORK)
    source = resolve_source(f"{name}:{attribute}", (1, 3, 8, 8))
    assert (source.kind, source.input_shape) == ("callable", (3, 8, 8))
    assert source.model(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)
    assert source.facts["trained"] is None


def test_a_callable_without_an_input_shape_says_which_option_to_give(module) -> None:
    name = module(NETWORK)
    with pytest.raises(SourceError, match=r"how large its input is, such as --input-shape 1,3,"):
        resolve_source(f"{name}:make")


FAULTY = {
    "absent": ("AttributeError", "absent"),
    "raises": ("ZeroDivisionError", "division by zero"),
    "number": ("TypeError", "not callable"),
    "text": ("gives a str, not a torch.nn.Module", ""),
    "needs": ("TypeError", "missing 1 required positional argument"),
    "leaves": ("SystemExit", "no network today"),
}


@pytest.mark.parametrize("attribute", FAULTY)
def test_a_callable_that_gives_no_module_is_told_in_one_line(attribute, module) -> None:
    name = module(
        "number = 3\ndef raises(): 1 / 0\ndef text(): return 'net'\ndef needs(argument): ...\n"
        "def leaves(): raise SystemExit('no network today')\n"
    )
    with pytest.raises(SourceError) as raised:
        resolve_source(f"{name}:{attribute}", (1, 3, 8, 8))
    for words in FAULTY[attribute]:
        assert words in str(raised.value)


def test_what_the_users_code_prints_goes_to_stderr(module, capsys) -> None:
    name = module(
        f"print('imported')\n{NETWORK}\ndef loud():\n    print('made')\n    return make()\n"
    )
    resolve_source(f"{name}:loud", (1, 3, 8, 8))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "imported\nmade\n")


@pytest.mark.parametrize("text", ["def broken(:\n", "import nothing_of_that_name\n", "1 / 0\n"])
def test_a_module_that_cannot_be_imported_is_told(text, module) -> None:
    name = module(text)
    with pytest.raises(SourceError, match=rf"{name}:make: (SyntaxError|ModuleNotFoundError|ZeroD)"):
        resolve_source(f"{name}:make", (1, 3, 8, 8))


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("runs/resnet20-reactnt-digits", "runs/resnet20-reactnet-digits"),
        ("resnet20-reactnet-digits", "runs/resnet20-reactnet-digits"),
        ("models/digits-resnet20-reactne", f"models/{MODEL.name}"),
        ("run", "runs"),
    ],
)
def test_a_missing_source_names_the_nearest_match(text, near, here) -> None:
    with pytest.raises(SourceError) as raised:
        resolve_source(text)
    message = str(raised.value)
    assert message.startswith(f"{text}: no such source; name a run folder, models/<name>, an .onnx")
    assert f'The nearest match is "{near}"' in message


def test_a_missing_source_like_nothing_here_says_so(here) -> None:
    with pytest.raises(SourceError, match=r"Nothing in \. has a name like it"):
        resolve_source("zzzzzzzzzzz")


def test_a_missing_onnx_file_names_the_nearest_match(here) -> None:
    (here / "network.onnx").write_bytes(b"")
    with pytest.raises(SourceError, match=r'netwrk\.onnx: no such file; The nearest match is "net'):
        resolve_source("netwrk.onnx")


def test_a_file_of_no_form_is_not_its_own_nearest_match(here) -> None:
    (here / "network.txt").write_bytes(b"")
    with pytest.raises(SourceError, match=r"network\.txt: no such source") as raised:
        resolve_source("network.txt")
    assert 'match is "network.txt"' not in str(raised.value)


def test_a_folder_called_as_an_onnx_file_is_told_as_a_folder(here) -> None:
    (here / "net.onnx").mkdir()
    with pytest.raises(
        SourceError, match=r"^net\.onnx: a folder, not a file; name the \.onnx file"
    ):
        resolve_source("net.onnx")


def test_a_folder_without_run_json_is_no_run(here) -> None:
    with pytest.raises(SourceError, match=r"models: a folder without run\.json, so no run"):
        resolve_source("models")


def test_a_file_of_another_kind_is_no_source(here) -> None:
    (here / "net.pt").write_bytes(b"")
    with pytest.raises(SourceError, match=r"net\.pt: no such source; name a run folder"):
        resolve_source("net.pt")


def damage_json(run: Path) -> None:
    (run / "run.json").write_text("{")


def damage_weights(run: Path) -> None:
    (run / "checkpoint.safetensors").write_bytes(b"\0" * 1000)


def lose_weights(run: Path) -> None:
    (run / "checkpoint.safetensors").unlink()


def claim_another_architecture(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"architecture": "vgg_small"}))


@pytest.mark.parametrize(
    "damage", [damage_json, damage_weights, lose_weights, claim_another_architecture]
)
def test_a_damaged_run_is_told(damage, here) -> None:
    damage(here / "runs" / "resnet20-reactnet-digits")
    with pytest.raises(CheckpointError):
        resolve_source("runs/resnet20-reactnet-digits")


def test_a_damaged_onnx_file_is_told_when_it_is_written(here) -> None:
    (here / "net.onnx").write_bytes(b"no model")
    with pytest.raises(GraphError, match=r"net\.onnx: not an ONNX"):
        write_onnx(resolve_source("net.onnx"), here / "copy.onnx")
    assert not (here / "copy.onnx").exists()


def test_the_latest_run_is_the_one_written_last(here) -> None:
    shutil.copytree(here / "runs" / "resnet20-reactnet-digits", here / "runs" / "a-newer-one")
    os.utime(here / "runs" / "resnet20-reactnet-digits" / "run.json", (10, 10))
    os.utime(here / "runs" / "a-newer-one" / "run.json", (20, 20))
    assert latest_run() == Path("runs/a-newer-one")
    os.utime(here / "runs" / "resnet20-reactnet-digits" / "run.json", (30, 30))
    assert latest_run() == Path("runs/resnet20-reactnet-digits")


def test_without_any_run_it_says_how_to_get_one(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"no run in \./runs; .* or train one: bibench train"):
        latest_run()


@pytest.mark.parametrize("text", [f"models/{MODEL.name}", "networks:make"])
def test_without_torch_an_onnx_file_still_is_a_source(text, here, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'"\.\[train\]"'):
        resolve_source(text, (1, 3, 8, 8))
    (here / "net.onnx").write_bytes(b"")
    assert resolve_source("net.onnx").kind == "onnx"


def test_a_module_at_hand_is_a_source() -> None:
    module = torch.nn.ReLU()
    source = from_module(module, (1, 3, 8, 8), "relu")
    assert (source.model, source.name, source.input_shape) == (module, "relu", (3, 8, 8))


HUGE = (1, 3, 5_000_000, 5_000_000)


def test_an_input_beyond_what_can_be_run_is_refused_before_anything_is_run() -> None:
    words = r"an input of \[1, 3, 5000000, 5000000\] is beyond what can be run; name the shape"
    with pytest.raises(SourceError, match=f"^networks:make: {words}"):
        resolve_source("networks:make", HUGE)
    with pytest.raises(SourceError, match=f"^relu: {words}"):
        from_module(torch.nn.ReLU(), HUGE, "relu")


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


IMAGES = np.zeros((3, 4, 8, 8), np.float32)


def test_held_out_images_come_from_a_file(tmp_path) -> None:
    images = np.random.default_rng(0).standard_normal((3, 4, 8, 8))
    path = npz(tmp_path / "test.npz", images=images, labels=np.uint8([0, 1, 2]))
    source = with_test_set(Source("onnx", "net", {}), path)
    found, labels = source.test_set()
    assert (found.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(found, images.astype(np.float32))
    np.testing.assert_array_equal(labels, [0, 1, 2])


@pytest.mark.parametrize("shape", [(3, 4, 40), (3, 64)])
def test_held_out_rows_and_vectors_come_from_a_file_too(shape, tmp_path) -> None:
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path = npz(tmp_path / "test.npz", images=images, labels=np.uint8([0, 1, 2]))
    found, _ = with_test_set(Source("onnx", "net", {}), path).test_set()
    np.testing.assert_array_equal(found, images)


BAD_FILES = {
    "no labels": ({"images": IMAGES}, "labels is not a file in the archive"),
    "bytes": (
        {"images": IMAGES.astype(np.uint8), "labels": np.zeros(3, int)},
        r"images are uint8 \[3, 4, 8, 8\]; give float \[N, C, H, W\], \[N, C, L\] or \[N, C\]",
    ),
    "a video": ({"images": IMAGES[None], "labels": [0]}, r"float32 \[1, 3, 4, 8, 8\]"),
    "no images": ({"images": IMAGES[:0], "labels": np.zeros(0, int)}, r"float32 \[0, 4, 8, 8\]"),
    "too few labels": (
        {"images": IMAGES, "labels": np.zeros(2, int)}, "one whole number for each of the 3 images",
    ),
    "float labels": ({"images": IMAGES, "labels": np.zeros(3)}, r"labels are float64 \[3\]"),
    "objects": (
        {"images": np.array([None] * 3, object), "labels": np.zeros(3, int)}, "no .npz file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_of_other_arrays_is_named_with_what_it_should_hold(case, tmp_path) -> None:
    arrays, words = BAD_FILES[case]
    path = npz(tmp_path / "test.npz", **arrays)
    with pytest.raises(SourceError, match=words) as raised:
        with_test_set(Source("onnx", "net", {}), path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 and then nothing", b"text"])
def test_what_is_no_npz_file_is_one_error_of_ours(content, tmp_path) -> None:
    path = tmp_path / "test.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"no \.npz file of images and labels"):
        with_test_set(Source("onnx", "net", {}), path)


def test_one_array_alone_is_no_npz_file(tmp_path) -> None:
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(SourceError, match=r"no \.npz file"):
        with_test_set(Source("onnx", "net", {}), tmp_path / "one.npy")
