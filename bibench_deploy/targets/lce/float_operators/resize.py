"""Resizing of maps.

Where each number of the result is read from is computed here as ONNX defines it; what
TensorFlow Lite's own operators compute alike goes to them, the rest is gathered.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor, optional

_Places = npt.NDArray[np.float64]


def _resize(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    if node.attributes.get_string("mode", "nearest") == "nearest":
        return _nearest(graph, node)
    return _linear(graph, node)


def _nearest(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    tensor = graph.input(node)
    chosen = [_nearest_places(node, axis) for axis in (2, 3)]
    sizes = _sizes(node)
    factors = [whole // size for size, whole in sizes]
    if all(
        (places == np.arange(whole) // max(factor, 1)).all()
        for places, (_, whole), factor in zip(chosen, sizes, factors, strict=True)
    ):
        return graph.layers.UpSampling2D(tuple(factors), name=graph.name(node.name))(tensor)
    for axis, places, (size, whole) in zip((1, 2), chosen, sizes, strict=True):
        if size != whole or (places != np.arange(whole)).any():
            turned = (size - 1 - places)[::-1] if graph.is_rotated else places
            tensor = graph.tf.gather(tensor, np.ascontiguousarray(turned), axis=axis)
    return tensor


def _linear(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    tensor = graph.input(node)
    sizes = _sizes(node)
    mode = _coordinates(node)
    target = [whole for _, whole in sizes]
    resize = graph.tf.compat.v1.image.resize_bilinear
    is_ratio = all(_scale(node, axis) == whole / size for axis, (size, whole) in _by_axis(sizes))
    is_long = min(target) > 1
    # These two are the same from either end, so they hold in a network that is turned.
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and is_long):
        if is_ratio:
            return resize(tensor, target, half_pixel_centers=True)
    elif mode == "align_corners" and is_long:
        return resize(tensor, target, align_corners=True)
    for axis, (size, whole) in _by_axis(sizes):
        places = np.clip(_places(node, axis), 0, size - 1)
        if size == whole and (places == np.arange(whole)).all():
            continue
        if graph.is_rotated:
            places = (size - 1 - places)[::-1]
        below = np.floor(places).astype(np.int64)
        share = (places - below).astype(np.float32)
        weights = share.reshape((-1, 1) if axis == 3 else (-1, 1, 1))
        near = graph.tf.gather(tensor, below, axis=axis - 1)
        far = graph.tf.gather(tensor, np.minimum(below + 1, size - 1), axis=axis - 1)
        tensor = near * (1 - weights) + far * weights
    return tensor


def _by_axis(sizes: list[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    return list(zip((2, 3), sizes, strict=True))


def _sizes(node: ir.Node) -> list[tuple[int, int]]:
    """Size before and behind, of height and width."""
    source = node.inputs[0]
    assert source is not None
    before, behind = shape_of(source), shape_of(node.outputs[0])
    return [(before[axis], behind[axis]) for axis in (2, 3)]


def _coordinates(node: ir.Node) -> str:
    return node.attributes.get_string("coordinate_transformation_mode", "half_pixel")


def _scale(node: ir.Node, axis: int) -> float:
    """The scale of an axis: as it is given, else the ratio of the sizes."""
    scales = optional(node, 2)
    if scales is not None and scales.size:
        return float(scales[_listed_axes(node).index(axis)]) if axis in _listed_axes(node) else 1.0
    size, whole = _sizes(node)[axis - 2]
    return whole / size


def _listed_axes(node: ir.Node) -> list[int]:
    return [axis % 4 for axis in node.attributes.get_ints("axes", ()) or range(4)]


def _places(node: ir.Node, axis: int) -> _Places:
    """Where each number of the result lies on an axis of the map, as ONNX defines it."""
    size, whole = _sizes(node)[axis - 2]
    scale, mode = _scale(node, axis), _coordinates(node)
    numbers = np.arange(whole, dtype=np.float64)
    if mode == "asymmetric":
        return numbers / scale
    if mode == "align_corners":
        return numbers * (size - 1) / (whole - 1) if whole > 1 else np.zeros(1)
    if mode == "pytorch_half_pixel" and whole == 1:
        return np.zeros(1)
    return (numbers + 0.5) / scale - 0.5


def _nearest_places(node: ir.Node, axis: int) -> npt.NDArray[np.int64]:
    places = _places(node, axis)
    mode = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    rounded = {
        "ceil": np.ceil(places),
        "floor": np.floor(places),
        "round_prefer_ceil": np.floor(places + 0.5),
        "round_prefer_floor": np.ceil(places - 0.5),
    }[str(mode)]
    clipped: npt.NDArray[np.int64] = np.clip(rounded, 0, _sizes(node)[axis - 2][0] - 1).astype(int)
    return clipped


_COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def _check_resize(node: ir.Node) -> str | None:
    source = node.inputs[0]
    assert source is not None
    before, behind = shape_of(source), shape_of(node.outputs[0])
    if len(before) != 4 or before[:2] != behind[:2]:
        return f"resizes {list(before)} to {list(behind)}; resize height and width of a map only"
    mode = node.attributes.get_string("mode", "nearest")
    if mode not in ("nearest", "linear"):
        return f"resizes by {mode} interpolation; use mode nearest or bilinear"
    if _coordinates(node) not in _COORDINATES:
        return f"places numbers by {_coordinates(node)}; use one of {', '.join(_COORDINATES)}"
    if node.attributes.get_int("antialias", 0):
        return "resizes with antialias; leave that out"
    if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "keeps the aspect ratio; give the size that comes out instead"
    return None


OPERATORS = {"Resize": FloatOperator(_resize, _check_resize, parameters=(2, 3))}
