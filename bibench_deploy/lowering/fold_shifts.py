"""Fold constants that are added per channel into what stands before or behind them.

Requires: canonical binarization; batch norm directly behind each binary layer.
Ensures: no Add or Sub of one constant per channel is left where a batch norm, a float
convolution, a fully connected layer or another such constant can take it over. What is
computed stays the same but for rounding.

A shift x + s vanishes in one of two ways:

  - back: what computes x gives x + s at once, (BN(a) + b) + s = (BN(a) + s) + b, and every
    other reader of x takes s off again in a constant of its own;
  - forth: the readers of x + s read x, and add s in a constant of their own.

A sign has no constant of its own, nor has a PReLU; so the shift of ReActNet's RSign goes
back, the one that its RPReLU ends with goes forth, and where a sign reads a PReLU one Add
stays. Sums are taken in double precision and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, only_reader, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import SMALLEST_SHIFT, channel_step

_Vector = npt.NDArray[np.float64]
# What each node is to add to its output, one number per channel.
_Plan = dict[ir.Node, _Vector]

# A tensor that is stored as x + s and read as (x + s) − s loses the bits of x below those of s.
# Three bits are less than what two engines differ by when they add up in another order.
_LARGEST_DETOUR = 8.0

# Readers multiply along a graph of many branches; one that needs more is left as it is.
_MOST_STEPS = 10_000


def fold_shifts(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    folder = _Folder(model)
    is_changed = True
    while is_changed:
        adds = [node for node in model.graph if node.op_type == "Add"]
        is_changed = sum(folder.fold(node) for node in adds) > 0


class _Folder:
    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._binary = {conv.node for conv in binary_convs(model)}
        self._steps = 0
        # The Add that is to vanish: no other shift can go there meanwhile.
        self._vanishing: ir.Node | None = None
        for node in list(model.graph):
            _subtract_as_add(model.graph, node)

    def fold(self, node: ir.Node) -> bool:
        """Make one Add of a constant vanish; False where it must stay."""
        if node.graph is None:  # an earlier fold took it
            return False
        found = _shift_of(node)
        if found is None:
            return False
        value, shift = found
        output = node.outputs[0]
        if not shift.any():
            self._remove(node, value)
            return True
        if (np.abs(shift[shift != 0]) < SMALLEST_SHIFT).any():
            return False
        self._vanishing = node
        # Where nobody else reads x, nothing has to be taken off again.
        is_alone = only_reader(value) is node
        for goes_back in (True, False) if is_alone else (False, True):
            self._steps = 0
            plan = self._back(value, shift, node) if goes_back else self._forth(output, -shift)
            if plan is not None:
                break
        else:
            return False
        self._remove(node, value)
        for changed, amount in plan.items():
            self._add_to_output(changed, amount)
        return True

    def _remove(self, node: ir.Node, value: ir.Value) -> None:
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    # Both ways give the constants to change, or None where the shift cannot go there.

    def _back(self, value: ir.Value, shift: _Vector, reader: ir.Node) -> _Plan | None:
        """Let `value` hold `shift` more, which `reader` alone is meant to see."""
        producer = value.producer()
        if producer is None or value.is_graph_output() or producer in self._binary:
            return None
        others = [use.node for use in value.uses() if use.node is not reader]
        plans = [self._compensate(other, value, shift) for other in others]
        source = self._into(producer, shift)
        if source is not None and others:
            smallest = min(self._spread(absorber) for absorber in source)
            if np.abs(shift).max() > _LARGEST_DETOUR * smallest:
                return None
        return _sum_of([source, *plans])

    def _into(self, node: ir.Node, shift: _Vector) -> _Plan | None:
        """Let the output of `node` hold `shift` more, whoever reads it."""
        if not self._is_open(node):
            return None
        operator = node.op_type
        if _has_constant(node):
            return {node: shift}
        if operator == "Add":
            for operand in node.inputs:
                if (plan := self._into_operand(operand, shift, node)) is not None:
                    return plan
        elif _passes_shift(node):
            return self._into_operand(node.inputs[0], shift, node)
        elif operator == "Concat" and node.attributes.get_int("axis", 1) == 1:
            plans, begin = [], 0
            for operand in node.inputs:
                assert operand is not None
                end = begin + shape_of(operand)[1]
                plans.append(self._into_operand(operand, shift[begin:end], node))
                begin = end
            return _sum_of(plans)
        return None

    def _into_operand(
        self, operand: ir.Value | None, shift: _Vector, node: ir.Node
    ) -> _Plan | None:
        if operand is None or only_reader(operand) is not node:
            return None
        producer, shape = operand.producer(), shape_of(operand)
        if producer is None or len(shape) < 2 or shape[1] != len(shift):
            return None
        return self._into(producer, shift)

    def _forth(self, value: ir.Value, shift: _Vector) -> _Plan | None:
        """Let every reader of `value`, which now holds `shift` too much, take it off."""
        if value.is_graph_output() or not value.uses() or self._is_too_long():
            return None
        return _sum_of(self._compensate(use.node, value, shift) for use in value.uses())

    def _compensate(self, node: ir.Node, value: ir.Value, shift: _Vector) -> _Plan | None:
        if not self._is_open(node) or node.inputs[0] is None:
            return None
        output = node.outputs[0]
        if _shift_of(node) is not None:
            return {node: -shift}
        if node.op_type == "Add":
            other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
            if other is not value:
                plan = self._into_operand(other, -shift, node)
                if plan is not None:
                    return plan
            if shape_of(value) != shape_of(output):
                return None
            return self._forth(output, shift)
        if node.inputs[0] is not value:
            return None
        if node.op_type == "BatchNormalization" and _has_constant(node):
            factor, _ = _batch_norm(node)
            return {node: -factor * shift}
        if node.op_type in ("Conv", "Gemm", "MatMul") and _is_linear_without_padding(node):
            through = _weight_sums(node) @ shift
            if node.op_type == "MatMul":
                return self._forth(output, through)
            return {node: -through}
        if _passes_shift(node):
            return self._forth(output, shift)
        if _flattens(node):
            return self._forth(output, np.repeat(shift, shape_of(output)[1] // len(shift)))
        return None

    def _spread(self, node: ir.Node) -> float:
        """How large the numbers that a node gives are: the largest channel's, roughly."""
        if node.op_type == "BatchNormalization":
            factor, offset = _batch_norm(node)
            layer = node.inputs[0].producer() if node.inputs[0] is not None else None
            if layer is not None and layer in self._binary:
                # A sum of n signs deviates by √n.
                size = np.abs(factor) * np.sqrt(_weight_of(layer)[0].size)
            else:
                # What it has learned to normalise deviates by γ and lies around β.
                gamma, beta = constant_of(node.inputs[1]), constant_of(node.inputs[2])
                size, offset = np.abs(np.asarray(gamma)), np.asarray(beta, dtype=np.float64)
            return float((size + np.abs(offset)).max())
        if node.op_type in ("Conv", "Gemm"):
            # Inputs around 1 add up to the root of the sum of squares.
            return float(np.sqrt(np.square(_weight_of(node)).sum() / shape_of(node.outputs[0])[1]))
        return 0.0

    def _is_open(self, node: ir.Node) -> bool:
        return not (node in self._binary or node is self._vanishing or self._is_too_long())

    def _is_too_long(self) -> bool:
        self._steps += 1
        return self._steps > _MOST_STEPS

    def _add_to_output(self, node: ir.Node, amount: _Vector) -> None:
        if node.op_type == "Add":
            index = 0 if constant_of(node.inputs[0]) is not None else 1
            shape = (1, -1, *(1,) * (len(shape_of(node.outputs[0])) - 2))
        else:
            index, shape = 2, (-1,)
        before = node.inputs[index] if len(node.inputs) > index else None
        array = constant_of(before)
        held = np.zeros(1) if array is None else array.astype(np.float64).reshape(-1)
        after = (held + amount).astype(np.float32).reshape(shape)
        name = f"{node.name or node.outputs[0].name}_shifted"
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        node.replace_input_with(index, add_initializer(self._graph, name, after))


