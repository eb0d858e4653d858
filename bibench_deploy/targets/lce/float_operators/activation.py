"""Functions of single numbers: activations, roundings and elementary functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor, optional


def _of_number(function: Callable[[KerasGraph, KerasTensor], KerasTensor]) -> FloatOperator:
    """An operator without attributes."""
    return FloatOperator(lambda graph, node: function(graph, graph.input(node)))


def _attribute(node: ir.Node, name: str, default: float) -> float:
    return node.attributes.get_float(name, default)


def _magnitude(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    # TensorFlow Lite's ABS takes ten times as long.
    return graph.tf.maximum(x, -x)


def _relu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return graph.layers.ReLU(name=graph.name(node.name))(graph.input(node))


def _leaky_relu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    slope = _attribute(node, "alpha", 0.01)
    return graph.layers.LeakyReLU(slope, name=graph.name(node.name))(graph.input(node))


def _thresholded_relu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    x = graph.input(node)
    return graph.tf.where(x > _attribute(node, "alpha", 1.0), x, 0.0)


def _clip(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    low, high = optional(node, 1), optional(node, 2)
    smallest = -np.inf if low is None else float(low.item())
    largest = np.inf if high is None else float(high.item())
    if smallest == 0:
        limit = None if np.isinf(largest) else largest
        return graph.layers.ReLU(max_value=limit, name=graph.name(node.name))(graph.input(node))
    return graph.tf.clip_by_value(graph.input(node), smallest, largest)


def _elu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    scale = _attribute(node, "alpha", 1.0)
    return graph.layers.ELU(scale, name=graph.name(node.name))(graph.input(node))


def _celu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    scale = _attribute(node, "alpha", 1.0)
    return graph.tf.nn.elu(graph.input(node) / scale) * scale


def _selu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    x = graph.input(node)
    alpha = _attribute(node, "alpha", 1.67326319217681884765625)
    gamma = _attribute(node, "gamma", 1.05070102214813232421875)
    below = graph.tf.nn.elu(graph.tf.minimum(x, 0.0)) * (gamma * alpha)
    return graph.tf.nn.relu(x) * gamma + below


def _hard_sigmoid(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    line = graph.input(node) * _attribute(node, "alpha", 0.2) + _attribute(node, "beta", 0.5)
    return graph.tf.clip_by_value(line, 0.0, 1.0)


def _hard_swish(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    return x * graph.tf.nn.relu6(x + 3.0) * (1 / 6)


def _sigmoid(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    layer = graph.layers.Activation("sigmoid", name=graph.name(node.name))
    return layer(graph.input(node))


def _softplus(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    # The exponential of a large number is no number any more.
    tail = graph.tf.math.log(graph.tf.exp(-_magnitude(graph, x)) + 1.0)
    return graph.tf.nn.relu(x) + tail


def _mish(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    return x * graph.tf.tanh(_softplus(graph, x))


def _softsign(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    return x / (_magnitude(graph, x) + 1.0)


def _gelu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    x = graph.input(node)
    if node.attributes.get_string("approximate", "none") == "tanh":
        return graph.tf.nn.gelu(x, approximate=True)
    return x * 0.5 * (_erf(graph, x * math.sqrt(0.5)) + 1.0)


# Beyond it, erf is 1 in float32. The fit, an own one: least squares over the Chebyshev points
# of [0, 16] in x², weighted again until the largest relative error, 2.5e-8, was the smallest.
_ERF_END = 4.0
_ERF_ABOVE = (1.98677594e-6, 2.84567534e-4, 3.88340326e-3, 5.31019308e-2, 0.193546399, 1.12837911)
_ERF_BELOW = (3.74201918e-5, 1.18558598e-3, 1.52073694e-2, 0.115350559, 0.504858613, 1.0)


def _erf(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    """The error function, which neither TensorFlow Lite nor LCE's runtime has.

    As x·p(x²) / q(x²); in float32 it is off by 4 units in the last place at most.
    """
    x = graph.tf.clip_by_value(x, -_ERF_END, _ERF_END)
    square = x * x
    return x * _polynomial(square, _ERF_ABOVE) / _polynomial(square, _ERF_BELOW)


def _polynomial(x: KerasTensor, coefficients: tuple[float, ...]) -> KerasTensor:
    """By Horner's rule, the highest power first."""
    total = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        total = total * x + coefficient
    return total


