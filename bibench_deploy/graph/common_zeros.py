"""Which tensors often hold exact zeros, and in which a zero is a matter of rounding.

ONNX Sign makes 0 of them, a third value that one bit cannot hold. Behind a batch norm that moves
its numbers a network meets no exact zero; the dark parts of an image, what a ReLU cut off, and
the even sums of a binary layer are zeros in every run.
"""

from __future__ import annotations

from collections.abc import Set
from math import prod

import onnx_ir as ir

from bibench_deploy.graph.batch_norm import batch_norm_step
from bibench_deploy.graph.fold_constants import constant_of

# A sum is exactly 0 where all its terms are, as the channels of a dark pixel are.
_FEW_TERMS = 4

# Give 0 where their first input is 0, at the same place or at another one.
_KEEPERS = frozenset(
    ["Abs", "AveragePool", "Cast", "Celu", "DepthToSpace", "Div", "Dropout", "Elu", "Erf",
     "Expand", "Flatten", "Gather", "Gelu", "HardSwish", "Identity", "LeakyRelu", "MaxPool",
     "Neg", "PRelu", "Pad", "Reshape", "Resize", "Selu", "Shrink", "Sign", "Sin", "Slice",
     "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Tanh", "Tile", "Transpose",
     "Unsqueeze"]
)  # fmt: skip
# Give 0 for whole ranges of numbers.
_MAKERS = frozenset(["Ceil", "Floor", "Relu", "Round", "ThresholdedRelu"])
# Give 0 where one of their inputs is 0, and where all are.
_OF_ONE = frozenset(["Concat", "Max", "Min", "Mul"])
_OF_ALL = frozenset(["Add", "Sub", "Sum"])


def values_with_common_zeros(model: ir.Model, binary_layers: Set[ir.Node]) -> set[ir.Value]:
    """Find the tensors that often hold exact zeros.

    Args:
        model: the model, as `load_graph` gives it.
        binary_layers: the nodes of its binary layers, whose sums are whole numbers.

    Returns:
        The values that the graph's own inputs, a ReLU or whole numbers reach with nothing
        between that moves zero; not those of which this cannot be told.
    """
    found = {value for value in model.graph.inputs if not value.is_initializer()}
    for node in model.graph:
        if node.domain == "" and _gives_zeros(node, found, binary_layers):
            found.update(node.outputs)
    return found


def _gives_zeros(node: ir.Node, found: Set[ir.Value], binary_layers: Set[ir.Node]) -> bool:
    arrays = [constant_of(item) if item is not None else None for item in node.inputs]
    holds = [
        item in found if array is None else bool((array == 0).any())
        for item, array in zip(node.inputs, arrays, strict=True)
    ]
    kind = node.op_type
    if kind in _MAKERS:
        return True
    if kind in _KEEPERS:
        return holds[0]
    if kind in _OF_ONE:
        return any(holds)
    if kind in _OF_ALL:
        return all(holds)
    if kind == "Where":
        return any(holds[1:])
    if kind == "Clip":
        return any(holds)  # a bound of 0, or a number
    if kind == "BatchNormalization":
        step = batch_norm_step(node)
        # A channel that is not moved keeps its zeros, as a fresh batch norm does in all.
        return holds[0] and step is not None and bool((step[1] == 0).any())
    if kind not in ("Conv", "Gemm", "MatMul") or (len(holds) > 2 and not holds[2]):
        return False  # no sum, or a bias moves it
    if node in binary_layers:
        return True
    weight = arrays[1]
    if weight is None or not holds[0]:
        return False
    axis = 0 if kind == "Conv" or node.attributes.get_int("transB") else -1
    return prod(weight.shape) <= _FEW_TERMS * weight.shape[axis]
