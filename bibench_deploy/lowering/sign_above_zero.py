"""Make signs that are +1 at 0 signs of x > 0, for engines that take 0 for −1.

Requires: strict signs; scales and batch norm folded behind each layer.
Ensures: a sign is Greater(x, 0), −1 at 0; or it is Less(x, 0), +1 at 0, and x is what a
binary layer gives through a batch norm of its own. Such numbers are few and known, so a
target moves the batch norm's shift by as much as it takes. Everywhere else the smallest
normal float is added to x, which changes no number but 0. Other readers of x read the sum as
well where that changes no sign behind them, so that it can be added in place.

A 0 that became the smallest float changes a sign behind it where it is turned into a negative
one that nothing is added to: by a negative factor, or by a convolution without a bias; and
where the sign behind it is −1 at 0.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import channel_step
from bibench_deploy.lowering.layer_input import new_node
from bibench_deploy.lowering.sign_places import LAYOUT, sign_base
from bibench_deploy.lowering.strict_sign import compare_above


def sign_above_zero(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    convs = binary_convs(model)
    layers = {conv.node for conv in convs}
    strict: set[ir.Value] = set()
    lenient: dict[ir.Value, list[ir.Node]] = {}
    for compare in dict.fromkeys(conv.binarization.nodes[0] for conv in convs):
        base = sign_base(compare)
        if compare.op_type == "Greater":
            strict.add(base)
        elif compare.op_type == "Less":  # any other form is of a layer that no target holds
            lenient.setdefault(base, []).append(compare)
    for base, compares in lenient.items():
        if base in strict or not _is_of_layer(base, layers):
            _add_tiny(model.graph, base, compares)
            for compare in compares:
                compare_above(model.graph, compare)


def _is_of_layer(value: ir.Value, layers: set[ir.Node]) -> bool:
    """Whether a value is what a binary layer gives, or the batch norm that alone reads that."""
    node = value.producer()
    if node is not None and node.op_type == "BatchNormalization" and node.inputs[0] is not None:
        reads = node.inputs[0]
        node = reads.producer() if len(reads.uses()) == 1 else None
    return node in layers


def _add_tiny(graph: ir.Graph, value: ir.Value, compares: list[ir.Node]) -> None:
    smallest = np.full((), np.finfo(np.float32).tiny, np.float32)
    tiny = add_initializer(graph, f"{value.name}_tiny", smallest)
    add = new_node("Add", [value, tiny], f"{value.name}_above_zero", shape_of(value))
    others = [use.node for use in value.uses() if not _leads_to(use.node, compares)]
    is_shared = all(_keeps_signs(node, value) for node in others if node is not add)
    for use in list(value.uses()):
        if use.node is not add and (is_shared or use.node not in others):
            use.node.replace_input_with(use.idx, add.outputs[0])
    if (producer := value.producer()) is None:
        graph.insert_before(graph[0], add)
    else:
        graph.insert_after(producer, add)


def _leads_to(node: ir.Node, compares: list[ir.Node]) -> bool:
    """Whether a node is one of some signs, or only moves the numbers of one."""
    if LAYOUT in node.metadata_props:
        return any(_leads_to(use.node, compares) for use in node.outputs[0].uses())
    return node in compares


def _keeps_signs(reader: ir.Node, value: ir.Value) -> bool:
    """Whether no sign behind a reader of a value notices the smallest float in place of 0."""
    pending, seen = [(reader, value)], {reader}
    while pending:
        node, read = pending.pop()
        effect = _effect_on_zero(node, read)
        if effect is _Effect.HARM:
            return False
        if effect is _Effect.SMALL:
            for use in node.outputs[0].uses():
                if use.node not in seen:
                    seen.add(use.node)
                    pending.append((use.node, node.outputs[0]))
    return True


class _Effect(Enum):
    """What a node makes of the smallest float in place of 0."""

    NONE = "the same as of 0"
    SMALL = "0 or a small positive number"
    HARM = "perhaps a negative number, or another sign"


# What gives 0 for 0 and no negative number for small positive ones.
_PASSING = frozenset(
    ["AveragePool", "Concat", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu",
     "MaxPool", "ReduceMean", "Relu", "Reshape", "Squeeze", "Unsqueeze"]
)  # fmt: skip


def _effect_on_zero(node: ir.Node, value: ir.Value) -> _Effect:
    constants = [array for item in node.inputs if (array := constant_of(item)) is not None]
    moves = node.op_type in _PASSING or LAYOUT in node.metadata_props
    if moves or (node.op_type == "Add" and not constants):
        return _Effect.SMALL
    if node.op_type == "Less":
        return _Effect.NONE
    if node.op_type == "Clip":
        # A bound beside 0 is added on the way, and takes the smallest float in.
        return _Effect.NONE if any(array.any() for array in constants) else _Effect.SMALL
    if node.op_type == "Conv":
        has_bias = len(constants) == 2 and bool(constants[1].all())
        return _Effect.NONE if has_bias else _Effect.HARM
    shape = shape_of(value)
    step = channel_step(node, value, shape[1]) if len(shape) > 1 else None
    if step is None:
        return _Effect.HARM
    factor, offset = step
    if offset.all():
        return _Effect.NONE
    return _Effect.SMALL if (factor > 0).all() and (offset >= 0).all() else _Effect.HARM
