from __future__ import annotations

import onnx
import pytest

from bibench_deploy.targets.onnx.size_by_part import size_by_part


@pytest.mark.parametrize("form", ["initializer", "constant node"])
def test_every_constant_counts_and_the_rest_is_metadata(make_proto, tmp_path, form) -> None:
    if form == "initializer":
        proto = make_proto("g (float[1,3] x) => (y) { y = Add(x, w) }", w=[1.0, 2.0, 3.0])
    else:
        proto = make_proto(
            "g (float[1,3] x) => (y) { w = Constant<value = float[3] {1, 2, 3}>()  y = Add(x, w) }"
        )
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    found = size_by_part(path)
    assert (found.binary_weights, found.float_weights, found.padding) == (0, 12, 0)
    assert found.metadata == path.stat().st_size - 12
