"""Read `x[mask] = number` as the choice that it is, without a list of the places in between.

PyTorch's exporter writes it as NonZero of the mask, and ScatterND of the number to all places
found: `x = x.sign(); x[x == 0] = 1`, say. How many places there are depends on the input, and
no engine has tensors whose size does; a Where computes the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer


def replace_masked_writes(model: ir.Model) -> bool:
    """Replace each ScatterND of one number to the places of a mask by a Where, in place.

    Shapes must have been inferred and constants folded: the mask is as large as the tensor
    that is written to, and the number is known.

    Returns:
        Whether anything was replaced; what found and counted the places is then unused.
    """
    is_changed = False
    for node in list(model.graph):
        if node.op_type != "ScatterND" or node.domain != "":
            continue
        if node.attributes.get_string("reduction", "none") != "none":
            continue
        data, places, updates = node.inputs
        mask, number = _mask_of(places), _number_in(updates)
        if data is None or mask is None or number is None:
            continue
        if data.shape is None or not data.shape.is_static() or mask.shape != data.shape:
            continue
        _replace(model.graph, node, data, mask, number)
        is_changed = True
    return is_changed


def _mask_of(places: ir.Value | None) -> ir.Value | None:
    """The mask whose true places are listed, one place a row; None where it is another list."""
    transpose = _producer(places, "Transpose")
    # Without `perm` a Transpose turns all axes around: of two, that is the same.
    if transpose is None or tuple(transpose.attributes.get_ints("perm") or (1, 0)) != (1, 0):
        return None
    found = _producer(transpose.inputs[0], "NonZero")
    mask = found.inputs[0] if found is not None else None
    return mask if mask is not None and mask.dtype == ir.DataType.BOOL else None


# What repeats, picks or reshapes one number, and leaves it that number.
_REPEATING = frozenset(["Expand", "Flatten", "GatherND", "Reshape", "Slice", "Squeeze", "Tile",
                        "Transpose", "Unsqueeze"])  # fmt: skip


def _number_in(updates: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The one number that a tensor holds, however often; None where it may hold others."""
    while updates is not None:
        array = constant_of(updates)
        if array is not None:
            is_one = array.size > 0 and bool((array == array.flat[0]).all())
            return np.asarray(array.flat[0]) if is_one else None
        node = updates.producer()
        if node is None or node.domain != "":
            return None
        if node.op_type == "ConstantOfShape":
            filler = node.attributes.get("value")
            return (
                np.asarray(filler.as_tensor().numpy().flat[0])
                if filler is not None
                else np.zeros((), np.float32)
            )
        updates = node.inputs[0] if node.op_type in _REPEATING else None
    return None


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and (node.domain, node.op_type) == ("", op_type) else None


def _replace(
    graph: ir.Graph, node: ir.Node, data: ir.Value, mask: ir.Value, number: npt.NDArray[np.generic]
) -> None:
    output = node.outputs[0]
    expand = _producer(mask, "Expand")
    # The exporter spreads every mask to the size that it has, which can hide a comparison.
    if expand is not None and expand.inputs[0] is not None:
        mask = expand.inputs[0]
    constant = add_initializer(graph, f"{output.name}_number", number)
    choice = ir.node("Where", [mask, constant, data], name=node.name)
    output.replace_all_uses_with(choice.outputs[0], replace_graph_outputs=True)
    graph.insert_before(node, choice)
    graph.remove(node, safe=True)
    choice.outputs[0].name = output.name
    choice.outputs[0].type, choice.outputs[0].shape = data.type, data.shape
