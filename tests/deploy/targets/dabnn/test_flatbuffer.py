import contextlib

import numpy as np
import pytest
from flatbuffers import Builder
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets.dabnn import flatbuffer
from bibench_deploy.targets.dabnn.executor import DabExecutor
from bibench_deploy.targets.dabnn.flatbuffer import from_bytes, read_dab, to_bytes, write_dab
from bibench_deploy.targets.dabnn.schema import FIELDS, DabLayer, DabModel, Kind, Operator


def same(one: DabModel, other: DabModel) -> bool:
    if len(one.tensors) != len(other.tensors):
        return False
    pairs = zip(one.tensors, other.tensors, strict=True)
    are_equal = all(
        (a.name, a.shape, a.data.dtype) == (b.name, b.shape, b.data.dtype)
        and np.array_equal(a.data, b.data)
        for a, b in pairs
    )
    facts = ("input_name", "input_shape", "layers")
    return are_equal and all(getattr(one, name) == getattr(other, name) for name in facts)


def filled(layer: DabLayer) -> DabLayer:
    """With every field that a reader gives, those that are not in the file too."""
    empty = {Kind.NAME: "", Kind.NAMES: (), Kind.NUMBERS: (), Kind.NUMBER: 0}
    values = {name: empty[kind] for name, kind in FIELDS[layer.operator]} | layer.values
    return DabLayer(layer.operator, layer.name, values)


@pytest.fixture(scope="module")
def content(every_layer) -> bytes:
    return to_bytes(every_layer)


def test_what_is_written_is_read_again(every_layer, tmp_path) -> None:
    path = tmp_path / "model.dab"
    write_dab(every_layer, path)
    layers = tuple(filled(layer) for layer in every_layer.layers)
    expected = DabModel(
        every_layer.input_name, every_layer.input_shape, layers, every_layer.tensors
    )
    assert same(read_dab(path), expected)


def test_writing_what_was_read_gives_the_same_bytes(content) -> None:
    assert to_bytes(from_bytes(content)) == content


@pytest.mark.parametrize("operator", Operator)
def test_every_operator_of_the_format_has_its_fields(operator) -> None:
    made = {Kind.NAME: "n", Kind.NAMES: ("a", "b"), Kind.NUMBERS: (1, 2), Kind.NUMBER: 3}
    values = {name: made[kind] for name, kind in FIELDS[operator]}
    layer = DabLayer(operator, "called", values)
    model = DabModel("x", (1, 1, 1, 1), (layer,), ())
    assert from_bytes(to_bytes(model)).layers == (layer,)


def test_the_bytes_are_where_the_format_has_them(content) -> None:
    # Read by flatbuffers' own table, with the numbers of the schema written out.
    from flatbuffers import number_types as types
    from flatbuffers.table import Table

    root = Table(content, int.from_bytes(content[:4], "little"))
    assert root.Get(types.Uint32Flags, root.Pos + root.Offset(10)) == 2
    layers = root.Offset(4)
    assert root.VectorLen(layers) == 11
    first = Table(content, root.Indirect(root.Vector(layers)))
    assert first.Offset(4) == 0  # FpConv2D is number 0, which is not stored
    assert first.Offset(6)  # its parameters are field 1
    third = Table(content, root.Indirect(root.Vector(layers) + 8))
    assert third.Get(types.Int8Flags, third.Pos + third.Offset(4)) == Operator.BinConv2D
    parameters = Table(content, third.Indirect(third.Pos + third.Offset(8)))
    pads = parameters.Offset(10)
    assert parameters.VectorLen(pads) == 4


def test_words_of_64_bits_lie_at_multiples_of_8(every_layer, content) -> None:
    (packed,) = [tensor for tensor in every_layer.tensors if tensor.is_binary]
    assert content.index(packed.data.tobytes()) % 8 == 0


# What a file may be instead of a model.


def refusal(content: bytes, tmp_path) -> str:
    path = tmp_path / "model.dab"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as raised:
        read_dab(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("size", [0, 3, 4, 40, 400, 0.5, 0.99])
def test_a_truncated_file_is_one_line(size, content, tmp_path) -> None:
    cut = size if isinstance(size, int) else int(len(content) * size)
    assert "not a daBNN model" in refusal(content[:cut], tmp_path)


def test_another_version_is_named(every_layer, tmp_path) -> None:
    builder = Builder(64)
    builder.StartObject(4)
    builder.PrependUint32Slot(3, 1, 0)
    builder.Finish(builder.EndObject())
    text = refusal(bytes(builder.Output()), tmp_path)
    assert "not a daBNN model of version 2 (it says 1)" in text


def test_a_file_of_another_kind_is_one_line(tmp_path) -> None:
    assert "not a daBNN model" in refusal(b"TFL3" * 100, tmp_path)
    assert "not a daBNN model" in refusal(b"\x00" * 100, tmp_path)
    assert "not a daBNN model" in refusal(b"\xff" * 100, tmp_path)


def test_a_file_that_is_not_there_is_one_line(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_dab(tmp_path / "none.dab")


@settings(max_examples=400)
@given(st.data())
def test_no_change_of_bytes_breaks_the_reader_or_the_executor(content, data) -> None:
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of the structure lies at both ends; the middle is weights.
        place = data.draw(st.integers(0, len(content) - 1))
        changed[place] = data.draw(st.sampled_from([0, 1, 2, 4, 127, 128, 254, 255]))
    # Anything but this one error is a failure.
    with contextlib.suppress(ArtifactError), np.errstate(all="ignore"):
        DabExecutor(from_bytes(bytes(changed))).run(np.zeros((8, 8, 4), np.float32))


def test_a_length_beyond_the_end_is_found_before_it_is_read(content) -> None:
    # Each 4 bytes in turn become an offset or a length of 2 GiB.
    for place in range(0, min(len(content), 2000), 4):
        hostile = content[:place] + b"\xff\xff\xff\x7f" + content[place + 4 :]
        with contextlib.suppress(ArtifactError):
            from_bytes(hostile)


def with_shared_layer(times: int) -> bytes:
    """A file whose offsets of layers all lead to one, with a long list of pads."""
    pads = tuple(range(1000))
    values = {"input": "x", "kernel_shape": (1, 1), "pads": pads, "output": "y"}
    builder = Builder(64)
    layer = flatbuffer._add_layer(builder, DabLayer(Operator.MaxPool, "pool", values))
    layers = flatbuffer._vector_of_offsets(builder, [layer] * times)
    shape = builder.CreateNumpyVector(np.array([1, 8, 8, 4], np.uint32))
    entry = flatbuffer._add_table(builder, 2, {0: shape, 1: builder.CreateString("x")})
    inputs = flatbuffer._vector_of_offsets(builder, [entry])
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(0, layers, 0)
    builder.PrependUOffsetTRelativeSlot(2, inputs, 0)
    builder.PrependUint32Slot(3, 2, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def test_a_small_file_of_endless_contents_is_one_line(tmp_path) -> None:
    assert len(from_bytes(with_shared_layer(1)).layers) == 1
    # 44 kB that stand for 40 MB; a few megabytes would stand for more than any memory holds.
    assert "many of its offsets lead to one place" in refusal(with_shared_layer(10_000), tmp_path)
