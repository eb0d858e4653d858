"""Rewrite QONNX's quantizers as operators of standard ONNX: Brevitas and FINN write them.

Formulas, as QONNX's own executor computes them:

    BipolarQuant(x, s)        s · (+1 where x >= 0, else −1)
    Quant(x, s, z, b)         s · (round(clip(x / s + z, low, high)) − z)
    Trunc(x, s, z, b, c)      s · (round(round(x / s + z) / 2^(b − c)) − z)

low and high are the integers of b bits, signed or not; the narrow form leaves one out. A signed
Quant of one bit is the sign of x / s + z. The rounding of Quant is to even unless it says
otherwise, that of Trunc is down. Trunc of version 2 takes an output scale and clips as well.

Source: https://github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.initializer import add_initializer

DOMAINS = frozenset(["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"])


def replace_qonnx(model: ir.Model) -> None:
    """Rewrite every BipolarQuant, Quant, IntQuant and Trunc of a graph, in place.

    Args:
        model: a model without local functions.

    Raises:
        GraphError: a bit width that is no constant number, or a rounding that QONNX lacks.
    """
    graph = model.graph
    for node in list(graph):
        writer = _WRITERS.get(node.op_type)
        if node.domain not in DOMAINS or writer is None:
            continue
        new = _Chain(graph, node)
        result = writer(new, node)
        old = node.outputs[0]
        result.dtype, result.shape = ir.DataType.FLOAT, old.shape
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        result.name, old.name = old.name, None
    if not any(node.domain in DOMAINS for node in graph):
        for domain in DOMAINS:
            model.opset_imports.pop(domain, None)


class _Chain:
    """Adds nodes in front of one node."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self._graph = graph
        self._before = before
        self._name = before.name or before.outputs[0].name or "quantizer"
        self._count = 0

    def constant(self, number: float) -> ir.Value:
        return add_initializer(self._graph, f"{self._name}_constant", np.array(number, np.float32))

    def node(self, operator: str, *inputs: ir.Value | None) -> ir.Value:
        self._count += 1
        name = f"{self._name}_{operator}_{self._count}"
        added = ir.node(operator, list(inputs), name=name)
        added.outputs[0].name = name
        added.outputs[0].dtype = ir.DataType.BOOL if operator == "Less" else ir.DataType.FLOAT
        self._graph.insert_before(self._before, added)
        return added.outputs[0]

    def sign(self, value: ir.Value) -> ir.Value:
        # Opset 11 has no GreaterOrEqual.
        is_negative = self.node("Less", value, self.constant(0))
        return self.node("Where", is_negative, self.constant(-1), self.constant(1))

    def round(self, value: ir.Value, mode: str) -> ir.Value:
        """Round as QONNX names it; UP, DOWN and the halves are symmetric about 0."""
        if mode in ("ROUND", "HALF_EVEN"):
            return self.node("Round", value)
        if mode in ("CEIL", "FLOOR"):
            return self.node(mode.title(), value)
        operator = {"UP": "Ceil", "DOWN": "Floor", "HALF_UP": "Floor", "HALF_DOWN": "Ceil"}.get(
            mode
        )
        if operator is None:
            raise GraphError(
                f'node "{self._name}" rounds by "{mode}", which QONNX does not define; '
                "export the model with ROUND, CEIL or FLOOR"
            )
        size = self.node("Abs", value)
        if mode.startswith("HALF"):
            size = self.node("Add", size, self.constant(0.5 if mode == "HALF_UP" else -0.5))
        return self.node("Mul", self.node("Sign", value), self.node(operator, size))


def _bipolar_quant(new: _Chain, node: ir.Node) -> ir.Value:
    x, scale = _inputs(node, 2)
    return new.node("Mul", new.sign(x), scale)


def _quant(new: _Chain, node: ir.Node) -> ir.Value:
    x, scale, zero_point, width = _inputs(node, 4)
    bits = _bit_width(node, width)
    is_signed = bool(node.attributes.get_int("signed", 1))
    value = new.node("Add", new.node("Div", x, scale), zero_point)
    if bits == 1 and is_signed:
        value = new.sign(value)
    else:
        low, high = _integers(bits, is_signed, bool(node.attributes.get_int("narrow", 0)))
        value = new.node("Clip", value, new.constant(low), new.constant(high))
        value = new.round(value, _rounding(node, "ROUND"))
    return new.node("Mul", new.node("Sub", value, zero_point), scale)


def _trunc(new: _Chain, node: ir.Node) -> ir.Value:
    if len(node.inputs) == 6:
        return _trunc_with_output_scale(new, node)
    x, scale, zero_point, from_width, to_width = _inputs(node, 5)
    factor = 2.0 ** (_bit_width(node, from_width) - _bit_width(node, to_width))
    value = new.node("Round", new.node("Add", new.node("Div", x, scale), zero_point))
    value = new.round(new.node("Div", value, new.constant(factor)), _rounding(node, "FLOOR"))
    return new.node("Mul", new.node("Sub", value, zero_point), scale)


def _trunc_with_output_scale(new: _Chain, node: ir.Node) -> ir.Value:
    x, scale, zero_point, _, output_scale, width = _inputs(node, 6)
    is_signed = bool(node.attributes.get_int("signed", 1))
    is_narrow = bool(node.attributes.get_int("narrow", 0))
    low, high = _integers(_bit_width(node, width), is_signed, is_narrow)
    # The factor between both scales is taken to the nearest power of two.
    base = new.constant(float(np.log(2.0)))
    exponent = new.node("Round", new.node("Div", new.node("Log", new.node(
        "Div", output_scale, scale)), base))  # fmt: skip
    factor = new.node("Pow", new.constant(2), exponent)
    value = new.node("Round", new.node("Add", new.node("Div", x, scale), zero_point))
    value = new.node("Div", value, factor)
    value = new.node("Clip", value, new.constant(low), new.constant(high))
    value = new.round(value, _rounding(node, "FLOOR"))
    value = new.node("Sub", value, new.node("Div", zero_point, factor))
    return new.node("Mul", value, output_scale)


def _inputs(node: ir.Node, count: int) -> list[ir.Value]:
    given = [value for value in node.inputs if value is not None]
    if len(given) != count or len(node.inputs) != count:
        raise GraphError(
            f'node "{node.name}" ({node.op_type}) has {len(given)} inputs, and QONNX gives it '
            f"{count}; export the model again with a current QONNX"
        )
    return given


def _bit_width(node: ir.Node, width: ir.Value) -> int:
    tensor = ir.convenience.get_const_tensor(width)
    numbers = np.unique(tensor.numpy()) if tensor is not None else np.zeros(0)
    if len(numbers) != 1 or not 1 <= numbers[0] <= 32 or numbers[0] != int(numbers[0]):
        found = "is computed" if tensor is None else f"is {numbers.tolist()}"
        raise GraphError(
            f'node "{node.name}" ({node.op_type}): its bit width {found}; '
            "export the model with one whole number, 1 to 32"
        )
    return int(numbers[0])


def _integers(bits: int, is_signed: bool, is_narrow: bool) -> tuple[float, float]:
    if is_signed:
        return float(-(2 ** (bits - 1)) + is_narrow), float(2 ** (bits - 1) - 1)
    return 0.0, float(2**bits - 1 - is_narrow)


def _rounding(node: ir.Node, default: str) -> str:
    return node.attributes.get_string("rounding_mode", default).upper()


_WRITERS: dict[str, Callable[[_Chain, ir.Node], ir.Value]] = {
    "BipolarQuant": _bipolar_quant,
    "IntQuant": _quant,
    "Quant": _quant,
    "Trunc": _trunc,
}
