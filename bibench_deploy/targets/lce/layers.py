"""What became of each layer of the source graph: its operator in the file, its bits and bytes.

Intended is what the weights alone should take; actual is what the file holds for the layer,
multipliers, biases and thresholds included, counted in the flatbuffer itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.targets.lce.flatbuffer import TfliteModel, TfliteOperator, TfliteTensor
from bibench_deploy.targets.lce.residency import WORD_BITS, ResidentLayer

_Array = npt.NDArray[np.float32]

_BITS = {"float32": 32, "float16": 16, "int8": 8}
# Operators that hold the weights of a float layer, and the filter's axis of output channels.
_OUTPUT_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
# Layers are told apart by this many of their output channels.
_COMPARED_CHANNELS = 8
# Rounding to 8 bits moves a weight by at most 0.004 of the largest one.
_ALIKE = 0.01


def account_layers(
    source: ir.Model,
    lowered: ir.Model,
    resident: list[ResidentLayer],
    converted: TfliteModel,
) -> list[dict[str, Any]]:
    """One entry for each layer of the source graph that has weights, in graph order.

    Args:
        source: the graph before lowering.
        lowered: what was converted; its layers name those of the source.
        resident: the operator of each binary layer of `lowered`, in order.
        converted: the file.

    Returns:
        Entries as the manifest lists them: `name`, `kind`, `weight_shape`, `intended_bits`,
        `intended_bytes`, `actual_bits`, `actual_bytes`, `kernel` (the operator in the file)
        and `fused` (what else that operator does). An operator that runs two equal layers
        counts for the first of them; the other takes no bytes, and its kernel names the
        first. What cannot be told is None: a float layer that the converter merged with
        another.
    """
    operators: dict[str, list[TfliteOperator]] = {}
    convs = binary_convs(lowered)
    for conv, layer in zip(convs, resident, strict=True):
        operators.setdefault(source_layer(conv.node), []).append(layer.operator)
    binary = {conv.node for conv in convs}
    weights = {node: _weight_of(node) for node in lowered.graph if node not in binary}
    floats = {node: weight for node, weight in weights.items() if weight is not None}
    for node, operator in _float_operators(floats, converted).items():
        operators.setdefault(source_layer(node), []).append(operator)
    intended = {conv.node: conv for conv in binary_convs(source)}
    entries = []
    counted: dict[int, str] = {}
    for node in source.graph:
        weight = intended[node].weight if node in intended else _weight_of(node)
        if weight is None:
            continue
        is_binary, is_linear = node in intended, weight.ndim == 2
        entries.append(
            {
                "name": node.name,
                "kind": f"{'binary' if is_binary else 'float'}_{'linear' if is_linear else 'conv'}",
                "weight_shape": list(weight.shape),
                "intended_bits": 1 if is_binary else 32,
                "intended_bytes": packed_bytes(weight.shape) if is_binary else 4 * weight.size,
                **_actual(operators.get(node.name or "", []), converted, counted, node.name or ""),
            }
        )
    return entries


def packed_bytes(shape: Sequence[int]) -> int:
    """Bytes of a bit-packed filter: whole words of input channels for each place of a kernel.

    Args:
        shape: [O, I, …] with the kernel's axes last, if it has some.
    """
    outputs, inputs, *kernel = shape
    words = -(-inputs // WORD_BITS)
    return int(outputs * prod(kernel) * words * WORD_BITS // 8)


def _weight_of(node: ir.Node) -> _Array | None:
    """The constant weight of a Conv, Gemm or MatMul with output channels first, or None."""
    if node.domain != "" or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim < 2:
        return None
    is_transposed = node.op_type != "Conv" and not node.attributes.get_int("transB", 0)
    return np.asarray(weight.T if is_transposed else weight, np.float32)


def _actual(
    operators: list[TfliteOperator], converted: TfliteModel, counted: dict[int, str], name: str
) -> dict[str, Any]:
    """What the file holds for a layer; `counted` has the layer of each operator told so far."""
    if not operators:
        return {"actual_bits": None, "actual_bytes": None, "kernel": None, "fused": []}
    others = sorted({counted[id(node)] for node in operators if id(node) in counted})
    own = [node for node in operators if id(node) not in counted]
    counted.update((id(node), name) for node in own)
    constants = {
        index: tensor
        for node in own
        for index in node.inputs[1:]
        if (tensor := converted.constant(index)) is not None
    }
    filters = [
        tensor for node in operators if (tensor := converted.constant(node.inputs[1])) is not None
    ]
    is_binary = all(node.name not in _OUTPUT_AXES for node in operators)
    names = list(dict.fromkeys(node.name for node in operators))
    return {
        "actual_bits": 1 if is_binary else max(_BITS[tensor.dtype] for tensor in filters),
        "actual_bytes": sum(len(tensor.data) for tensor in constants.values()),
        "kernel": " + ".join(names) + (f" of {', '.join(others)}" if others else ""),
        "fused": _fused(operators, converted) if is_binary else [],
    }


def _fused(operators: list[TfliteOperator], converted: TfliteModel) -> list[str]:
    """What LceBconv2d does besides its sums: scale and shift per channel, the next sign."""
    found: dict[str, None] = {}
    for node in operators:
        multiplier, bias = (_numbers(converted, node, place) for place in (2, 3))
        if multiplier is not None and (multiplier != 1).any():
            found["scale"] = None
        if bias is not None and (bias != 0).any():
            found["shift"] = None
        if converted.tensors[node.outputs[0]].dtype == "int32":
            found["sign"] = None
    return list(found)


def _numbers(converted: TfliteModel, node: TfliteOperator, place: int) -> _Array | None:
    index = node.inputs[place] if len(node.inputs) > place else -1
    tensor = converted.constant(index) if index >= 0 else None
    return None if tensor is None else _decoded(tensor).reshape(-1)


def _decoded(tensor: TfliteTensor) -> _Array:
    """A constant's numbers; those of int8 are not brought to scale."""
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    return np.frombuffer(tensor.data, dtype).astype(np.float32).reshape(tensor.shape)


