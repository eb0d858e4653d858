"""Give each of several dilated binary layers on one tensor a sign that is its own.

TensorFlow writes a dilated convolution as a convolution between two operators that move
numbers into the batch and back. Two layers of one dilation on one sign share the first of
them, and LCE then makes neither a binary layer.

Requires: everything else has been lowered.
Ensures: no two dilated binary layers with the same dilations read the same signs. The second
reads max(x, a) with a the lowest float, the third with the next one, and so on: numbers of
the same sign, in tensors that no converter takes for one.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.layer_input import before_sign, feed, new_node


def separate_dilated_layers(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    dilated = [conv for conv in binary_convs(model) if max(conv.facts.dilations) > 1]
    if len(dilated) < 2:
        return
    numbers = _value_numbers(model.graph)
    seen: dict[object, int] = {}
    for conv in dilated:
        source = before_sign(conv)
        key = (numbers[source], conv.facts.dilations)
        count = seen[key] = seen.get(key, -1) + 1
        if count:
            lowest = np.finfo(np.float32).min
            bound = (lowest.view(np.int32) - np.int32(count - 1)).view(np.float32)
            name = f"{conv.node.name}_apart"
            constant = add_initializer(model.graph, f"{name}_bound", np.full((), bound))
            node = new_node("Max", [source, constant], name, shape_of(source))
            feed(model.graph, conv.node, conv, [node])
    RemoveUnusedNodesPass()(model)


def _value_numbers(graph: ir.Graph) -> dict[ir.Value, int]:
    """A number for each value; equal where the same operators compute it from the same values.

    A converter makes one of these, a slice that stands in the graph twice for example.
    """
    numbers: dict[ir.Value, int] = {}
    known: dict[object, int] = {}

    def number_of(key: object) -> int:
        return known.setdefault(key, len(known))

    for source in graph.inputs:
        numbers[source] = number_of(source)
    for node in graph:
        inputs: list[int | None] = []
        for value in node.inputs:
            if value is not None and value not in numbers:
                array = constant_of(value)
                assert array is not None, f"{value.name} is neither computed nor constant"
                content = sha256(np.ascontiguousarray(array).tobytes()).digest()
                numbers[value] = number_of((array.dtype, array.shape, content))
            inputs.append(None if value is None else numbers[value])
        attributes = sorted((key, repr(item.value)) for key, item in node.attributes.items())
        key = (node.domain, node.op_type, tuple(inputs), tuple(attributes))
        for index, output in enumerate(node.outputs):
            numbers[output] = number_of((key, index))
    return numbers
