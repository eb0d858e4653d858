"""Operators that only move numbers: shapes, axes, slices, pads and copies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.channel_order import is_sequence, map_of_row
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor, optional, required

# TensorFlow Lite transposes no more axes.
_LARGEST_TRANSPOSE = 6
# Height and width of a map.
_PLACES = (2, 3)


def _source(node: ir.Node) -> ir.Value:
    source = node.inputs[0]
    assert source is not None
    return source


def _is_turned(graph: KerasGraph, value: ir.Value, axis: int) -> bool:
    """Whether an axis of a value runs backwards in its tensor."""
    return graph.is_rotated and len(shape_of(value)) == 4 and axis in _PLACES


# Shapes


def _reshape(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source, output = _source(node), node.outputs[0]
    shape = shape_of(output)
    if shape == shape_of(source):
        return graph.tensors[source]
    if map_of_row(output) is not None or _is_cell(source, output):
        return graph.layers.Flatten(name=graph.name(node.name))(graph.tensors[source])
    if is_sequence(source):
        # [N, L, C] and the map [N, 1, L, C] hold their numbers in the same order.
        count, channels, height, width = shape
        rows = graph.reshaped(graph.tensors[source], (count, height, width, channels))
        return graph.turned(rows)
    if is_sequence(output):
        count, channels, width = shape
        return graph.reshaped(graph.turned(graph.tensors[source]), (count, width, channels))
    return graph.give(node, graph.reshaped(graph.in_onnx_order(source), shape))


def _is_cell(source: ir.Value, output: ir.Value) -> bool:
    """Whether a map of one place becomes a row: no number moves."""
    shape = shape_of(source)
    return len(shape) == 4 and shape[2:] == (1, 1) and shape_of(output) == shape[:2]


def _transpose(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = _source(node)
    rank = len(shape_of(source))
    order = list(node.attributes.get_ints("perm", ()) or range(rank)[::-1])
    if rank != 4:
        return graph.give(node, graph.tf.transpose(graph.in_onnx_order(source), order))
    # Turning by 180° is the same whether height and width change places or not.
    keeps_places = {order[2], order[3]} == set(_PLACES)
    tensor = graph.tensors[source]
    tensor = tensor if keeps_places else graph.turned(tensor)
    nhwc = [graph.axis(source, order[axis]) for axis in (0, 2, 3, 1)]
    result = graph.tf.transpose(tensor, nhwc)
    return result if keeps_places else graph.turned(result)


def _check_transpose(node: ir.Node) -> str | None:
    rank = len(shape_of(node.outputs[0]))
    if rank > _LARGEST_TRANSPOSE:
        return (
            f"transposes {rank} axes, TensorFlow Lite knows {_LARGEST_TRANSPOSE}; "
            "merge axes that stay together by reshape"
        )
    return None


# Pieces and their like


def _concat(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    output = node.outputs[0]
    shape = shape_of(output)
    axis = node.attributes.get_int("axis") % len(shape)
    tensors = [_whole_operand(graph, value, shape) for value in node.inputs if value is not None]
    if _is_turned(graph, output, axis):
        tensors.reverse()
    place = graph.axis(output, axis)
    if any(constant_of(value) is not None for value in node.inputs):
        return graph.tf.concat(tensors, place)
    return graph.layers.Concatenate(place, name=graph.name(node.name))(tensors)


def _whole_operand(graph: KerasGraph, value: ir.Value, shape: tuple[int, ...]) -> KerasTensor:
    """A value of the same rank, in full where it is constant: nothing broadcasts here."""
    array = constant_of(value)
    if array is None:
        return graph.tensors[value]
    return graph.mapped(graph.tf.constant(array), array.shape[: len(shape)])


def _split(graph: KerasGraph, node: ir.Node) -> list[KerasTensor]:
    source = _source(node)
    axis = node.attributes.get_int("axis", 0) % len(shape_of(source))
    sizes = [shape_of(output)[axis] for output in node.outputs]
    is_turned = _is_turned(graph, source, axis)
    ordered = sizes[::-1] if is_turned else sizes
    pieces = list(graph.tf.split(graph.tensors[source], ordered, graph.axis(source, axis)))
    return pieces[::-1] if is_turned else pieces


def _slice(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = _source(node)
    shape = shape_of(source)
    parts = [slice(None)] * len(shape)
    for axis, indices in _ranges(node).items():
        start, step = indices.start, indices.step
        if _is_turned(graph, source, axis):
            start = shape[axis] - 1 - indices[-1]
        end = start + len(indices) * step
        # A negative end counts from the back; None is the place before the first.
        parts[graph.axis(source, axis)] = slice(start, end if end >= 0 else None, step)
    return graph.tensors[source][tuple(parts)]


def _ranges(node: ir.Node) -> dict[int, range]:
    """The places that a Slice takes, by axis."""
    shape = shape_of(_source(node))
    starts, ends = (required(node, index).tolist() for index in (1, 2))
    axes, steps = optional(node, 3), optional(node, 4)
    listed = range(len(starts)) if axes is None else [axis % len(shape) for axis in axes.tolist()]
    strides = [1] * len(starts) if steps is None else steps.tolist()
    return {
        axis: range(*slice(start, end, step).indices(shape[axis]))
        for axis, start, end, step in zip(listed, starts, ends, strides, strict=True)
    }


def _check_slice(node: ir.Node) -> str | None:
    if not all(_ranges(node).values()):
        return "a slice that is empty; leave it out of the model"
    return None


def _gather(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source, indices = _source(node), required(node, 1)
    shape = shape_of(source)
    axis = node.attributes.get_int("axis", 0) % len(shape)
    places = indices % shape[axis]
    if indices.ndim != 1:
        taken = graph.tf.gather(graph.in_onnx_order(source), places, axis=axis)
        return graph.give(node, taken)
    if _is_turned(graph, source, axis):
        places = (shape[axis] - 1 - places)[::-1]
    return graph.tf.gather(graph.tensors[source], places, axis=graph.axis(source, axis))


def _gather_nd(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    taken = graph.tf.gather_nd(
        graph.in_onnx_order(_source(node)),
        required(node, 1) % _indexed_sizes(node),
        batch_dims=node.attributes.get_int("batch_dims", 0),
    )
    return graph.give(node, taken)


def _indexed_sizes(node: ir.Node) -> list[int]:
    """The sizes of the axes that the indices of a GatherND are on."""
    first = node.attributes.get_int("batch_dims", 0)
    return list(shape_of(_source(node))[first : first + required(node, 1).shape[-1]])


def _tile(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    """Repeat along some axes: Tile, and Expand, which repeats axes of one."""
    source, shape = _source(node), shape_of(node.outputs[0])
    own = shape_of(source)
    aligned = (*[1] * (len(shape) - len(own)), *own)
    repeats = [whole // size for whole, size in zip(shape, aligned, strict=True)]
    tensor = graph.operand(source, shape)
    if len(shape) == 4:
        repeats = [repeats[axis] for axis in (0, 2, 3, 1)]
    return tensor if set(repeats) == {1} else graph.tf.tile(tensor, repeats)


# Pads


def _pad(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = _source(node)
    tensor = graph.tensors[source]
    rank = len(shape_of(source))
    amounts = [(0, 0)] * rank
    cuts = [slice(None)] * rank
    for axis, (near, far) in _amounts(node).items():
        if _is_turned(graph, source, axis):
            near, far = far, near
        place = graph.axis(source, axis)
        amounts[place] = (max(near, 0), max(far, 0))
        cuts[place] = slice(max(-near, 0), min(far, 0) or None)
    if any(cut != slice(0, None) and cut != slice(None) for cut in cuts):
        tensor = tensor[tuple(cuts)]
    if not any(near or far for near, far in amounts):
        return tensor
    mode = node.attributes.get_string("mode", "constant")
    if mode == "constant":
        filler = optional(node, 2)
        value = 0.0 if filler is None else float(filler.item())
        return graph.tf.pad(tensor, amounts, constant_values=value)
    if mode == "reflect":
        return graph.tf.pad(tensor, amounts, "REFLECT")
    if mode == "edge":
        return _edge_pad(graph, tensor, amounts)
    return _wrap_pad(graph, tensor, amounts)


def _edge_pad(
    graph: KerasGraph, tensor: KerasTensor, amounts: list[tuple[int, int]]
) -> KerasTensor:
    # TensorFlow repeats edges only by mirroring them, and that is the same for one at a time.
    while any(near or far for near, far in amounts):
        once = [(min(near, 1), min(far, 1)) for near, far in amounts]
        tensor = graph.tf.pad(tensor, once, "SYMMETRIC")
        amounts = [(max(near - 1, 0), max(far - 1, 0)) for near, far in amounts]
    return tensor


def _wrap_pad(
    graph: KerasGraph, tensor: KerasTensor, amounts: list[tuple[int, int]]
) -> KerasTensor:
    for axis, (near, far) in enumerate(amounts):
        size = tensor.shape[axis]
        parts = [tensor]
        if near:
            parts.insert(0, graph.tf.gather(tensor, range(size - near, size), axis=axis))
        if far:
            parts.append(graph.tf.gather(tensor, range(far), axis=axis))
        if near or far:
            tensor = graph.tf.concat(parts, axis)
    return tensor


def _amounts(node: ir.Node) -> dict[int, tuple[int, int]]:
    """What a Pad adds before and behind, by axis; it cuts off where that is negative."""
    rank = len(shape_of(_source(node)))
    pads, axes = required(node, 1).tolist(), optional(node, 3)
    listed = list(range(rank)) if axes is None else [axis % rank for axis in axes.tolist()]
    count = len(listed)
    return {axis: (pads[index], pads[count + index]) for index, axis in enumerate(listed)}


def _check_pad(node: ir.Node) -> str | None:
    mode = node.attributes.get_string("mode", "constant")
    shape = shape_of(_source(node))
    most = {axis: max(pair) for axis, pair in _amounts(node).items()}
    if mode == "reflect" and any(most[axis] >= shape[axis] for axis in most):
        return "reflects more numbers than there are; pad by less than the map's size"
    if mode == "wrap" and any(most[axis] > shape[axis] for axis in most):
        return "wraps around more than once; pad by at most the map's size"
    return None


# Channels and places


def _depth_to_space(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = _source(node)
    block = node.attributes.get_int("blocksize")
    channels = shape_of(source)[1]
    each = channels // block**2
    places = np.arange(channels)
    if node.attributes.get_string("mode", "DCR") == "CRD":
        places = places.reshape(each, block, block).transpose(1, 2, 0)
    else:
        places = places.reshape(block, block, each)
    if graph.is_rotated:
        places = places[::-1, ::-1]
    tensor, order = graph.tensors[source], places.reshape(-1)
    if (order != np.arange(channels)).any():
        tensor = graph.tf.gather(tensor, order, axis=3)
    return graph.tf.nn.depth_to_space(tensor, block)


def _space_to_depth(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = _source(node)
    block = node.attributes.get_int("blocksize")
    channels = shape_of(source)[1]
    tensor = graph.tf.nn.space_to_depth(graph.tensors[source], block)
    if not graph.is_rotated:
        return tensor
    places = np.arange(channels * block**2).reshape(block, block, channels)[::-1, ::-1]
    return graph.tf.gather(tensor, np.ascontiguousarray(places).reshape(-1), axis=3)


OPERATORS = {
    "Concat": FloatOperator(_concat),
    "DepthToSpace": FloatOperator(_depth_to_space),
    "Expand": FloatOperator(_tile, parameters=(1,)),
    "Flatten": FloatOperator(_reshape),
    "Gather": FloatOperator(_gather, parameters=(1,)),
    "GatherND": FloatOperator(_gather_nd, parameters=(1,)),
    "Pad": FloatOperator(_pad, _check_pad, parameters=(1, 2, 3)),
    "Reshape": FloatOperator(_reshape),
    "Slice": FloatOperator(_slice, _check_slice, parameters=(1, 2, 3, 4)),
    "SpaceToDepth": FloatOperator(_space_to_depth),
    "Split": FloatOperator(_split),
    "Squeeze": FloatOperator(_reshape),
    "Tile": FloatOperator(_tile, parameters=(1,)),
    "Transpose": FloatOperator(_transpose, _check_transpose),
    "Unsqueeze": FloatOperator(_reshape),
}
