"""Which tensors often hold exact zeros, and in which a zero is a matter of rounding.

ONNX Sign makes 0 of them, a third value that one bit cannot hold. Behind a batch norm that moves
its numbers a network meets no exact zero; the dark parts of an image, what a ReLU cut off, and
the even sums of a binary layer are zeros in every run.
"""

from __future__ import annotations

from collections.abc import Set
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

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
        return holds[0] and _has_still_channel(node, arrays[1:5])
    if kind not in ("Conv", "Gemm", "MatMul") or (len(holds) > 2 and not holds[2]):
        return False  # no sum, or a bias moves it
    if node in binary_layers:
        return True
    weight = arrays[1]
    if weight is None or not holds[0]:
        return False
    outputs = weight.shape[0] if kind == "Conv" or _is_transposed(node) else weight.shape[-1]
    return prod(weight.shape) <= _FEW_TERMS * outputs


def _is_transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1


def _has_still_channel(node: ir.Node, arrays: list[npt.NDArray[Any] | None]) -> bool:
    """Whether a batch norm leaves 0 where it is in some channel, as a fresh one does in all."""
    if any(array is None for array in arrays):
        return False
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return bool((beta - mean * gamma / np.sqrt(variance + epsilon) == 0).any())
