"""What became of each layer of the source graph: its operator in the file, its bits and bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.dabnn.schema import DabLayer, DabModel, Operator

_Weight = npt.NDArray[np.generic]
_WORD_BITS = 64
_CONVOLUTIONS = (Operator.BinConv2D, Operator.FpConv2D)


def account_layers(
    source: ir.Model, written: DabModel, layers_of: dict[str, list[DabLayer]]
) -> list[dict[str, Any]]:
    """One entry for each layer of the source graph that has weights, in graph order.

    Args:
        source: the graph before lowering.
        written: what the file holds.
        layers_of: source graph's node → its layers in the file.

    Returns:
        Entries as the manifest lists them. `intended_bytes` of a binary layer counts whole
        64-bit words per filter; `actual_bytes` is all that the file holds for the layer:
        filters, what its Affine multiplies and adds, corrections of a padded border. A
        constant that several layers share counts for the first.
    """
    sizes = {tensor.name: tensor.data.nbytes for tensor in written.tensors}
    binary: dict[ir.Node, _Weight] = {conv.node: conv.weight for conv in binary_convs(source)}
    counted: set[str] = set()
    entries = []
    for node in source.graph:
        weight = binary[node] if node in binary else _weight_of(node)
        if weight is None:
            continue
        own = layers_of.get(node.name or "", [])
        kernels = list(dict.fromkeys(x.operator for x in own if x.operator in _CONVOLUTIONS))
        constants = {name for layer in own for name in layer.inputs if name in sizes} - counted
        counted |= constants
        is_binary, is_linear = node in binary, weight.ndim == 2
        entries.append(
            {
                "name": node.name,
                "kind": f"{'binary' if is_binary else 'float'}_{'linear' if is_linear else 'conv'}",
                "weight_shape": list(weight.shape),
                "intended_bits": 1 if is_binary else 32,
                "intended_bytes": _packed_bytes(weight) if is_binary else 4 * weight.size,
                "actual_bits": 1 if kernels == [Operator.BinConv2D] else 32,
                "actual_bytes": sum(sizes[name] for name in constants),
                "kernel": " + ".join(operator.name for operator in kernels) or None,
                "fused": [],
            }
        )
    return entries


def _packed_bytes(weight: _Weight) -> int:
    """Bytes of the signs, in whole words for each filter."""
    words = -(-(weight.size // len(weight)) // _WORD_BITS)
    return len(weight) * words * _WORD_BITS // 8


def _weight_of(node: ir.Node) -> _Weight | None:
    """The constant weight of a Conv, Gemm or MatMul with output channels first, or None."""
    if node.domain != "" or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim < 2:
        return None
    is_transposed = node.op_type != "Conv" and not node.attributes.get_int("transB", 0)
    return weight.T if is_transposed else weight
