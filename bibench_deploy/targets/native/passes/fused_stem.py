"""Write the float convolution that reads the image as one operator with what follows it.

Requires: binary layers as the library's operators; batch norm folded into float convolutions.
Ensures: a convolution of up to four input channels whose result, behind a clip and a max pooling
where there are any, is binarized, is a `FloatStem` that gives numbers with channels last and packed
signs. What is computed stays the same but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import only_reader, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import channel_step
from bibench_deploy.targets.native.operators import (
    BINARIZE,
    FLOAT_STEM,
    NUMBERS_OF,
    SIGNS_OF,
    is_own,
    own_node,
)
from bibench_deploy.targets.native.passes.channels_last import TO_NCHW, TO_NHWC, is_transpose

# Of an image. ONNX Runtime's own convolution is faster where there are many channels.
_MOST_INPUTS = 4


def fused_stem(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "":
            _fuse(model, node)
    RemoveUnusedNodesPass()(model)
    model.graph.sort()


@dataclass
class _Chain:
    """What follows the convolution.

    Attributes:
        end: its last tensor.
        clip: lower and upper bound.
        pool: the MaxPool.
        binarized: the Binarize that reads it.
        offset: what is added before that, [O].
    """

    end: ir.Value
    clip: tuple[float, float] | None = None
    pool: ir.Node | None = None
    binarized: ir.Node | None = None
    offset: npt.NDArray[np.float64] | None = None


def _fuse(model: ir.Model, conv: ir.Node) -> None:
    graph = model.graph
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
    if chain.offset is not None:
        offset = chain.offset.astype(np.float32)
        inputs.append(add_initializer(graph, f"{name}_sign_offset", offset))
    stem = own_node(FLOAT_STEM, inputs, name, (count, height, width, channels), attributes)
    graph.append(stem)
    numbers = stem.outputs[NUMBERS_OF[FLOAT_STEM]]
    packed = chain.binarized.outputs[SIGNS_OF[BINARIZE]]
    packed.replace_all_uses_with(stem.outputs[SIGNS_OF[FLOAT_STEM]])
    chain.binarized.outputs[NUMBERS_OF[BINARIZE]].replace_all_uses_with(numbers)
    for use in chain.end.uses():
        if is_transpose(use.node, TO_NHWC) and not use.node.outputs[0].is_graph_output():
            use.node.outputs[0].replace_all_uses_with(numbers)
    RemoveUnusedNodesPass()(model)
    if chain.end.uses() or chain.end.is_graph_output():
        turned = ir.node("Transpose", [numbers], {"perm": TO_NCHW}, name=f"{name}_given")
        output = turned.outputs[0]
        output.name, output.dtype, output.shape = turned.name, ir.DataType.FLOAT, chain.end.shape
        graph.append(turned)
        chain.end.replace_all_uses_with(output, replace_graph_outputs=True)


def _follow(value: ir.Value) -> _Chain | None:
    """Follow a convolution's output up to where it is binarized; None where it is not."""
    chain = _Chain(value)
    while not chain.end.is_graph_output():
        readers = [use.node for use in chain.end.uses()]
        _find_sign(chain, readers)
        others = [node for node in readers if not _leads_to(node, chain.binarized)]
        if any(node.graph is not value.graph for node in others):
            others = []  # a branch of an If reads it, so that it has to be there
        bounds = _bounds(others[0]) if len(others) == 1 else None
        if chain.binarized is not None:
            has_numbers = bool(chain.binarized.outputs[NUMBERS_OF[BINARIZE]].uses())
            # Between low < 0 and high ≥ 0 a clip changes no sign: it may come before the signs.
            is_harmless = bounds is not None and bounds[0] < 0 <= bounds[1]
            if is_harmless and chain.clip is None and chain.offset is None and not has_numbers:
                chain.clip, chain.end = bounds, others[0].outputs[0]
            return chain
        if len(others) != 1 or others[0].domain != "":
            return None
        (node,) = others
        if bounds is not None and chain.clip is None:
            chain.clip = bounds
        elif node.op_type == "MaxPool" and chain.pool is None and _is_plain(node):
            chain.pool = node
        else:
            return None
        chain.end = node.outputs[0]
    return None


def _find_sign(chain: _Chain, readers: list[ir.Node]) -> None:
    """Look for the Binarize of a tensor, or of that plus one constant per channel."""
    for node in readers:
        if is_own(node, BINARIZE):
            chain.binarized = node
            return
    for node in readers:
        reader = only_reader(node.outputs[0]) if node.op_type == "Add" else None
        step = channel_step(node, chain.end, shape_of(chain.end)[1])
        if reader is None or not is_own(reader, BINARIZE) or step is None:
            continue
        if not reader.outputs[NUMBERS_OF[BINARIZE]].uses():
            chain.binarized, chain.offset = reader, step[1]
            return


def _leads_to(node: ir.Node, binarized: ir.Node | None) -> bool:
    return node is binarized or (
        binarized is not None and node.op_type == "Add" and binarized in node.outputs[0].consumers()
    )


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
