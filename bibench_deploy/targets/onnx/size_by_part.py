"""Where the bytes of an .onnx file go."""

from __future__ import annotations

from pathlib import Path

import onnx

from bibench_deploy.targets._size_by_part import SizeByPart


def size_by_part(path: Path) -> SizeByPart:
    """Count the bytes of an .onnx file; ±1 in 32 bits are float weights."""
    graph = onnx.load(path).graph
    tensors = [*graph.initializer]
    tensors += [field.t for node in graph.node for field in node.attribute if field.HasField("t")]
    constants = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in tensors)
    return SizeByPart(0, constants, 0, path.stat().st_size - constants)
