"""Read the pieces of a split tensor directly, without a sequence of tensors in between.

PyTorch's exporter writes `chunk` and `split` as SplitToSequence and SequenceAt; no engine
has sequences, and ONNX infers no shapes through them. Each piece is a Slice of the tensor.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer


def replace_split_sequences(model: ir.Model) -> bool:
    """Replace each SequenceAt of a SplitToSequence by a Slice, in place.

    Shapes must have been inferred and constants folded, so that it is known which piece is
    read and how long it is.

    Returns:
        Whether anything was replaced; new shapes can then be inferred.
    """
    is_changed = False
    for node in list(model.graph):
        if node.op_type != "SequenceAt" or node.domain != "" or node.inputs[0] is None:
            continue
        split = node.inputs[0].producer()
        index = constant_of(node.inputs[1])
        if split is None or split.op_type != "SplitToSequence" or index is None:
            continue
        place = _place(split, int(index.item()))
        if place is not None:
            _replace(model.graph, node, split, *place)
            is_changed = True
    return is_changed


def _place(split: ir.Node, index: int) -> tuple[int, int, int] | None:
    """(axis, start, end) of a piece, or None where that is not known."""
    source = split.inputs[0]
    assert source is not None
    if source.shape is None:
        return None
    axis = split.attributes.get_int("axis", 0) % len(source.shape)
    size = source.shape[axis]
    if not isinstance(size, int):
        return None
    given = constant_of(split.inputs[1]) if len(split.inputs) > 1 else np.array(1)
    if given is None:
        return None
    if given.ndim == 0:
        step = int(given.item())
        edges = [*range(0, size, step), size]
    else:
        edges = [0, *np.cumsum(given).tolist()]
    start, end = list(itertools.pairwise(edges))[index]
    return axis, start, end


def _replace(
    graph: ir.Graph, node: ir.Node, split: ir.Node, axis: int, start: int, end: int
) -> None:
    source, output = split.inputs[0], node.outputs[0]
    assert source is not None
    assert source.shape is not None
    name = str(output.name)
    starts, ends, axes = (
        add_initializer(graph, f"{name}_{what}", np.array([number], np.int64))
        for what, number in (("start", start), ("end", end), ("axis", axis))
    )
    last = ir.node("Slice", [source, starts, ends, axes], name=node.name)
    added = [last]
    keeps_axis = len(split.inputs) > 1 and split.inputs[1] is not None
    if not keeps_axis and not split.attributes.get_int("keepdims", 1):
        sizes = [size for place, size in enumerate(source.shape) if place != axis]
        shape = add_initializer(graph, f"{name}_shape", np.array(sizes, np.int64))
        last.outputs[0].name = f"{name}_piece"
        last = ir.node("Reshape", [last.outputs[0], shape], name=f"{node.name}_squeezed")
        added.append(last)
    output.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
    graph.insert_before(node, added)
    graph.remove(node, safe=True)
    last.outputs[0].name = name
    last.outputs[0].type = source.type
