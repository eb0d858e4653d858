"""Express PyTorch's padding in TensorFlow's terms, exactly.

PyTorch pads both sides alike; TensorFlow's SAME pads the far side more. At stride 2 on an
even size the two disagree, and LCE's converter turns an explicit pad of that form back
into SAME, silently. Turning the whole network by 180° swaps near and far side: the input
is reversed once, every kernel is flipped, and PyTorch's padding then is SAME. It costs
one REVERSE_V2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from bibench_deploy.errors import LoweringError
from bibench_deploy.graph.facts import Window, binary_convs, shape_of, window_of

Amounts = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class LayerPadding:
    """How one convolution or pooling is padded in TensorFlow.

    Attributes:
        mode: TensorFlow's own `same` or `valid`; `explicit` where neither is right.
        amounts: ((top, bottom), (left, right)) to add for `explicit`; a negative number
            is what to cut off, for `valid` too.
    """

    mode: Literal["same", "valid", "explicit"]
    amounts: Amounts

    def cut(self, window: Window) -> tuple[slice, slice]:
        """Rows and columns to keep before the window slides: what lies before it is cut off.

        A strided 1×1 window only picks numbers: there the cut takes the strides along.
        """
        (top, _), (left, _) = self.amounts
        is_picking = window.kernel == (1, 1) and self.mode == "valid"
        down, across = window.strides if is_picking else (1, 1)
        return slice(max(-top, 0), None, down), slice(max(-left, 0), None, across)


@dataclass(frozen=True)
class PaddingPlan:
    """Orientation of the network, and the padding of each of its windows.

    Attributes:
        is_rotated: whether the input is turned by 180° and kernels are flipped.
        layers: for each Conv, MaxPool and AveragePool.
    """

    is_rotated: bool
    layers: dict[ir.Node, LayerPadding]


def plan_padding(model: ir.Model) -> PaddingPlan:
    """Choose the orientation in which most layers need no explicit padding.

    Raises:
        LoweringError: a binary layer or a pooling needs explicit padding either way; zeros
            before a sign would count as +1, and in a pooling as numbers of the map.
    """
    fixed = {conv.node for conv in binary_convs(model)}
    fixed |= {node for node in model.graph if node.op_type in ("MaxPool", "AveragePool")}
    plans = [_plan(model, is_rotated) for is_rotated in (False, True)]

    def cost(plan: PaddingPlan) -> tuple[int, int, bool]:
        explicit = [node for node, layer in plan.layers.items() if layer.mode == "explicit"]
        return (sum(node in fixed for node in explicit), len(explicit), plan.is_rotated)

    best = min(plans, key=cost)
    stuck = [
        node for node, layer in best.layers.items() if layer.mode == "explicit" and node in fixed
    ]
    if stuck:
        raise LoweringError("lce", [_stuck_reason(node) for node in stuck])
    return best


def _stuck_reason(node: ir.Node) -> str:
    source = node.inputs[0]
    assert source is not None
    what = "a binary convolution" if node.op_type == "Conv" else f"this {node.op_type}"
    return (
        f"{node.name}: padding {list(window_of(node).pads)} of {what} on "
        f"{list(shape_of(source)[2:])} is neither SAME nor VALID in TensorFlow; "
        "use padding k // 2, or none"
    )


def _plan(model: ir.Model, is_rotated: bool) -> PaddingPlan:
    layers = {
        node: _layer_padding(node, is_rotated)
        for node in model.graph
        if node.op_type in ("Conv", "MaxPool", "AveragePool") and node.domain == ""
    }
    return PaddingPlan(is_rotated, layers)


def _layer_padding(node: ir.Node, is_rotated: bool) -> LayerPadding:
    window = window_of(node)
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    amounts, same = [], []
    for axis in (0, 1):
        size, out = shape_of(source)[2 + axis], shape_of(result)[2 + axis]
        kernel, stride = window.kernel[axis], window.strides[axis]
        reach = (out - 1) * stride + (kernel - 1) * window.dilations[axis] + 1
        near = window.pads[axis]
        # What the last window really reads past the end; negative where it reads less.
        far = reach - size - near
        amounts.append((far, near) if is_rotated else (near, far))
        total = max(reach - size, 0)
        same.append(out == -(-size // stride) and amounts[-1] == (total // 2, total - total // 2))
    pair = (amounts[0], amounts[1])
    if all(same):
        return LayerPadding("same", ((0, 0), (0, 0)))
    if all(near <= 0 and far <= 0 for near, far in pair):
        return LayerPadding("valid", ((min(pair[0][0], 0), 0), (min(pair[1][0], 0), 0)))
    return LayerPadding("explicit", pair)