def _subtract_as_add(graph: ir.Graph, node: ir.Node) -> None:
    constant = constant_of(node.inputs[1]) if node.op_type == "Sub" else None
    if constant is not None and node.domain == "":
        node.op_type = "Add"
        name = f"{node.name or node.outputs[0].name}_negated"
        node.replace_input_with(1, add_initializer(graph, name, -constant))


def _shift_of(node: ir.Node) -> tuple[ir.Value, _Vector] | None:
    """The tensor and the vector of an Add of one constant per channel, else None."""
    if node.op_type != "Add" or node.domain != "":
        return None
    arrays = [constant_of(value) for value in node.inputs]
    for array, value in zip(arrays, reversed(node.inputs), strict=True):
        if array is None or value is None or constant_of(value) is not None:
            continue
        shape = shape_of(value)
        if len(shape) < 2 or shape != shape_of(node.outputs[0]) or array.ndim > len(shape):
            return None
        aligned = (1,) * (len(shape) - array.ndim) + array.shape
        if array.size != 1 and (array.size != shape[1] or aligned[1] != shape[1]):
            return None
        return value, np.broadcast_to(array.astype(np.float64).reshape(-1), (shape[1],)).copy()
    return None


def _has_constant(node: ir.Node) -> bool:
    """Whether a constant of the node's own is added to its output, or can be."""
    if node.op_type == "BatchNormalization":
        is_known = all(constant_of(item) is not None for item in node.inputs[1:])
        return is_known and len(node.outputs) == 1
    if node.op_type in ("Conv", "Gemm"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        is_plain = node.attributes.get_float("beta", 1.0) == 1
        return is_plain and (bias is None or constant_of(bias) is not None)
    return _shift_of(node) is not None


def _passes_shift(node: ir.Node) -> bool:
    """Whether f(x + s) = f(x) + s for a constant s per channel."""
    if len(node.outputs) != 1:
        return False
    if node.op_type == "AveragePool":
        # A sum over fewer numbers than the divisor says passes only a part of the shift.
        return not any(window_of(node).pads) and not node.attributes.get_int("ceil_mode", 0)
    if node.op_type == "ReduceMean":
        axes = node.attributes.get_ints("axes") or ()
        if len(node.inputs) > 1 and (array := constant_of(node.inputs[1])) is not None:
            axes = array.tolist()
        source = node.inputs[0]
        assert source is not None
        rank = len(shape_of(source))
        # With the channels in place: the batch and the channels are not averaged over.
        return bool(axes) and rank > 2 and all(axis % rank > 1 for axis in axes)
    return node.op_type in ("GlobalAveragePool", "GlobalMaxPool", "MaxPool")


def _flattens(node: ir.Node) -> bool:
    """Whether [N, C, …] becomes [N, C · …]: each channel's numbers stay together."""
    if node.op_type not in ("Flatten", "Reshape", "Squeeze") or node.inputs[0] is None:
        return False
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    return (
        len(before) > 1
        and len(after) == 2
        and after == (before[0], int(np.prod(before[1:], dtype=int)))
    )


def _is_linear_without_padding(node: ir.Node) -> bool:
    """Whether a shift of a float layer's input is a constant shift of its output."""
    weight = constant_of(node.inputs[1])
    if weight is None:
        return False
    if node.op_type == "Conv":
        is_plain = node.attributes.get_int("group", 1) == 1 and not any(window_of(node).pads)
        return is_plain and _has_constant(node)
    is_matrix = weight.ndim == 2 and not node.attributes.get_int("transA")
    is_plain = node.attributes.get_float("alpha", 1.0) == 1
    is_row = len(shape_of(node.outputs[0])) == 2
    return is_matrix and is_plain and is_row and (node.op_type == "MatMul" or _has_constant(node))


def _weight_sums(node: ir.Node) -> _Vector:
    """[O, I]: what one more in a whole input channel adds to each output channel."""
    weight = _weight_of(node)
    if node.op_type == "Conv":
        return np.asarray(weight.reshape(*weight.shape[:2], -1).sum(axis=2))
    return weight if node.attributes.get_int("transB") else weight.T


def _weight_of(node: ir.Node) -> _Vector:
    array = constant_of(node.inputs[1])
    assert array is not None
    return array.astype(np.float64)


def _batch_norm(node: ir.Node) -> tuple[_Vector, _Vector]:
    """A batch norm of constants as factor · x + offset."""
    source = node.inputs[0]
    assert source is not None
    step = channel_step(node, source, shape_of(source)[1])
    assert step is not None
    return step


def _sum_of(plans: Iterable[_Plan | None]) -> _Plan | None:
    """One plan of several; None where one of them cannot be. Shifts add up."""
    whole: _Plan = {}
    for plan in plans:
        if plan is None:
            return None
        for node, amount in plan.items():
            whole[node] = whole[node] + amount if node in whole else amount
    return whole
