"""Write the float convolution that reads the image as one operator with what follows it.

Requires: the library's operators with channels last; batch norm folded into float convolutions.
Ensures: a convolution of up to four input channels whose result, behind a clip and a max pooling
where there are any, is binarized, is a `FloatStem` that gives numbers with channels last and packed
signs. What is computed stays the same but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.targets.native.operators import (
    BINARIZE,
    FLOAT_STEM,
    NUMBERS_OF,
    SIGNS_OF,
    is_own,
    own_node,
)

# Of an image. ONNX Runtime's own convolution is faster where there are many channels.
_MOST_INPUTS = 4


def fused_stem(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "":
            _fuse(model.graph, node)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()


@dataclass
class _Chain:
    """What follows the convolution; `binarized` are the Binarize nodes, `end` its last tensor."""

    end: ir.Value
    clip: tuple[float, float] | None = None
    pool: ir.Node | None = None
    binarized: list[ir.Node] | None = None


def _fuse(graph: ir.Graph, conv: ir.Node) -> None:
    weight = constant_of(conv.inputs[1])
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    given = None if bias is None else constant_of(bias)
    if weight is None or weight.ndim != 4 or (bias is not None and given is None):
        return
    if weight.shape[1] > _MOST_INPUTS or conv.attributes.get_int("group", 1) != 1:
        return
    chain = _follow(conv.outputs[0])
    if chain is None or chain.binarized is None:
        return
    name, window = conv.name or str(conv.outputs[0].name), window_of(conv)
    array = np.zeros(len(weight), np.float32) if given is None else given.astype(np.float32)
    attributes: dict[str, int | float | tuple[int, ...]] = {
        "strides": window.strides,
        "pads": window.pads,
        "dilations": window.dilations,
    }
    if chain.clip is not None:
        attributes["low"], attributes["high"] = chain.clip
    if chain.pool is not None:
        pooling = window_of(chain.pool)
        attributes.update(
            pool_kernel=pooling.kernel, pool_strides=pooling.strides, pool_pads=pooling.pads
        )
    count, channels, height, width = shape_of(chain.end)
    inputs = [
        conv.inputs[0],
        add_initializer(graph, f"{name}_weights", np.ascontiguousarray(weight)),
        add_initializer(graph, f"{name}_biases", array),
    ]
    stem = own_node(FLOAT_STEM, inputs, name, (count, height, width, channels), attributes)
    graph.append(stem)
    numbers = stem.outputs[NUMBERS_OF[FLOAT_STEM]]
    for node in chain.binarized:
        node.outputs[SIGNS_OF[BINARIZE]].replace_all_uses_with(stem.outputs[SIGNS_OF[FLOAT_STEM]])
        # Its own numbers are those before a clip, which nobody reads who could tell.
        node.outputs[NUMBERS_OF[BINARIZE]].replace_all_uses_with(numbers)
    if chain.end.uses() or chain.end.is_graph_output():
        turned = ir.node("Transpose", [numbers], {"perm": [0, 3, 1, 2]}, name=f"{name}_given")
        output = turned.outputs[0]
        output.name, output.dtype, output.shape = turned.name, ir.DataType.FLOAT, chain.end.shape
        graph.append(turned)
        chain.end.replace_all_uses_with(output, replace_graph_outputs=True)


def _follow(value: ir.Value) -> _Chain | None:
    """Follow a convolution's output up to where it is binarized; None where it is not."""
    chain = _Chain(value)
    while not chain.end.is_graph_output():
        readers = [use.node for use in chain.end.uses()]
        binarized = [node for node in readers if is_own(node, BINARIZE)]
        others = [node for node in readers if node not in binarized]
        if binarized:
            chain.binarized = binarized
            if not any(node.outputs[NUMBERS_OF[BINARIZE]].uses() for node in binarized):
                _take_last_clip(chain, others)
            return chain
        if len(others) != 1 or others[0].domain != "":
            return None
        (node,) = others
        bounds = _bounds(node)
        if bounds is not None and chain.clip is None:
            chain.clip = bounds
        elif node.op_type == "MaxPool" and chain.pool is None and _is_plain(node):
            chain.pool = node
        else:
            return None
        chain.end = node.outputs[0]
    return None


def _take_last_clip(chain: _Chain, others: list[ir.Node]) -> None:
    """Between low < 0 and high ≥ 0 a clip changes no sign: it may come before the signs."""
    bounds = _bounds(others[0]) if len(others) == 1 else None
    if bounds is not None and chain.clip is None and bounds[0] < 0 <= bounds[1]:
        chain.clip = bounds
        chain.end = others[0].outputs[0]
        readers = [use.node for use in chain.end.uses()]
        # Nothing binarizes what comes out of the clip with another sign.
        assert chain.binarized is not None
        chain.binarized += [node for node in readers if is_own(node, BINARIZE)]


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    if node.domain == "" and node.op_type == "Relu":
        return 0.0, float("inf")
    if node.domain != "" or node.op_type != "Clip":
        return None
    found = [-np.inf, np.inf]
    for place, value in enumerate(node.inputs[1:3]):
        array = None if value is None else constant_of(value)
        if value is not None and array is None:
            return None
        if array is not None:
            found[place] = float(array.item())
    return (found[0], found[1]) if found[0] <= found[1] else None


def _is_plain(pool: ir.Node) -> bool:
    window = window_of(pool)
    is_rounded_down = not pool.attributes.get_int("ceil_mode", 0)
    is_covered = all(pad < size for pad, size in zip(window.pads, window.kernel * 2, strict=True))
    has_one_output = len(pool.outputs) == 1
    return window.dilations == (1, 1) and is_rounded_down and is_covered and has_one_output