def _float_operators(
    floats: dict[ir.Node, _Array], converted: TfliteModel
) -> dict[ir.Node, TfliteOperator]:
    """The operator of each float layer.

    Conversion turns kernels, reorders columns and multiplies output channels by the batch
    norm behind them, so filters are compared by the sorted magnitudes of each channel. A
    batch norm in front may be multiplied into the columns too: what is left over is matched
    by size and order, where as many filters of a size are left as layers.
    """
    filters: dict[tuple[int, ...], list[tuple[TfliteOperator, _Array]]] = {}
    for node in converted.operators:
        tensor = converted.constant(node.inputs[1]) if node.name in _OUTPUT_AXES else None
        if tensor is not None:
            rows = np.moveaxis(_decoded(tensor), _OUTPUT_AXES[node.name], 0)
            rows = rows.reshape(len(rows), -1)
            filters.setdefault(rows.shape, []).append((node, _profile(rows)))
    found: dict[ir.Node, TfliteOperator] = {}
    left: dict[tuple[int, ...], list[ir.Node]] = {}
    for layer, weight in floats.items():
        rows = weight.reshape(len(weight), -1)
        candidates = filters.get(rows.shape, [])
        profile = _profile(rows)
        distances = [float(np.abs(profile - other).max()) for _, other in candidates]
        if distances and min(distances) <= _ALIKE:
            found[layer] = candidates.pop(int(np.argmin(distances)))[0]
        else:
            left.setdefault(rows.shape, []).append(layer)
    for shape, layers in left.items():
        candidates = filters.get(shape, [])
        if len(candidates) == len(layers):
            found.update(zip(layers, (node for node, _ in candidates), strict=True))
    return found


def _profile(rows: _Array) -> _Array:
    """Sorted magnitudes of some channels, relative to the largest one of each."""
    some = np.abs(rows[:: -(-len(rows) // _COMPARED_CHANNELS)])
    largest = some.max(axis=1, keepdims=True)
    return np.asarray(np.sort(some, axis=1) / np.where(largest == 0, 1, largest), np.float32)
