"""How much work in float there is where a network was meant to be binary."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.near_misses import output_axis
from bibench_deploy.lint.network import BYTES_OF_FLOAT, Network


def in_float(network: Network, name: str) -> str:
    """What a layer stores and computes in float, and what it would store in one bit.

    Args:
        network: the network.
        name: of a Conv, ConvTranspose, Gemm or MatMul of constant weights.
    """
    node = network.nodes[name]
    weight = constant_of(node.inputs[1])
    assert weight is not None
    floats = BYTES_OF_FLOAT * weight.size
    text = f"it runs in float: {floats:,} bytes of weights"
    bits = _packed_bytes(network, node, weight.shape)
    if bits is not None and bits < floats:  # words of few channels may be no smaller
        text += f" instead of {bits:,}"
    if shape_of(node.outputs[0]):  # without it nobody knows how often a weight is used
        text += f", and {counted(network.multiplications[node], 'multiplication')} of floats"
    return text


def over_numbers(shape: Sequence[int]) -> str:
    """How many numbers a tensor of that shape has, as words; nothing where it is not known."""
    return f" over {counted(prod(shape), 'number')}" if shape else ""


def _packed_bytes(network: Network, node: ir.Node, weight: tuple[int, ...]) -> int | None:
    """Bytes of the layer's weights in one bit; None where the target has no such layer."""
    is_held = len(weight) == 2 if node.op_type in ("Gemm", "MatMul") else len(weight) in (3, 4)
    if not is_held:
        return None
    shape = list(weight)
    shape.insert(0, shape.pop(output_axis(node)))
    if node.op_type == "ConvTranspose":
        group = node.attributes.get_int("group", 1)
        shape[:2] = shape[0] * group, shape[1] // group
    return network.target.packed_bytes(shape, node.attributes.get_ints("strides", ()))
