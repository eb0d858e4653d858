"""Find which sign of the source graph each sign of a lowered graph is.

Passes may move, pad, slice and double the numbers before a sign, and split a layer in
pieces. They mark what they do, in the metadata of nodes, which is kept in files:

  - `bibench.layer` on a layer or a piece of one: the name of the source graph's layer;
  - `bibench.layout` on a node between a binarized tensor and its sign that only moves numbers.

The place of each sign is found by sending numbers 0, 1, 2 … through the marked nodes
themselves, so a pass needs no bookkeeping beyond its marks.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, shape_of
from bibench_deploy.graph.fold_constants import constant_of, evaluate

LAYER = "bibench.layer"
LAYOUT = "bibench.layout"
# Pads hold ±1: numbers start behind them.
_FIRST = 2


def mark_layer(node: ir.Node, name: str) -> None:
    """Say which layer of the source graph `node` is, or is a piece of."""
    node.metadata_props[LAYER] = name


def mark_layout(node: ir.Node) -> None:
    """Say that `node` only moves numbers on their way to a sign."""
    node.metadata_props[LAYOUT] = "1"


def source_layer(node: ir.Node) -> str:
    """Name of the source graph's layer; its own name where no pass has touched it."""
    return node.metadata_props.get(LAYER) or node.name or ""


def binarized_tensor(conv: BinaryConv) -> ir.Value:
    """The tensor that is binarized, in front of everything that only moves its numbers."""
    return _marked_path(conv)[0]


def sign_base(compare: ir.Node) -> ir.Value:
    """The tensor that a sign in canonical form is of, in front of what only moves its numbers."""
    value = compare.inputs[0]
    assert value is not None
    while (node := value.producer()) is not None and LAYOUT in node.metadata_props:
        assert node.inputs[0] is not None
        value = node.inputs[0]
    return value


def sign_places(model: ir.Model, conv: BinaryConv) -> npt.NDArray[np.int64]:
    """Which element of the binarized tensor, flattened, each number before the sign is.

    Args:
        model: the lowered graph.
        conv: a layer of it.

    Returns:
        int64 in the shape of `conv.binarization.source`; −1 where it is padding.
    """
    base, nodes = _marked_path(conv)
    shape = shape_of(base)
    # float32 counts exactly up to 2^24, more than any map holds.
    numbers = np.arange(_FIRST, _FIRST + np.prod(shape, dtype=int), dtype=np.float32)
    numbers = numbers.reshape(shape)
    if nodes:
        (numbers,) = evaluate(model, nodes, [base], [conv.binarization.source], [numbers])  # type: ignore[assignment]  # float numbers went in
    places = numbers.astype(np.int64) - _FIRST
    return np.where(places < 0, -1, places)


def place_signs(
    convs: Iterable[BinaryConv],
    places: Iterable[npt.NDArray[np.int64]],
    signs: Iterable[npt.NDArray[np.float32]],
) -> dict[str, npt.NDArray[np.float32]]:
    """Put the signs that lowered layers read where the source graph's tensors have them.

    Args:
        convs: the layers of the lowered graph; several may be pieces of one source layer.
        places: of each, as `sign_places` gives it.
        signs: of each, [N, …] with the axes of its places.

    Returns:
        Source layer → [N, elements of what it binarizes]; NaN where no layer reads one.
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    for conv, place, read in zip(convs, places, signs, strict=True):
        layer, is_sign = source_layer(conv.node), place >= 0
        if layer not in found:
            size = prod(shape_of(binarized_tensor(conv)))
            found[layer] = np.full((len(read), size), np.nan, np.float32)
        found[layer][:, place[is_sign]] = read[:, is_sign]
    return found


def _marked_path(conv: BinaryConv) -> tuple[ir.Value, list[ir.Node]]:
    """The tensor where the marked nodes before a sign begin, and these nodes in order."""
    nodes: list[ir.Node] = []
    pending, bases = [conv.binarization.source], set()
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is None or LAYOUT not in node.metadata_props:
            bases.add(value)
        elif node not in nodes:
            nodes.append(node)
            pending.extend(
                item for item in node.inputs if item is not None and constant_of(item) is None
            )
    assert len(bases) == 1, f"{conv.facts.name} binarizes {len(bases)} tensors at once"
    (base,) = bases
    order = {node: index for index, node in enumerate(conv.node.graph or ())}
    return base, sorted(nodes, key=order.__getitem__)
