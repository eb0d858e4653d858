"""Drop a clip or a PReLU that only signs read: both leave on which side of a number x lies.

Requires: canonical binarization.
Ensures: no Clip (Hardtanh), PRelu or LeakyRelu stands between a tensor and the signs that
alone read it; neither in front of a max pooling, nor of constants that are added. What
something else reads, a shortcut for instance, stays.

The sign of clip(x) + s is that of x + s where low + s < 0 < high + s. Within the bounds
both are one number. Above them x + s is larger than high + s > 0, below them smaller than
low + s < 0, and rounding a sum of two numbers never changes its sign: this is exact. At
low + s = 0 or high + s = 0 the clip may change signs and stays.

The sign of prelu(x) + s with a slope a > 0 is that of x + s where s ≤ 0, and of x + s/a
where s > 0, but for the rounding of a · x and s/a. It stays where the sign of that would
never change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.graph.value_range import value_range
from bibench_deploy.lowering.sign_places import LAYOUT

_Vector = npt.NDArray[np.float64]

# A smaller slope lets numbers vanish that are far from zero themselves.
_SMALLEST_SLOPE = 2.0**-20
# Engines take what is closer to zero for zero.
_SMALLEST = float(np.finfo(np.float32).tiny)


def drop_clip_before_sign(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    compares = {conv.binarization.nodes[0] for conv in binary_convs(model)}
    # From the last one, so that of two in a row both go.
    for node in reversed(list(model.graph)):
        if node.op_type not in ("Clip", "PRelu", "LeakyRelu") or node.domain != "":
            continue
        source, output = node.inputs[0], node.outputs[0]
        reached = _Reached([], False)
        if source is None or not _only_signs_read(output, compares, reached):
            continue
        if node.op_type == "Clip":
            is_dropped = _is_around(node, reached)
        else:
            is_dropped = _scale_shifts(model.graph, node, reached)
        if is_dropped:
            output.replace_all_uses_with(source)
            model.graph.remove(node, safe=True)


@dataclass
class _Reached:
    """What lies between a tensor and the signs that read it.

    Attributes:
        shifts: each Add of constants.
        is_signed_as_it_is: whether a sign reads the tensor without such an Add.
    """

    shifts: list[ir.Node]
    is_signed_as_it_is: bool


def _only_signs_read(
    value: ir.Value, compares: set[ir.Node], reached: _Reached, *, is_shifted: bool = False
) -> bool:
    """Whether nothing but signs comes of a tensor; notes what is in between."""
    if value.is_graph_output() or not value.uses():
        return False
    for use in value.uses():
        node = use.node
        if node in compares:
            reached.is_signed_as_it_is |= not is_shifted
            continue
        if _constant_of_add(node) is not None and not is_shifted:
            reached.shifts.append(node)
            if not _only_signs_read(node.outputs[0], compares, reached, is_shifted=True):
                return False
            continue
        # The largest of clipped numbers is the largest number, clipped.
        if node.op_type != "MaxPool" and LAYOUT not in node.metadata_props:
            return False
        if len(node.outputs) != 1:
            return False
        if not _only_signs_read(node.outputs[0], compares, reached, is_shifted=is_shifted):
            return False
    return True


def _constant_of_add(node: ir.Node) -> _Vector | None:
    """What an Add adds: one number, or one per channel; else None."""
    if node.op_type != "Add" or node.domain != "" or LAYOUT in node.metadata_props:
        return None
    arrays = [array for value in node.inputs if (array := constant_of(value)) is not None]
    output = shape_of(node.outputs[0])
    if len(arrays) != 1 or len(output) < 2:
        return None
    (array,) = arrays
    aligned = (1,) * (len(output) - array.ndim) + array.shape
    if array.size != 1 and (len(aligned) != len(output) or array.size != aligned[1]):
        return None
    return array.astype(np.float64).reshape(-1)


def _is_around(clip: ir.Node, reached: _Reached) -> bool:
    """Whether every sign's threshold lies within a clip's bounds."""
    bounds = [constant_of(item) for item in clip.inputs[1:]]
    if any(
        item is not None and array is None
        for item, array in zip(clip.inputs[1:], bounds, strict=True)
    ):
        return False  # computed bounds
    low, high = (*bounds, None, None)[:2]
    shifts = [np.zeros(1)] if reached.is_signed_as_it_is else []
    for node in reached.shifts:
        shift = _constant_of_add(node)
        assert shift is not None
        shifts.append(shift)
    shift = np.concatenate(shifts)
    is_below = low is None or (float(low.item()) + shift <= -_SMALLEST).all()
    is_above = high is None or (float(high.item()) + shift >= _SMALLEST).all()
    return bool(is_below and is_above)


def _scale_shifts(graph: ir.Graph, node: ir.Node, reached: _Reached) -> bool:
    """Let what is added behind a PReLU be added before it; False where that cannot be."""
    if node.op_type == "LeakyRelu":
        slopes = np.full(1, node.attributes.get_float("alpha", 0.01), np.float64)
    else:
        array, output = constant_of(node.inputs[1]), shape_of(node.outputs[0])
        if array is None or len(output) < 2:
            return False
        aligned = (1,) * (len(output) - array.ndim) + array.shape
        if array.size != 1 and (len(aligned) != len(output) or array.size != aligned[1]):
            return False
        slopes = array.astype(np.float64).reshape(-1)
        if any(shape_of(add.outputs[0])[1] != output[1] for add in reached.shifts):
            return False  # channels were moved on the way
    if (slopes < _SMALLEST_SLOPE).any():
        return False
    moved = []
    low, high = value_range(node.inputs[0])
    for add in reached.shifts:
        shift = _constant_of_add(add)
        assert shift is not None
        moved.append(np.where(shift > 0, shift / slopes, shift).astype(np.float32))
    signed = [*moved, np.zeros(1, np.float32)] if reached.is_signed_as_it_is else moved
    if any(low + shift.min() >= 0 or high + shift.max() <= 0 for shift in signed):
        return False  # a sign that never changes would not be found to be one
    for add, before in zip(reached.shifts, moved, strict=True):
        index = 0 if constant_of(add.inputs[0]) is not None else 1
        rank = len(shape_of(add.outputs[0]))
        shaped = before.reshape(1, -1, *(1,) * (rank - 2))
        add.replace_input_with(index, add_initializer(graph, f"{add.name}_before", shaped))
    return True
