from __future__ import annotations

import pytest

from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets._size_by_part import SizeByPart
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.size_by_part import size_by_part


def test_binary_weights_and_what_fills_their_words_are_counted_bit_for_bit(converted) -> None:
    found = size_by_part(converted.path)
    # Filters 8 × 4 × 3 × 3, 40 × 8 × 3 × 3 and 3 × 40, in words of 32 input channels.
    bits = 8 * 4 * 9 + 40 * 8 * 9 + 3 * 40
    packed = 4 * (8 * 9 * 1 + 40 * 9 * 1 + 3 * 1 * 2)
    assert found.binary_weights == bits // 8
    assert found.padding == packed - bits // 8


def test_the_parts_are_the_whole_file(converted) -> None:
    found = size_by_part(converted.path)
    assert found.total == converted.path.stat().st_size
    # At least the multipliers and biases of both layers that are not the last.
    assert found.float_weights >= 4 * 2 * (8 + 40)
    assert found.metadata > 0


def test_a_buffer_of_two_tensors_counts_once(converted) -> None:
    model = read_tflite(converted.path)
    apart = {tensor.buffer: len(tensor.data) for tensor in model.tensors}
    found = size_by_part(converted.path)
    assert found.binary_weights + found.padding + found.float_weights == sum(apart.values())


def test_a_float_network_has_no_binary_weights(make_graph, write_lce) -> None:
    graph = make_graph("g (float[1,4,8,8] x) => (y) { y = Conv(x, w) }", w=[[[[0.5]]] * 4] * 6)
    found = size_by_part(write_lce(graph).files["model"])
    assert (found.binary_weights, found.padding) == (0, 0)
    assert found.float_weights >= 4 * 4 * 6


def test_the_target_gives_it(converted) -> None:
    assert isinstance(TARGET.size_by_part(converted.path), SizeByPart)


def test_another_file_is_refused(tmp_path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="not a TensorFlow Lite model"):
        size_by_part(tmp_path / "model.tflite")