def _sign(graph: KerasGraph, x: KerasTensor) -> KerasTensor:
    # TensorFlow Lite's SIGN is what a binary layer that fell back to float leaves behind.
    cast, float32 = graph.tf.cast, graph.tf.float32
    return cast(x > 0.0, float32) - cast(x < 0.0, float32)


def _cast(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return graph.tf.cast(graph.input(node), _CASTS[_cast_type(node)])


def _cast_type(node: ir.Node) -> ir.DataType:
    return ir.DataType(node.attributes.get_int("to"))


_CASTS = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.BOOL: "bool",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int64",
}


def _check_cast(node: ir.Node) -> str | None:
    kind = _cast_type(node)
    return None if kind in _CASTS else f"a cast to {kind.name}; keep numbers in float32"


def _prelu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    x, output = graph.input(node), node.outputs[0]
    slope = constant_of(node.inputs[1])
    if slope is None:
        assert node.inputs[1] is not None
        slopes = graph.operand(node.inputs[1], shape_of(output))
        return graph.tf.nn.relu(x) + slopes * graph.tf.minimum(x, 0.0)
    sizes = tuple(x.shape[1:])
    alpha = np.broadcast_to(graph.constant(slope, shape_of(output)), (1, *sizes))[0]
    shared = [
        axis + 1
        for axis in range(len(sizes) - 1)
        if (alpha == np.take(alpha, [0], axis)).all()
    ]  # fmt: skip
    index = tuple(slice(0, 1) if axis + 1 in shared else slice(None) for axis in range(len(sizes)))
    layer = graph.layers.PReLU(shared_axes=shared or None, name=graph.name(node.name))
    return graph.apply(layer, x, [np.ascontiguousarray(alpha[index])])


OPERATORS = {
    "Abs": _of_number(_magnitude),
    "Cast": FloatOperator(_cast, _check_cast),
    "Ceil": _of_number(lambda graph, x: graph.tf.math.ceil(x)),
    "Celu": FloatOperator(_celu),
    "Clip": FloatOperator(_clip, parameters=(1, 2)),
    "Cos": _of_number(lambda graph, x: graph.tf.cos(x)),
    "Elu": FloatOperator(_elu),
    "Erf": _of_number(_erf),
    "Exp": _of_number(lambda graph, x: graph.tf.exp(x)),
    "Floor": _of_number(lambda graph, x: graph.tf.floor(x)),
    "Gelu": FloatOperator(_gelu),
    "HardSigmoid": FloatOperator(_hard_sigmoid),
    "HardSwish": _of_number(_hard_swish),
    "Identity": _of_number(lambda _, x: x),
    "LeakyRelu": FloatOperator(_leaky_relu),
    "Log": _of_number(lambda graph, x: graph.tf.math.log(x)),
    "Mish": _of_number(_mish),
    "Neg": _of_number(lambda _, x: -x),
    "PRelu": FloatOperator(_prelu),
    "Reciprocal": _of_number(lambda _, x: 1.0 / x),
    "Relu": FloatOperator(_relu),
    "Round": _of_number(lambda graph, x: graph.tf.round(x)),
    "Selu": FloatOperator(_selu),
    "Sigmoid": FloatOperator(_sigmoid),
    "Sign": _of_number(_sign),
    "Sin": _of_number(lambda graph, x: graph.tf.sin(x)),
    "Softplus": _of_number(_softplus),
    "Softsign": _of_number(_softsign),
    "Sqrt": _of_number(lambda graph, x: graph.tf.sqrt(x)),
    "Tanh": _of_number(lambda graph, x: graph.tf.tanh(x)),
    "ThresholdedRelu": FloatOperator(_thresholded_relu),
}
