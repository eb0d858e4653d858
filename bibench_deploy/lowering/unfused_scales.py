"""Bring factors that no binary convolution fuses behind everything that it does.

Requires: canonical binarization; before the fold of channel constants.
Ensures: behind each binary layer, whatever multiplies its output by more than one number
per channel comes last: layer → constants per channel → factor → one Add of an offset. A
constant factor Γ [O, H, W] that is the product of channel and place, α ⊗ M, is [1, 1, H, W];
α is among the constants per channel.

With y = (m·c + b)·F, then ·k + d, then ·l + e …: y = (m·k·l·c + b·k·l)·F + (d·l + e), in double
precision, rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import BinaryConv, binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign
from bibench_deploy.lowering.fold_channel_affine import channel_step, fold_channel_affine
from bibench_deploy.lowering.fold_shifts import fold_shifts

_Vector = npt.NDArray[np.float64]

# α_c · β_h · γ_w in float32 is rounded twice, and so are both numbers that divide it.
_SAME = 8 * 2.0**-24


# In the metadata of nodes that multiply by such a factor.
UNFUSED = "bibench.unfused"


def unfused_scales(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for conv in binary_convs(model):
        chain = _chain_behind(conv)
        if chain.factors:
            _rebuild(model.graph, conv, chain)


def unfused_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes of a lowered graph that multiply by a factor which is not fused."""
    return [node for node in model.graph if UNFUSED in node.metadata_props]


def without_unfused_scales(model: ir.Model) -> ir.Model:
    """A copy of a lowered graph without these factors: what the same layers cost fused.

    It computes something else; it is there to be timed.
    """
    clone = model.clone()
    for node in unfused_nodes(clone):
        source = node.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
        clone.graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(clone)
    fold_channel_affine(clone)
    drop_clip_before_sign(clone)
    fold_shifts(clone)
    return clone


@dataclass
class _Chain:
    """What multiplies and shifts a layer's output, up to the first other operator.

    Attributes:
        multiplier: per channel, [O].
        before: what is added before the factors, [O].
        after: what is added behind them, [O].
        factors: computed tensors, or constants of more than one number per channel.
        nodes: what the chain is made of.
        end: its last tensor.
    """

    multiplier: _Vector
    before: _Vector
    after: _Vector
    end: ir.Value
    factors: list[ir.Value | npt.NDArray[np.float64]] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)


def _chain_behind(conv: BinaryConv) -> _Chain:
    output = conv.node.outputs[0]
    channels = shape_of(output)[1]
    zeros = np.zeros(channels)
    chain = _Chain(np.ones(channels), zeros, zeros, output)
    while (reader := only_reader(chain.end)) is not None:
        step = channel_step(reader, chain.end, channels)
        if step is not None:
            multiplier, offset = step
            chain.multiplier = chain.multiplier * multiplier
            chain.before = chain.before * multiplier
            if chain.factors:
                chain.after = chain.after * multiplier + offset
            else:
                chain.before = chain.before + offset
        elif (factor := _factor_of(reader, chain.end)) is not None and not chain.after.any():
            chain.factors.append(factor)
        else:
            break
        chain.nodes.append(reader)
        chain.end = reader.outputs[0]
    return chain


def _factor_of(node: ir.Node, value: ir.Value) -> ir.Value | npt.NDArray[np.float64] | None:
    """What a Mul or Div multiplies a layer's output by, where the shape stays the same."""
    if node.op_type not in ("Mul", "Div") or node.domain != "":
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is None or other is value or shape_of(node.outputs[0]) != shape_of(value):
        return None
    array = constant_of(other)
    if array is None:
        return other if node.op_type == "Mul" else None
    if node.op_type == "Div":
        is_divisor = other is node.inputs[1] and array.all()
        return 1 / array.astype(np.float64) if is_divisor else None
    return array.astype(np.float64)


def _rebuild(graph: ir.Graph, conv: BinaryConv, chain: _Chain) -> None:
    name, shape = conv.facts.name, shape_of(chain.end)
    factors: list[ir.Value] = []
    for factor in chain.factors:
        if isinstance(factor, ir.Value):
            factors.append(factor)
            continue
        by_channel, by_place = _split(factor, shape)
        chain.multiplier = chain.multiplier * by_channel
        chain.before = chain.before * by_channel
        factors.append(add_initializer(graph, f"{name}_map", by_place.astype(np.float32)))
    steps: list[tuple[str, ir.Value]] = []
    for operator, what, vector, neutral in (
        ("Mul", "scale", chain.multiplier, 1.0),
        ("Add", "offset", chain.before, 0.0),
    ):
        if (vector != neutral).any():
            steps.append((operator, _per_channel(graph, f"{name}_{what}", vector, len(shape))))
    first_factor = len(steps)
    steps += [("Mul", factor) for factor in factors]
    if chain.after.any():
        shift = _per_channel(graph, f"{name}_shift", chain.after, len(shape))
        steps.append(("Add", shift))
    value, added = conv.node.outputs[0], []
    for index, (operator, operand) in enumerate(steps):
        node = ir.node(operator, [value, operand], name=f"{name}_rescaled_{index}")
        value = node.outputs[0]
        value.name, value.shape, value.dtype = node.name, ir.Shape(shape), ir.DataType.FLOAT
        if first_factor <= index < first_factor + len(factors):
            node.metadata_props[UNFUSED] = "1"
        added.append(node)
    # Behind the last of the old nodes: a factor may be computed after the layer.
    graph.insert_after(chain.nodes[-1], added)
    chain.end.replace_all_uses_with(value, replace_graph_outputs=True)
    for node in reversed(chain.nodes):
        graph.remove(node, safe=True)


def _per_channel(graph: ir.Graph, name: str, vector: _Vector, rank: int) -> ir.Value:
    shaped = vector.astype(np.float32).reshape(1, -1, *(1,) * (rank - 2))
    return add_initializer(graph, name, shaped)


def _split(array: npt.NDArray[np.float64], shape: tuple[int, ...]) -> tuple[_Vector, _Vector]:
    """Γ as one number per channel [O] times one per place [1, 1, H, W]; else ones and Γ."""
    whole = np.broadcast_to(array, (1, *shape[1:]))
    matrix = whole.reshape(shape[1], -1)
    row, column = np.unravel_index(np.abs(matrix).argmax(), matrix.shape)
    ones = np.ones(shape[1])
    if matrix[row, column] == 0:
        return ones, whole
    by_channel, by_place = matrix[:, column], matrix[row] / matrix[row, column]
    is_product = np.abs(np.outer(by_channel, by_place) - matrix) <= _SAME * np.abs(matrix)
    if not is_product.all():
        return ones, whole
    return by_channel, by_place.reshape(1, 1, *shape[2:])
