"""Take windows from poolings with `ceil_mode` that only shape inference counts.

With `ceil_mode` a last window that does not fit is kept, unless it would begin in the far
padding: PyTorch and ONNX Runtime drop that one, ONNX's shape inference counts it. Padding
that only such a window reads can be left out.
"""

from __future__ import annotations

import onnx_ir as ir

_POOLINGS = frozenset(["AveragePool", "LpPool", "MaxPool"])


def drop_idle_windows(graph: ir.Graph) -> bool:
    """Take far padding, or `ceil_mode`, from poolings so that no window begins in padding.

    Returns:
        Whether anything changed, in place; all shapes are forgotten then.
    """
    is_changed = False
    for node in graph:
        if node.op_type not in _POOLINGS or not node.attributes.get_int("ceil_mode", 0):
            continue
        source = node.inputs[0]
        if source is not None and source.shape is not None and source.shape.is_static():
            is_changed = _drop(node, tuple(source.shape.numpy()[2:])) or is_changed
    if is_changed:
        for node in graph:
            for output in node.outputs:
                output.shape = None
    return is_changed


def _drop(node: ir.Node, sizes: tuple[int, ...]) -> bool:
    rank = len(sizes)
    ones = [1] * rank
    kernel = node.attributes.get_ints("kernel_shape") or ones
    strides = node.attributes.get_ints("strides") or ones
    dilations = node.attributes.get_ints("dilations") or ones
    pads = list(node.attributes.get_ints("pads") or [0] * (2 * rank))
    idle, kept = [], []
    for axis, size in enumerate(sizes):
        near, stride = pads[axis], strides[axis]
        room = size + near + pads[rank + axis] - (kernel[axis] - 1) * dilations[axis] - 1
        rest = room % stride
        if rest == 0:
            continue
        if room - rest + stride < size + near:
            kept.append(axis)
        elif rest <= pads[rank + axis]:
            pads[rank + axis] -= rest
        else:
            idle.append(axis)
    is_changed = pads != list(node.attributes.get_ints("pads") or pads)
    if is_changed:
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    # A window shorter than its stride: nothing but the mode itself decides there.
    if idle and not kept:
        node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
        is_changed = True
    return is_changed
