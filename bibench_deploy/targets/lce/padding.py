"""Express PyTorch's padding in TensorFlow's terms, exactly.

PyTorch pads both sides alike; TensorFlow's SAME pads the far side more. At stride 2 on an
even size the two disagree, and LCE's converter turns an explicit pad of that form back
into SAME, silently. Turning the whole network by 180° swaps near and far side: the input
is reversed once, every kernel is flipped, and PyTorch's padding then is SAME. It costs
one REVERSE_V2.

A float layer that is neither SAME nor VALID in the chosen orientation is padded explicitly,
by what its windows really read: LCE takes such a pad for SAME only where it is SAME. A
binary layer's zero padding has no such form: it becomes a part of a SAME layer, or its input
channels are doubled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, Window, binary_convs, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.double_input_channels import double_input_channels
from bibench_deploy.lowering.trim_kernels import trim_kernels
from bibench_deploy.lowering.widen_padding import Pads, widen_padding

Amounts = tuple[tuple[int, int], tuple[int, int]]

# Metadata of a model whose orientation is settled: "turned" by 180° or "upright".
ORIENTATION = "bibench.orientation"


@dataclass(frozen=True)
class LayerPadding:
    """How one convolution or pooling is padded in TensorFlow.

    Attributes:
        mode: TensorFlow's own `same` or `valid`; `explicit` where neither is right.
        amounts: ((top, bottom), (left, right)) to add for `explicit`; a negative number
            is what to cut off, for `same` and `valid` too.
        pad: the Pad in front of a binary layer's sign that `same` with padding of +1
            stands for: the layer reads what that node reads. None where there is none.
    """

    mode: Literal["same", "valid", "explicit"]
    amounts: Amounts
    pad: ir.Node | None = None

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
        to_widen: binary convolutions that are a part of a SAME one, and its (top, left,
            bottom, right).
        to_double: the other binary convolutions whose zero padding LCE cannot hold.
    """

    is_rotated: bool
    layers: dict[ir.Node, LayerPadding]
    to_widen: dict[ir.Node, Pads]
    to_double: frozenset[ir.Node]

    def read_part(self, node: ir.Node) -> tuple[slice, slice]:
        """Rows and columns of the tensor before its sign that a binary layer reads."""
        layer = self.layers[node]
        if layer.pad is None:
            return layer.cut(window_of(node))
        source = layer.pad.inputs[0]
        assert source is not None
        top, left, bottom, right = _pad_amounts(layer.pad)
        down, across = (bottom, right) if self.is_rotated else (top, left)
        height, width = shape_of(source)[2:]
        rows, columns = layer.cut(window_of(node))
        return (
            slice(down + rows.start, down + height),
            slice(across + columns.start, across + width),
        )


def fit_padding(model: ir.Model) -> None:
    """Settle the orientation, and rewrite binary layers that do not fit it.

    A lowering pass, in place. Requires: everything else has been lowered. Ensures: every
    binary convolution is SAME or VALID, and `plan_padding` keeps to the orientation.
    """
    trim_kernels(model)
    plan = plan_padding(model)
    model.metadata_props[ORIENTATION] = "turned" if plan.is_rotated else "upright"
    widen_padding(model, plan.to_widen)
    double_input_channels(model, plan_padding(model).to_double)


def plan_padding(model: ir.Model) -> PaddingPlan:
    """Choose the orientation that costs least, and say how each window is padded in it.

    The costs, the first that differs decides: multiplications of binary layers whose input
    channels must be doubled, numbers that explicit pads copy, and the turning itself.
    """
    binary = {conv.node: conv for conv in binary_convs(model)}
    settled = model.metadata_props.get(ORIENTATION)
    orientations = [False, True] if settled is None else [settled == "turned"]
    plans = [_plan(model, binary, is_rotated) for is_rotated in orientations]
    return min(plans, key=lambda plan: _cost(plan, binary))


def _cost(plan: PaddingPlan, binary: dict[ir.Node, BinaryConv]) -> tuple[int, int, bool]:
    doubled = sum(
        prod(_shape(node, 1)) * prod(shape_of(node.outputs[0])[2:]) for node in plan.to_double
    )
    copied = sum(
        prod(_shape(node, 0))
        for node, layer in plan.layers.items()
        if layer.mode == "explicit"
        or (layer.pad is None and node in binary and _pad_of_one(binary[node]) is not None)
    )
    return doubled, copied, plan.is_rotated


def _plan(model: ir.Model, binary: dict[ir.Node, BinaryConv], is_rotated: bool) -> PaddingPlan:
    layers: dict[ir.Node, LayerPadding] = {}
    to_widen: dict[ir.Node, Pads] = {}
    to_double: set[ir.Node] = set()
    for node in model.graph:
        is_window = node.op_type in ("Conv", "MaxPool", "AveragePool") and node.domain == ""
        if not is_window or len(shape_of(node.outputs[0])) != 4:
            continue
        window = window_of(node)
        if node in binary and (pad := _pad_of_one(binary[node])) is not None:
            layers[node] = _padded_with_one(node, window, pad, is_rotated)
            continue
        layer = layers[node] = _layer_padding(node, window, _shape(node, 0), is_rotated)
        if node in binary and _is_wrong_with_zeros(layer, window, _shape(node, 0)):
            wider = _same_that_holds_it(node, window, is_rotated)
            if wider is None:
                to_double.add(node)
            else:
                to_widen[node] = wider
    return PaddingPlan(is_rotated, layers, to_widen, frozenset(to_double))


