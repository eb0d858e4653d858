import numpy as np
import onnx
import pytest

from bibench_deploy import targets
from bibench_deploy.errors import ArtifactError
from bibench_deploy.graph.load import load_graph
from bibench_deploy.targets.native.description import (
    describe_native,
    is_native_file,
    size_by_part,
)

SIGNS = np.where(np.random.default_rng(5).standard_normal((8, 12, 3, 3)) >= 0, 1.0, -1.0)


@pytest.fixture
def written(make_proto, tmp_path):
    """model.onnx of the target, of one binary layer of 12 channels and a float one."""
    text = """g (float[1,12,8,8] x) => (y) {
        s = Sign(x)  [binary] a = Conv<pads=[1,1,1,1]>(s, w)  b = Relu(a)
        [float] y = Conv(b, v) }"""
    path = tmp_path / "source.onnx"
    onnx.save(make_proto(text, w=SIGNS, v=np.ones((3, 8, 1, 1))), path)
    target = targets.load("native")
    with target.open_writer() as writer:
        return writer.write(target.lower(load_graph(path)), tmp_path).files["model"]


def test_a_binary_layer_is_shown_in_one_bit(written) -> None:
    described = describe_native(written)
    (layer,) = [item for item in described.layers if item.is_binary]
    assert (layer.name, layer.operator, layer.bits) == ("binary", "bibench.BinaryConv", 1)
    assert (layer.weight, layer.padding) == ((8, 3, 3, 12), "1 of 0")
    floats = [item for item in described.layers if item.weight and not item.is_binary]
    assert [item.bits for item in floats] == [32]
    assert described.size_bytes == written.stat().st_size


def test_the_parts_are_the_file_and_channels_fill_their_last_byte(written) -> None:
    parts = size_by_part(written)
    assert (parts.binary_weights, parts.padding) == (8 * 9 * 12 // 8, 8 * 9 * 4 // 8)
    assert parts.float_weights >= 4 * 3 * 8
    whole = parts.binary_weights + parts.padding + parts.float_weights + parts.metadata
    assert whole == written.stat().st_size


def test_other_files_are_not_its_own(written, tmp_path) -> None:
    assert is_native_file(written)
    assert not is_native_file(tmp_path / "source.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("text.onnx", "missing.onnx"):
        assert not is_native_file(tmp_path / name)
        with pytest.raises(ArtifactError, match=name):
            describe_native(tmp_path / name)


def test_a_damaged_file_is_described_or_is_one_line(written, caplog) -> None:
    content = written.read_bytes()
    told = []
    for place in range(len(content)):
        written.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            described = describe_native(written)
        except ArtifactError as error:
            told.append(str(error))
        else:
            assert all(isinstance(layer.name, str) for layer in described.layers)
    assert len(told) > 100
    assert all(text.startswith(f"{written}: ") and "\n" not in text for text in told)
    assert caplog.text == ""
