"""Pad a convolution by more zeros than it asks for, and cut off what that adds to its output.

An engine may hold one amount of padding and not another.

Requires: canonical binarization; scales and batch norm folded behind each layer.
Ensures: the convolutions that were asked for have the new padding; a Slice behind them, or
behind their batch norm, keeps the outputs that they had. The same numbers are computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of, window_of
from bibench_deploy.lowering.layer_input import keep_part

Pads = tuple[int, int, int, int]


def widen_padding(model: ir.Model, wider: Mapping[ir.Node, Pads]) -> None:
    """Apply the pass to `model`, in place.

    Args:
        model: the model.
        wider: for each Conv the new (top, left, bottom, right); at the top and left it
            exceeds the old padding by a multiple of the stride.
    """
    for node, pads in wider.items():
        window, source = window_of(node), node.inputs[0]
        assert source is not None
        whole: list[int] = []
        kept: dict[int, slice] = {}
        for axis in (0, 1):
            reach = (window.kernel[axis] - 1) * window.dilations[axis] + 1
            room = shape_of(source)[2 + axis] + pads[axis] + pads[axis + 2] - reach
            whole.append(room // window.strides[axis] + 1)
            first = (pads[axis] - window.pads[axis]) // window.strides[axis]
            kept[2 + axis] = slice(first, first + shape_of(node.outputs[0])[2 + axis])
        node.attributes.pop("auto_pad", None)
        node.attributes["pads"] = ir.AttrInt64s("pads", list(pads))
        keep_part(model.graph, node, (whole[0], whole[1]), kept)
