"""Turn a channel shuffle into one Gather of channels.

Requires: a graph as `load_graph` gives it.
Ensures: no Reshape → Transpose → Reshape (ShuffleNet's channel shuffle, Zhang et al. 2018) is
left whose only effect is another order of channels; a Gather along the channels stands
there. Engines that keep channels last would move the whole map into PyTorch's order, and
back. What is computed is the same to the bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import only_reader, shape_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.sign_places import LAYOUT, mark_layout


def channel_shuffle(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    graph = model.graph
    for first in list(graph):
        chain = _chain(first)
        order = None if chain is None else _channel_order(*chain)
        source = first.inputs[0]
        if chain is None or order is None or source is None:
            continue
        last = chain[2]
        output = last.outputs[0]
        is_layout = LAYOUT in last.metadata_props
        indices = add_initializer(graph, f"{last.name}_order", order)
        gather = ir.node("Gather", [source, indices], attributes={"axis": 1}, name=last.name)
        result = gather.outputs[0]
        result.shape, result.type = output.shape, output.type
        output.replace_all_uses_with(result, replace_graph_outputs=True)
        graph.insert_after(last, gather)
        for node in reversed(chain):
            graph.remove(node, safe=True)
        result.name = output.name
        if is_layout:
            mark_layout(gather)


def _chain(first: ir.Node) -> tuple[ir.Node, ir.Node, ir.Node] | None:
    """A Reshape, the Transpose that alone reads it, and the Reshape that alone reads that."""
    if first.op_type != "Reshape":
        return None
    second = only_reader(first.outputs[0])
    if second is None or second.op_type != "Transpose":
        return None
    third = only_reader(second.outputs[0])
    if third is None or third.op_type != "Reshape":
        return None
    # Some in front of what is binarized and some behind it are two things.
    marks = {LAYOUT in node.metadata_props for node in (first, second, third)}
    return (first, second, third) if len(marks) == 1 else None


def _channel_order(first: ir.Node, second: ir.Node, third: ir.Node) -> npt.NDArray[np.int64] | None:
    """Which channel comes to each place, or None where more than channels move."""
    source = first.inputs[0]
    assert source is not None
    shape = shape_of(source)
    if len(shape) != 4 or shape_of(third.outputs[0]) != shape:
        return None
    numbers = np.arange(np.prod(shape)).reshape(shape)
    axes = second.attributes.get_ints("perm", ()) or None
    moved = numbers.reshape(shape_of(first.outputs[0])).transpose(axes).reshape(shape)
    order: npt.NDArray[np.int64] = moved[0, :, 0, 0] // (shape[2] * shape[3])
    return order if (moved == numbers[:, order]).all() else None
