"""List what looks binary and cannot be proven so: reported, never guessed.

Three things are looked for: a layer of binary weights whose input is not shown to take two
values, a layer of a binary input whose weights hold several magnitudes, and a sign that no
binary layer reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.binarization import (
    Binarization,
    binary_weight,
    find_binarization,
    is_always_one_value,
)
from bibench_deploy.graph.facts import binary_convs, only_reader
from bibench_deploy.graph.fold_constants import constant_of

_LAYERS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_STEPS = frozenset(["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sign"])
# What a sign may pass through on its way to a layer.
_PASSED = frozenset(["Concat", "Flatten", "MaxPool", "Pad", "Reshape", "Squeeze", "Transpose",
                     "Unsqueeze"])  # fmt: skip


@dataclass(frozen=True)
class NearMiss:
    """A node that looks like a part of a binary layer.

    Attributes:
        node: its name.
        reason: what of it is binary, and what cannot be shown to be.
        rule: name of the lint rule that explains it.
    """

    node: str
    reason: str
    rule: str


def near_misses(model: ir.Model) -> tuple[NearMiss, ...]:
    """Every node that looks binary and is no part of a proven binary layer, in graph order.

    Args:
        model: the model, as `load_graph` gives it.
    """
    convs = binary_convs(model)
    proven = {conv.node for conv in convs}
    explained = {node for conv in convs for node in conv.binarization.nodes}
    reasons: dict[ir.Node, tuple[str, str]] = {}
    for node in model.graph:
        if node.domain == "" and node.op_type in _LAYERS and node not in proven:
            rule, reason, slice_nodes = _reason_of_layer(model, node)
            explained.update(slice_nodes)
            if reason:
                reasons[node] = reason, rule
    for node in model.graph:
        if node.domain == "" and node.op_type in _STEPS and node not in explained:
            for other, reason in _reasons_of_step(model, node):
                reasons.setdefault(other, (reason, "sign-without-layer"))
    return tuple(
        NearMiss(node.name or "", *reasons[node]) for node in model.graph if node in reasons
    )


def why_not_one_layer(model: ir.Model, node: ir.Node) -> str | None:
    """Why a layer that reads signs is no binary one although its weights are binary.

    Args:
        model: the model.
        node: a Conv, ConvTranspose, Gemm or MatMul that is no binary layer.

    Returns:
        The reason and what to do; None where its weights are not binary, or are a sum or a mean
        over a window, or where it reads other numbers than signs.
    """
    weight, source = constant_of(node.inputs[1]), node.inputs[0]
    if source is None or weight is None or weight.dtype != np.float32 or weight.ndim < 2:
        return None
    parts = binary_weight(weight.astype(np.float32, copy=False), output_axis(node))
    if parts is None or (parts[0] == parts[0].flat[0]).all():
        return None
    binarization = find_binarization(model, _before_layout(model, source))
    if binarization is None:
        return None
    read = {
        item
        for mover in _movers(node, binarization)
        for item in mover.inputs
        if mover.op_type == "Concat" and item is not None
    }
    if any(find_binarization(model, item) is None for item in read):
        return None
    return (
        f"reads the signs of {binarization.source.name}, and its weights are binary, but "
        f"{_what_is_between(node, binarization)}"
    )


def _reason_of_layer(model: ir.Model, node: ir.Node) -> tuple[str, str, tuple[ir.Node, ...]]:
    """The rule and why a layer is no binary one, and the slice that its signs come from."""
    weight = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    source = node.inputs[0]
    if source is None or weight is None or weight.dtype != np.float32 or weight.ndim < 2:
        return "", "", ()
    array: npt.NDArray[np.float32] = weight.astype(np.float32, copy=False)
    axis = output_axis(node)
    parts = binary_weight(array, axis)
    end = _before_layout(model, source)
    binarization = find_binarization(model, end)
    nodes = binarization.nodes if binarization is not None else ()
    if parts is None:
        reason = "" if binarization is None else _several_magnitudes(array, axis)
        return "float-weights-on-signs", reason, nodes
    if binarization is not None:
        reason = (
            "its weights and its input are binary, but they cannot be shown to be one layer: "
            f"{_what_is_between(node, binarization)}"
        )
        is_transposed = node.op_type == "ConvTranspose"
        return "transposed-convolution" if is_transposed else "changed-signs", reason, nodes
    if (parts[0] == parts[0].flat[0]).all():
        return "", "", ()  # a mean or a sum over a window
    reason = f"its weights hold one magnitude per channel, but {_why_not(model, end)}"
    return "binary-weights-on-float", reason, ()


def output_axis(node: ir.Node) -> int:
    """The axis of output channels in the weights of a Conv, ConvTranspose, Gemm or MatMul."""
    if node.op_type == "Conv" or node.attributes.get_int("transB"):
        return 0
    return 1


def _before_layout(model: ir.Model, value: ir.Value) -> ir.Value:
    """Step back over what only moves numbers, to the result of a binarization if there is one."""
    while find_binarization(model, value) is None:
        node = value.producer()
        if node is None or node.domain != "" or node.op_type not in _PASSED or not node.inputs:
            break
        if node.inputs[0] is None:
            break
        value = node.inputs[0]
    return value


def _movers(node: ir.Node, binarization: Binarization) -> Iterator[ir.Node]:
    """What stands between a layer and the signs that it reads, from the layer on."""
    value = node.inputs[0]
    while value is not None and value is not binarization.result:
        mover = value.producer()
        assert mover is not None
        yield mover
        value = mover.inputs[0]


def _what_is_between(node: ir.Node, binarization: Binarization) -> str:
    """Why a layer of binary weights and the signs that it reads are not one."""
    if node.op_type == "ConvTranspose":
        return "a transposed convolution has no binary form here"
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant_of(node.inputs[2]) is None:
        return "its bias is computed"
    is_padded = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    fillers = [0.0] if is_padded or any(node.attributes.get_ints("pads", ())) else []
    for mover in _movers(node, binarization):
        mode = mover.attributes.get_string("mode", "constant")
        if mover.op_type == "MaxPool":
            same = ", which gives the same" if binarization.half > 0 else ""
            return f"{mover.name} pools them first; pool before the sign{same}"
        if mover.op_type == "Concat":
            return f"{mover.name} concatenates them with others; concatenate before the sign"
        if mover.op_type == "Pad" and mode != "constant":
            return f'{mover.name} pads them in mode "{mode}"; pad before the sign'
        if mover.op_type == "Pad":
            filler = constant_of(mover.inputs[2]) if len(mover.inputs) > 2 else None
            fillers.append(0.0 if filler is None else float(filler.item()))
    if set(fillers) - {binarization.low, binarization.middle, binarization.high}:
        return (
            f"its padding is neither of their levels, {binarization.low:g} and "
            f"{binarization.high:g}, nor halfway between; pad before the sign"
        )
    return "look at its padding and at the factors on its input"


def _several_magnitudes(weight: npt.NDArray[np.float32], axis: int) -> str:
    rows = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
    counts = [len(np.unique(row[row > 0])) for row in rows]
    worst = int(np.argmax(counts))
    held = rows[worst][rows[worst] > 0]
    if counts[worst] < 2:
        return "its input is binary, but most of its weights are 0, or each is a channel's only one"
    return (
        f"its input is binary, but channel {worst} of its weights holds {counts[worst]} "
        f"magnitudes, {held.min():.4g} to {held.max():.4g}"
    )


def _why_not(model: ir.Model, value: ir.Value) -> str:
    where = f'its input "{value.name}"'
    if is_always_one_value(model, value):
        return f"{where} is one number everywhere: what it is compared with is never reached"
    node = value.producer()
    if node is None:
        return f"{where} is not binarized"
    return (
        f'{where} cannot be shown to take two values: it comes from "{node.name}" ({node.op_type})'
    )


def _reasons_of_step(model: ir.Model, node: ir.Node) -> Iterator[tuple[ir.Node, str]]:
    """Why a sign or a comparison is a part of nothing."""
    value, found = node.outputs[0], None
    end: Binarization | None = None
    for _ in range(64):
        found = find_binarization(model, value)
        end = found if found is not None else end
        reader = only_reader(value)
        if reader is None or len(reader.outputs) != 1:
            break
        value = reader.outputs[0]
    # A comparison that gives 0 or 1 is a mask, unless somebody shows otherwise.
    if end is not None and (node.op_type == "Sign" or end.low == -end.high):
        last = end.nodes[-1]
        yield (
            last,
            (
                f"its result takes two values ({end.low:g} and {end.high:g}), "
                "but no layer of binary weights reads it"
            ),
        )
    elif end is None and node.op_type == "Sign":
        yield node, "a sign, but what is made of it does not take two values"
