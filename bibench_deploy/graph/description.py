"""What is in a model file, whatever its format: its layers, shapes, padding, bits and sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConvFacts, binary_convs, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.load import load_graph

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerDescription:
    """One layer or operator of a file.

    Attributes:
        name: its own, or that of what it gives.
        operator: as the format calls it.
        inputs: shapes of the computed tensors that it reads.
        outputs: shapes of the tensors that it gives.
        weight: shape of its weights, as the format has them; None where it has none.
        padding: as text, `1 of −1` for instance; empty where there is none.
        bits: that the file stores one weight in; None without weights.
        is_binary: whether it is a layer of binary weights on binary inputs.
        size_bytes: of all its constants in the file; what several layers share counts for the
            first.
    """

    name: str
    operator: str
    inputs: tuple[_Shape, ...]
    outputs: tuple[_Shape, ...]
    weight: _Shape | None
    padding: str
    bits: int | None
    is_binary: bool
    size_bytes: int


@dataclass(frozen=True)
class FileDescription:
    """A whole model file.

    Attributes:
        format: what it is called, with its version.
        size_bytes: of the file.
        inputs: name → shape.
        outputs: name → shape.
        layers: in the order in which they run.
    """

    format: str
    size_bytes: int
    inputs: dict[str, _Shape]
    outputs: dict[str, _Shape]
    layers: tuple[LayerDescription, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name, and what binary and other layers take in the file."""
        binary = sum(layer.size_bytes for layer in self.layers if layer.is_binary)
        return {
            **asdict(self),
            "binary_layers": sum(layer.is_binary for layer in self.layers),
            "binary_bytes": binary,
            "float_bytes": sum(layer.size_bytes for layer in self.layers) - binary,
        }


def padding_text(pads: tuple[int, ...], value: float | None = None) -> str:
    """Padding for people.

    Args:
        pads: (top, left, bottom, right).
        value: what it holds, for a binary layer.

    Example:
        >>> padding_text((1, 1, 1, 1), -1.0), padding_text((0, 0, 1, 1)), padding_text((0, 0, 0, 0))
        ('1 of −1', '0,0,1,1', '')
    """
    if not any(pads):
        return ""
    amounts = str(pads[0]) if len(set(pads)) == 1 else ",".join(str(pad) for pad in pads)
    number = "" if value is None else f"{value:g}".replace("-", "−")
    return amounts if value is None else f"{amounts} of {number}"


def describe_onnx(path: Path) -> FileDescription:
    """Describe an .onnx file, as `load_graph` brings it into a normal form.

    Raises:
        GraphError: as `load_graph`.
    """
    model = load_graph(path)
    facts = {conv.node: conv.facts for conv in binary_convs(model)}
    counted: set[ir.Value] = set()
    layers = []
    for node in model.graph:
        own = {v for v in node.inputs if v is not None and v.const_value is not None} - counted
        counted |= own
        layers.append(_describe(node, facts.get(node), sum(_size(value) for value in own)))
    opset = model.opset_imports.get("", 0)
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    return FileDescription(
        format=f"ONNX, opset {opset}",
        size_bytes=path.stat().st_size,
        inputs={str(value.name): shape_of(value) for value in inputs},
        outputs={str(value.name): shape_of(value) for value in model.graph.outputs},
        layers=tuple(layers),
    )


def _describe(node: ir.Node, facts: BinaryConvFacts | None, size: int) -> LayerDescription:
    weight = None
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and len(node.inputs) > 1:
        weight = constant_of(node.inputs[1])
    padding = ""
    if facts is not None:
        padding = padding_text(facts.pads, facts.pad_value)
    elif node.op_type in ("Conv", "MaxPool", "AveragePool") and len(shape_of(node.outputs[0])) < 5:
        padding = padding_text(window_of(node).pads)
    return LayerDescription(
        name=node.name or "",
        operator=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        inputs=tuple(shape_of(v) for v in node.inputs if v is not None and constant_of(v) is None),
        outputs=tuple(shape_of(value) for value in node.outputs),
        weight=None if weight is None else weight.shape,
        padding=padding,
        bits=None if weight is None else 8 * weight.dtype.itemsize,
        is_binary=facts is not None,
        size_bytes=size,
    )


def _size(value: ir.Value) -> int:
    array = constant_of(value)
    return 0 if array is None else int(np.asarray(array).nbytes)