def _same_that_holds_it(node: ir.Node, window: Window, is_rotated: bool) -> Pads | None:
    """Padding that is SAME and gives all outputs of a layer and few others; None without one."""
    nears, fars = [], []
    work = 1.0
    for axis in (0, 1):
        size, out = _shape(node, 0)[2 + axis], shape_of(node.outputs[0])[2 + axis]
        reach, stride = (window.kernel[axis] - 1) * window.dilations[axis] + 1, window.strides[axis]
        same_out = -(-size // stride)
        total = max((same_out - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        near, far = (more, less) if is_rotated else (less, more)
        first, rest = divmod(near - window.pads[axis], stride)
        if size < reach or first < 0 or rest or first + out > same_out:
            return None
        nears.append(near)
        fars.append(far)
        work *= same_out / out
    # From there on, doubled input channels cost no more.
    return (nears[0], nears[1], fars[0], fars[1]) if work < 2 else None


def _is_wrong_with_zeros(layer: LayerPadding, window: Window, shape: tuple[int, ...]) -> bool:
    """Whether LCE cannot hold the zero padding of a binary convolution on such a map."""
    if layer.mode != "same":
        return layer.mode == "explicit"
    # LCE's correction for zero padding is wrong where a kernel is larger than its map.
    return any(
        size + min(near, 0) < (kernel - 1) * dilation + 1
        for size, (near, _), kernel, dilation in zip(
            shape[2:], layer.amounts, window.kernel, window.dilations, strict=True
        )
    )


def _pad_of_one(conv: BinaryConv) -> ir.Node | None:
    """The Pad in front of a binary layer's sign that the sign makes +1, else None."""
    node = conv.binarization.source.producer()
    if node is None or node.op_type != "Pad" or any(window_of(conv.node).pads):
        return None
    filler = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    is_constant = node.attributes.get_string("mode", "constant") == "constant"
    amounts = constant_of(node.inputs[1])
    is_plain = len(node.inputs) < 4 and amounts is not None and amounts.size == 8
    if not is_constant or not is_plain or filler is None or filler.item() <= 0:
        return None
    assert amounts is not None
    is_spatial = not amounts[[0, 1, 4, 5]].any() and amounts.min() >= 0
    return node if is_spatial else None


def _pad_amounts(pad: ir.Node) -> tuple[int, int, int, int]:
    amounts = constant_of(pad.inputs[1])
    assert amounts is not None
    return int(amounts[2]), int(amounts[3]), int(amounts[6]), int(amounts[7])


def _padded_with_one(node: ir.Node, window: Window, pad: ir.Node, is_rotated: bool) -> LayerPadding:
    """SAME with padding of +1 where that fits, else VALID behind the Pad."""
    whole = replace(window, pads=_pad_amounts(pad))
    layer = _layer_padding(node, whole, _shape(pad, 0), is_rotated)
    if layer.mode == "same":
        return replace(layer, pad=pad)
    return _layer_padding(node, window, _shape(node, 0), is_rotated)


def _layer_padding(
    node: ir.Node, window: Window, shape: tuple[int, ...], is_rotated: bool
) -> LayerPadding:
    """The padding of a window that slides over a map of some shape."""
    amounts: list[tuple[int, int]] = []
    is_same = True
    for axis in (0, 1):
        size, out = shape[2 + axis], shape_of(node.outputs[0])[2 + axis]
        kernel, stride = window.kernel[axis], window.strides[axis]
        reach = (out - 1) * stride + (kernel - 1) * window.dilations[axis] + 1
        near = window.pads[axis]
        # What the last window really reads past the end; negative where it reads less.
        far = reach - size - near
        near, far = (far, near) if is_rotated else (near, far)
        amounts.append((near, far))
        # TensorFlow's SAME, of what is left where the near side is cut off.
        left = size + min(near, 0)
        total = max(reach - left, 0)
        fits = (max(near, 0), max(far, 0)) == (total // 2, total - total // 2)
        is_same = is_same and fits and out == -(-left // stride)
    pair = (amounts[0], amounts[1])
    cut = ((min(pair[0][0], 0), 0), (min(pair[1][0], 0), 0))
    is_same = is_same and not _counts_or_skips(node, window)
    is_whole = all(near == 0 and far == 0 for near, far in pair)
    if all(near <= 0 and far <= 0 for near, far in pair) and not (is_same and is_whole):
        return LayerPadding("valid", cut)
    return LayerPadding("same", cut) if is_same else LayerPadding("explicit", pair)


def _counts_or_skips(node: ir.Node, window: Window) -> bool:
    """Whether a pooling differs from TensorFlow's SAME: it counts padding, or is dilated."""
    is_counting = bool(node.attributes.get_int("count_include_pad", 0))
    return is_counting or (node.op_type != "Conv" and window.dilations != (1, 1))


def _shape(node: ir.Node, index: int) -> tuple[int, ...]:
    value = node.inputs[index]
    assert value is not None
    return shape_of(value)
