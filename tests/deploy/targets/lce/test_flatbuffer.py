import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets.lce.flatbuffer import TfliteModel, read_tflite, with_outputs
from bibench_deploy.targets.lce.run_model import load_interpreter


@pytest.fixture(scope="session")
def content(converted) -> bytes:
    return converted.path.read_bytes()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "model.tflite"


def test_operators_are_listed_in_the_order_in_which_they_run(converted) -> None:
    names = [operator.name for operator in read_tflite(converted.path).operators]
    assert names[:3] == ["REVERSE_V2", "LceQuantize", "LceBconv2d"]
    assert names.count("LceBconv2d") == 3
    assert not [name for name in names if name.startswith("BUILTIN_")]


def test_inputs_outputs_and_tensors_have_shape_and_dtype(converted) -> None:
    model = read_tflite(converted.path)
    (source,), (result,) = model.inputs, model.outputs
    assert (model.tensors[source].shape, model.tensors[source].dtype) == ((1, 8, 8, 4), "float32")
    assert (model.tensors[result].shape, model.tensors[result].data) == ((1, 3), b"")
    filters = [
        model.tensors[operator.inputs[1]]
        for operator in model.operators
        if operator.name == "LceBconv2d"
    ]
    assert [tensor.shape for tensor in filters] == [(8, 3, 3, 1), (40, 3, 3, 1), (3, 1, 1, 2)]
    for tensor in filters:
        assert tensor.dtype == "int32"
        assert len(tensor.data) == 4 * np.prod(tensor.shape)


def test_the_producer_of_a_tensor_is_found(converted) -> None:
    model = read_tflite(converted.path)
    assert model.producer(model.inputs[0]) is None
    last = model.producer(model.outputs[0])
    assert last is model.operators[-1]


def test_every_operand_is_an_input_a_constant_or_computed_before(converted) -> None:
    model = read_tflite(converted.path)
    known = {*model.inputs, *(i for i, tensor in enumerate(model.tensors) if tensor.data), -1}
    for operator in model.operators:
        assert set(operator.inputs) <= known
        known.update(operator.outputs)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"absent\.tflite: cannot be read \(No such file"):
        read_tflite(tmp_path / "absent.tflite")


@pytest.mark.parametrize("other", [b"", b"TFL3", b"PK\3\4" + bytes(60), b"some text, no model"])
def test_a_foreign_file_is_told(other, scratch) -> None:
    scratch.write_bytes(other)
    with pytest.raises(ArtifactError, match="not a TensorFlow Lite model"):
        read_tflite(scratch)


@pytest.mark.parametrize("length", [8, 9, 12, 40, 200, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_damaged(length, content, scratch) -> None:
    scratch.write_bytes(content[: int(length * len(content)) if length < 1 else length])
    with pytest.raises(ArtifactError, match="a damaged TensorFlow Lite model"):
        read_tflite(scratch)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_an_error_of_ours_or_harmless(data, content, scratch) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) // 4 - 1)) * 4
        struct.pack_into("<I", damaged, place, data.draw(st.integers(0, 2**32 - 1)))
    damaged[4:8] = b"TFL3"
    scratch.write_bytes(damaged)
    with contextlib.suppress(ArtifactError):
        assert isinstance(read_tflite(scratch), TfliteModel)


@pytest.mark.parametrize("tensor", [-1, -7, 99])
def test_an_index_of_a_tensor_that_is_not_there_is_damage(tensor, content, scratch) -> None:
    scratch.write_bytes(with_outputs(content, [tensor]))
    with pytest.raises(ArtifactError, match=f"it names tensor {tensor}, and the last one is"):
        read_tflite(scratch)


def test_other_outputs_give_the_tensors_that_were_asked_for(converted, content) -> None:
    model = read_tflite(converted.path)
    wanted = [*model.outputs, model.operators[0].outputs[0], *model.outputs]
    rewritten = with_outputs(content, wanted)
    assert len(rewritten) < len(content) + 4 * len(wanted) + 8
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 4)).astype(np.float32)
    expected = load_interpreter(content, use_xnnpack=False).predict([x])[0]
    output, reversed_input, again = load_interpreter(rewritten, use_xnnpack=False).predict([x])
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(reversed_input, x[:, ::-1, ::-1])


def test_only_the_list_of_outputs_changes(converted, content, scratch) -> None:
    before = read_tflite(converted.path)
    scratch.write_bytes(with_outputs(content, [3, 1, 2]))
    after = read_tflite(scratch)
    assert after.outputs == (3, 1, 2)
    assert (after.tensors, after.operators, after.inputs) == (
        before.tensors, before.operators, before.inputs,
    )  # fmt: skip
