import json

import numpy as np
import pytest

from bibench_deploy.targets._target import WriteOptions

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)


@pytest.fixture
def dab(networks, bibench):
    assert bibench("export", "clean.onnx", "--target", "dabnn").exit_code == 0
    return networks / "out" / "clean-dabnn"


def test_a_dab_file_is_shown_layer_by_layer(dab, bibench, snapshot) -> None:
    done = bibench("inspect", dab / "model.dab")
    assert done.exit_code == 0
    assert done.stdout.replace(str(dab), "out") == snapshot


def test_a_folder_of_export_is_its_model_file(dab, bibench) -> None:
    file, folder = bibench("inspect", dab / "model.dab"), bibench("inspect", dab)
    assert folder.stdout.splitlines()[1:] == file.stdout.splitlines()[1:]


def test_json_is_all_of_stdout(dab, bibench) -> None:
    found = json.loads(bibench("inspect", dab / "model.dab", "--json").stdout)
    assert found["format"] == "daBNN, version 2"
    assert found["size_bytes"] == (dab / "model.dab").stat().st_size
    assert (found["binary_layers"], found["binary_bytes"]) == (1, 8 * 16)
    (layer,) = [item for item in found["layers"] if item["is_binary"]]
    assert layer["operator"] == "BinConv2D"
    assert layer["weight"] == [8, 3, 3, 4]
    assert (layer["bits"], layer["inputs"], layer["outputs"]) == (1, [[1, 8, 8, 4]], [[1, 6, 6, 8]])


def test_an_onnx_file_names_its_binary_layers(networks, bibench, snapshot) -> None:
    done = bibench("inspect", "clean.onnx")
    assert done.exit_code == 0
    assert done.stdout == snapshot


def test_a_tflite_file_has_its_paddings(small_tflite_models, bibench) -> None:
    done = bibench("inspect", small_tflite_models / "binary.tflite", "--json")
    layers = {layer["operator"]: layer for layer in json.loads(done.stdout)["layers"]}
    binary = layers["LceBconv2d"]
    assert (binary["padding"], binary["bits"], binary["is_binary"]) == ("SAME of 0", 1, True)
    assert (layers["CONV_2D"]["padding"], layers["CONV_2D"]["bits"]) == ("SAME", 32)
    assert binary["size_bytes"] >= 32 * 9 * 4


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.dab", "no such file or folder"),
        ("none.onnx", "no such file"),
        ("words.txt", "no model file that bibench reads; name one of .dab, .onnx, .tflite"),
        ("words.dab", "not a daBNN model, or a damaged one"),
        ("words.tflite", "not a TensorFlow Lite model"),
        ("words.onnx", "not an ONNX file"),
        (".", "no readable manifest.json"),
    ],
)
def test_what_is_no_model_file_is_one_line(file, message, networks, bibench) -> None:
    for suffix in ("txt", "dab", "tflite", "onnx"):
        (networks / f"words.{suffix}").write_text("these are words, not a model of any kind")
    done = bibench("inspect", file)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_of_padding_reach_the_file(networks, bibench, make_proto) -> None:
    import onnx

    proto = make_proto(
        """g (float[1,4,8,8] x) => (y) { g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)
            y = Conv<pads=[1,1,1,1]>(s, w) }""",
        w=SIGNS, zero=0.0, one=1.0, minus=-1.0,
    )  # fmt: skip
    onnx.save(proto, networks / "padded.onnx")
    refused = bibench("export", "padded.onnx", "--target", "dabnn")
    assert refused.exit_code == 2
    assert "BIB301" in refused.stderr
    assert not (networks / "out").exists()
    for padding, words in (
        ("exact", "zeros kept by a constant at the border of 1 layers: 2.0 kB and 512 additions"),
        ("minus-one", "−1 in place of zeros, so the outputs are others than the source's: "),
    ):
        done = bibench("export", "padded.onnx", "--target", "dabnn", "--padding", padding)
        assert done.exit_code == 0, done.stderr
        assert words in done.stdout
    manifest = json.loads((networks / "out" / "padded-dabnn" / "manifest.json").read_text())
    assert manifest["options"] == WriteOptions(padding="minus-one").to_json()
