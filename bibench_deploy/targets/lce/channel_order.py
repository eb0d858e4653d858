"""Where tensors other than maps have their channels: the order of rows and of sequences.

PyTorch flattens [C, H, W], TensorFlow [H, W, C]. Bringing a map into PyTorch's order before
it is flattened costs a TRANSPOSE; bringing the weights of the layers that read the row into
TensorFlow's order costs nothing. That is possible where only layers with constant weights
read the row, be it through functions of single numbers.
"""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of

Map = tuple[int, int, int]

_FLATTENING = frozenset(["Flatten", "Reshape", "Squeeze"])
# Whatever they read and give, they do it number by number.
_POINTWISE = frozenset(
    ["Abs", "Add", "Clip", "Div", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "Mul",
     "Neg", "PRelu", "Relu", "Sigmoid", "Sub", "Tanh", "Where"]
)  # fmt: skip


def map_of_row(value: ir.Value) -> Map | None:
    """The map (C, H, W) whose NHWC order a row keeps; None where it has PyTorch's order.

    Args:
        value: of the lowered graph.
    """
    origin = value
    while (node := origin.producer()) is not None and _is_pointwise(node):
        origin = next(item for item in node.inputs if item is not None and not _is_constant(item))
    if node is None or node.op_type not in _FLATTENING or node.domain != "":
        return None
    source = node.inputs[0]
    assert source is not None
    shape, flat = shape_of(source), shape_of(origin)
    is_whole = len(shape) == 4 and len(flat) == 2 and flat[0] == shape[0]
    if not is_whole or shape[2:] == (1, 1) or not _is_read_by_layers(origin):
        return None
    return shape[1], shape[2], shape[3]


def _is_read_by_layers(value: ir.Value) -> bool:
    """Whether everything that reads a row knows how to follow its order."""
    if value.is_graph_output():
        return False
    for use in value.uses():
        node = use.node
        if node.op_type in ("Gemm", "MatMul"):
            is_layer = use.idx == 0 and _is_constant(node.inputs[1])
            if not is_layer or node.attributes.get_int("transA"):
                return False
        elif not (_is_pointwise(node) and _is_read_by_layers(node.outputs[0])):
            return False
    return True


def _is_pointwise(node: ir.Node) -> bool:
    """Whether a node computes each number of its output from one number alone."""
    if node.op_type not in _POINTWISE or node.domain != "":
        return False
    computed = [item for item in node.inputs if item is not None and not _is_constant(item)]
    constants = [array for item in node.inputs if (array := constant_of(item)) is not None]
    return len(computed) == 1 and all(array.size == 1 for array in constants)


def _is_constant(value: ir.Value | None) -> bool:
    return constant_of(value) is not None


def is_sequence(value: ir.Value) -> bool:
    """Whether a value [N, C, L] is an input or output of the graph that is [N, L, C] in Keras.

    A network of one-dimensional layers computes on maps [N, C, 1, L]; Keras, and the images of
    other networks, have channels last.

    Args:
        value: of the lowered graph.
    """
    shape = shape_of(value)
    if len(shape) != 3:
        return False
    row = (shape[0], shape[1], 1, shape[2])
    if value.is_graph_input():
        readers = [use.node for use in value.uses()]
        return bool(readers) and all(
            node.op_type == "Reshape" and shape_of(node.outputs[0]) == row for node in readers
        )
    node = value.producer()
    is_last = value.is_graph_output() and not value.uses()
    if not is_last or node is None or node.op_type != "Reshape" or node.inputs[0] is None:
        return False
    return shape_of(node.inputs[0]) == row
