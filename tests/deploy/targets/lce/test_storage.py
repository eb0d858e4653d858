"""Smaller storage, of the real converter's files, in LCE's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.run_model import load_interpreter
from bibench_deploy.targets.lce.storage import LEAST_BYTES

RNG = np.random.default_rng(31)
NETWORK = """g (float[1,8,8,8] x) => (y) {
    [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    s = Sign(a)  [middle] b = Conv<pads=[1,1,1,1]>(s, w2)
    c = BatchNormalization(b, scale, beta, mean, variance)
    [point] d = Conv(c, w3)
    p = GlobalAveragePool(d)  f = Flatten(p)  [head] y = Gemm<transB=1>(f, w4, b4) }"""
# Per channel numbers of LceBconv2d are above the limit too, and still must stay.
CHANNELS = 160
WEIGHTS = {
    "w1": RNG.standard_normal((CHANNELS, 8, 3, 3)), "b1": RNG.standard_normal(CHANNELS),
    "w2": np.where(RNG.standard_normal((CHANNELS, CHANNELS, 3, 3)) >= 0, 1.0, -1.0),
    "scale": RNG.uniform(0.5, 2, CHANNELS), "beta": RNG.standard_normal(CHANNELS),
    "mean": RNG.standard_normal(CHANNELS), "variance": RNG.uniform(0.5, 2, CHANNELS),
    "w3": RNG.standard_normal((40, CHANNELS, 1, 1)),
    "w4": RNG.standard_normal((10, 40)), "b4": RNG.standard_normal(10),
}  # fmt: skip
FORMS = {
    "float32": WriteOptions(),
    "int8": WriteOptions(fully_connected="int8"),
    "float16": WriteOptions(float_storage="float16"),
    "both": WriteOptions(fully_connected="int8", float_storage="float16"),
}


@pytest.fixture(scope="module")
def files(make_graph, lce_writer, tmp_path_factory):
    """Name of a form → content of the file that is stored in it; `exact` is as converted."""
    folder = tmp_path_factory.mktemp("storage")
    written = lce_writer.write(TARGET.lower(make_graph(NETWORK, **WEIGHTS)), folder)
    path = written.files["model"]
    exact = path.read_bytes()
    found = {"exact": exact}
    for name, options in FORMS.items():
        path.write_bytes(exact)
        written.store_smaller(options)
        found[name] = path.read_bytes()
    return found


def parsed(content: bytes, tmp_path):
    (tmp_path / "model.tflite").write_bytes(content)
    return read_tflite(tmp_path / "model.tflite")


def outputs_of(content: bytes, **options) -> np.ndarray:
    interpreter = load_interpreter(content, **options)
    inputs = np.random.default_rng(1).standard_normal((4, 1, 8, 8, 8)).astype(np.float32)
    return np.concatenate([interpreter.predict([x])[0] for x in inputs])


def test_a_file_that_keeps_its_bits_computes_the_same_and_is_no_larger(files) -> None:
    np.testing.assert_array_equal(outputs_of(files["float32"]), outputs_of(files["exact"]))
    assert len(files["float32"]) <= len(files["exact"]) + 64


def test_each_form_is_smaller_by_what_its_weights_save(files) -> None:
    saved = {name: len(files["exact"]) - len(content) for name, content in files.items()}
    head, stem, point = 10 * 40, CHANNELS * 72 + CHANNELS, 40 * CHANNELS
    assert 3 * head - 200 < saved["int8"] <= 3 * head + 64
    assert 2 * (head + stem + point) - 1000 < saved["float16"] <= 2 * (head + stem + point) + 64
    assert saved["both"] > saved["float16"]


def test_the_operators_stay_in_order_behind_what_decodes_constants(files, tmp_path) -> None:
    exact = [node.name for node in parsed(files["exact"], tmp_path).operators]
    for name in FORMS:
        names = [node.name for node in parsed(files[name], tmp_path).operators]
        decoded = names.count("DEQUANTIZE")
        assert names == ["DEQUANTIZE"] * decoded + exact
        assert (decoded > 0) == ("float16" in FORMS[name].float_storage)


def test_binary_filters_multipliers_and_biases_stay_byte_for_byte(files, tmp_path) -> None:
    def operands(content: bytes) -> list[bytes]:
        file = parsed(content, tmp_path)
        (node,) = (node for node in file.operators if node.name == "LceBconv2d")
        return [file.tensors[index].data for index in node.inputs[1:] if index >= 0]

    exact = operands(files["exact"])
    assert len(exact[0]) == CHANNELS * 9 * CHANNELS // 8
    assert len(exact[1]) >= 512
    for name in FORMS:
        assert operands(files[name]) == exact


@pytest.mark.parametrize("use_xnnpack", [True, False])
def test_float16_computes_what_weights_rounded_to_half_precision_do(
    use_xnnpack, files, lce_writer, make_graph, tmp_path
) -> None:
    # The converter folds nothing into these weights, so they are the file's own constants.
    large = ("w1", "b1", "w3", "w4")
    rounded = {
        name: np.float32(weight).astype(np.float16).astype(np.float32) if name in large else weight
        for name, weight in WEIGHTS.items()
    }
    written = lce_writer.write(TARGET.lower(make_graph(NETWORK, **rounded)), tmp_path)
    expected = outputs_of(written.files["model"].read_bytes(), use_xnnpack=use_xnnpack)
    np.testing.assert_array_equal(outputs_of(files["float16"], use_xnnpack=use_xnnpack), expected)
    assert (outputs_of(files["exact"], use_xnnpack=use_xnnpack) != expected).any()


def test_int8_is_off_by_less_than_eight_bits_round(files) -> None:
    exact, smaller = outputs_of(files["exact"]), outputs_of(files["int8"])
    error = np.abs(smaller - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.03


def test_every_kernel_and_delegate_runs_each_form_alike(files) -> None:
    for name in FORMS:
        expected = outputs_of(files[name])
        scale = np.abs(expected).max()
        for options in ({"kernel": "default"}, {"kernel": "reference"}, {"use_xnnpack": False}):
            difference = np.abs(outputs_of(files[name], **options) - expected).max()
            # int8 rounds its input: another order of sums may move that by one step.
            assert difference / scale < (0.01 if "int8" in FORMS[name].fully_connected else 1e-5)


# The schema's own classes read the file: TensorFlow, so in a process of its own.
_OPTIONS = """
import json, sys

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

found = []
for path in sys.argv[1:]:
    content = open(path, "rb").read()
    assert content[4:8] == b"TFL3"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    custom = [
        (model.operatorCodes[node.opcodeIndex].customCode.decode(), bytes(node.customOptions).hex())
        for node in graph.operators if node.customOptions is not None
    ]
    packed = schema.Model.GetRootAs(content, 0)
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    places = [
        packed.Buffers(index).DataAsNumpy().__array_interface__["data"][0] - start
        for index in range(packed.BuffersLength()) if not packed.Buffers(index).DataIsNone()
    ]
    aligned = all(place % 16 == 0 for place in places)
    kept = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
    found.append({"custom": custom, "aligned": aligned, "unique": len(kept) == len(set(kept)),
                  "metadata": len(model.metadata), "signatures": len(model.signatureDefs)})
print(json.dumps(found))
"""


def test_custom_options_and_metadata_survive_and_constants_are_aligned(files, tmp_path) -> None:
    paths = []
    for name in ("exact", *FORMS):
        paths.append(tmp_path / f"{name}.tflite")
        paths[-1].write_bytes(files[name])
    done = subprocess.run(
        [sys.executable, "-c", _OPTIONS, *paths],
        capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    exact, *stored = json.loads(done.stdout)
    assert [name for name, _ in exact["custom"]] == ["LceQuantize", "LceBconv2d"]
    for facts in stored:
        assert facts["custom"] == exact["custom"]
        assert (facts["metadata"], facts["signatures"]) == (exact["metadata"], exact["signatures"])
        assert facts["aligned"]
        assert facts["unique"]


def test_numbers_beyond_half_precision_stay_in_float32(make_graph, lce_writer, tmp_path) -> None:
    huge = WEIGHTS | {"w3": WEIGHTS["w3"] * 1e6}
    written = lce_writer.write(TARGET.lower(make_graph(NETWORK, **huge)), tmp_path)
    layers = {layer["name"]: layer for layer in written.store_smaller(FORMS["float16"]).layers}
    assert (layers["point"]["actual_bits"], layers["stem"]["actual_bits"]) == (32, 16)
    assert np.isfinite(outputs_of(written.files["model"].read_bytes())).all()


CHANNEL = np.arange(40)[:, None, None, None] == 7


@pytest.mark.parametrize(
    ("factor", "bits"),
    [
        (1e-8, 32),  # nothing would be left of them
        (2e-6, 32),  # two or three digits would
        (np.where(CHANNEL, 1e-7, 1), 32),  # of one output channel
        (np.where((np.arange(CHANNELS) == 3)[:, None, None], 1e-7, 1), 32),  # of one input channel
        (np.where(RNG.random((40, 160, 1, 1)) < 0.01, 1e-7, 1), 16),  # beside larger ones
        (np.where(CHANNEL, 0, 1), 16),
    ],
)  # fmt: skip
def test_numbers_too_small_for_half_precision_stay_in_float32(
    factor, bits, make_graph, lce_writer, tmp_path
) -> None:
    small = WEIGHTS | {"w3": WEIGHTS["w3"] * factor}
    written = lce_writer.write(TARGET.lower(make_graph(NETWORK, **small)), tmp_path)
    layers = {layer["name"]: layer for layer in written.store_smaller(FORMS["float16"]).layers}
    assert (layers["point"]["actual_bits"], layers["stem"]["actual_bits"]) == (bits, 16)


def test_the_document_tells_from_which_size_on_weights_are_stored_smaller() -> None:
    text = Path(__file__).parents[4].joinpath("docs", "export.md").read_text()
    for option in ("--fully-connected int8", "--float-storage float16"):
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{option}`"))
        assert f"{LEAST_BYTES // 4} or more" in row


def test_a_network_without_float_weights_stays_as_it_is(make_graph, lce_writer, tmp_path) -> None:
    graph = make_graph(
        "g (float[1,8,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }",
        w=np.where(RNG.standard_normal((16, 8, 3, 3)) >= 0, 1.0, -1.0),
    )
    written = lce_writer.write(TARGET.lower(graph), tmp_path)
    before = outputs_of(written.files["model"].read_bytes())
    written.store_smaller(FORMS["both"])
    file = read_tflite(written.files["model"])
    assert "DEQUANTIZE" not in [node.name for node in file.operators]
    np.testing.assert_array_equal(outputs_of(written.files["model"].read_bytes()), before)
