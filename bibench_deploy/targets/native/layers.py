"""What became of each layer of the source graph: its operator in the file, its bits and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import ConversionError
from bibench_deploy.graph.facts import BinaryConv, binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.targets.native.operators import (
    BINARY_CONV,
    DOMAIN,
    FLOAT_STEM,
    RESIDUAL,
    is_own,
    unpack_signs,
)

_WEIGHTED = ("Conv", "Gemm", "MatMul")


def resident_layers(convs: list[BinaryConv], written: ir.Model) -> list[ir.Node]:
    """The operator of each binary layer, whose packed weights are that layer's own, bit by bit.

    Args:
        convs: the binary layers of the lowered graph.
        written: the graph that is written.

    Raises:
        ConversionError: a layer has no such operator.
    """
    operators = {node.name: node for node in written.graph if is_own(node, BINARY_CONV)}
    found, lost = [], []
    for conv in convs:
        node = operators.get(conv.facts.name)
        packed = None if node is None else constant_of(node.inputs[1])
        weight = conv.weight if conv.weight.ndim == 4 else conv.weight[:, :, None, None]
        expected = np.moveaxis(weight, 1, -1)
        if (
            node is None
            or packed is None
            or not np.array_equal(unpack_signs(packed, expected.shape[-1]), expected)
        ):
            lost.append(conv.facts.name)
        else:
            found.append(node)
    if lost:
        raise ConversionError(
            f"{len(lost)} of {len(convs)} binary layers are not in the file in one bit "
            f"({', '.join(lost)}); report the model, since bibench should have refused it"
        )
    return found


def account_layers(
    source: ir.Model, convs: list[BinaryConv], resident: list[ir.Node], written: ir.Model
) -> list[dict[str, Any]]:
    """One entry for each layer of the source graph that has weights, in graph order.

    Args:
        source: the graph before lowering.
        convs: the binary layers of the lowered graph.
        resident: what `resident_layers` gave for them.
        written: the graph that is written.

    Returns:
        Entries as the manifest lists them: `name`, `kind`, `weight_shape`, `intended_bits`,
        `intended_bytes`, `actual_bits`, `actual_bytes`, `kernel` and `fused`.
    """
    binary: dict[str, list[ir.Node]] = {}
    for conv, node in zip(convs, resident, strict=True):
        binary.setdefault(source_layer(conv.node), []).append(node)
    floats = {node.name or "": node for node in written.graph if _is_float_layer(node)}
    intended = {conv.node: conv for conv in binary_convs(source)}
    entries: list[dict[str, Any]] = []
    for node in source.graph:
        weight = intended[node].weight if node in intended else _weight_of(node)
        if weight is None:
            continue
        name, is_binary = node.name or "", node in intended
        product = floats.get(name) or floats.get(f"{name}_product")
        operators = binary.get(name) or ([] if product is None else [product])
        entries.append(
            {
                "name": name,
                "kind": f"{'binary' if is_binary else 'float'}_"
                f"{'linear' if weight.ndim == 2 else 'conv'}",
                "weight_shape": list(weight.shape),
                "intended_bits": 1 if is_binary else 32,
                "intended_bytes": packed_bytes(weight.shape) if is_binary else 4 * weight.size,
                **_actual(operators),
            }
        )
    return entries


def packed_bytes(shape: Sequence[int]) -> int:
    """Whole bytes of input channels for each tap of a kernel.

    Args:
        shape: [O, I, …] with the kernel's axes last, if it has some.
    """
    outputs, inputs, *kernel = shape
    return outputs * prod(kernel) * -(-inputs // 8)


def _weight_of(node: ir.Node) -> npt.NDArray[np.generic] | None:
    """The constant weight of a Conv, Gemm or MatMul with output channels first, or None."""
    if node.domain != "" or node.op_type not in _WEIGHTED:
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim < 2:
        return None
    is_transposed = node.op_type != "Conv" and not node.attributes.get_int("transB", 0)
    return weight.T if is_transposed else weight


def _is_float_layer(node: ir.Node) -> bool:
    is_layer = node.domain == "" and node.op_type in (*_WEIGHTED, "QLinearConv")
    return is_layer or is_own(node, FLOAT_STEM)


def _actual(operators: list[ir.Node]) -> dict[str, Any]:
    if not operators:
        return {"actual_bits": None, "actual_bytes": None, "kernel": None, "fused": []}
    arrays = [
        array
        for node in operators
        for value in node.inputs[1:]
        if (array := constant_of(value)) is not None
    ]
    is_binary = all(is_own(node, BINARY_CONV) for node in operators)
    is_int8 = all(node.op_type == "QLinearConv" for node in operators)
    fused = dict.fromkeys(what for node in operators for what in _fused(node))
    kinds = dict.fromkeys(
        f"{node.domain}.{node.op_type}" if node.domain == DOMAIN else node.op_type
        for node in operators
    )
    return {
        "actual_bits": 1 if is_binary else 8 if is_int8 else 32,
        "actual_bytes": sum(array.nbytes for array in arrays),
        "kernel": " + ".join(kinds),
        "fused": list(fused),
    }


def _fused(node: ir.Node) -> list[str]:
    """What an operator of the library does besides its sums."""
    if node.domain != DOMAIN:
        return []
    found = []
    if is_own(node, BINARY_CONV):
        names = {2: "scale", 3: "shift", RESIDUAL: "shortcut", 5: "prelu", 6: "shift"}
        for place, name in names.items():
            value = node.inputs[place] if place < len(node.inputs) else None
            array = constant_of(value)
            neutral = 1 if name == "scale" else 0
            if value is not None and (array is None or (array != neutral).any()):
                found.append(name)
    elif "pool_kernel" in node.attributes:
        found.append("max_pool")
    if "low" in node.attributes or "high" in node.attributes:
        found.append("clip")
    if node.outputs[1].name:
        found.append("sign")
    return found
