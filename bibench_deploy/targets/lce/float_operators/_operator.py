"""What an operator in the float part of a network becomes in Keras, and when it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor


@dataclass(frozen=True)
class FloatOperator:
    """One operator of ONNX, in TensorFlow's terms.

    Attributes:
        translate: adds the operator to the Keras model; gives the tensor of its output, or a
            list of tensors where it has several.
        check: gives the reason why a node cannot be held and what to do, or None.
        parameters: indices of the inputs that must be constants.
    """

    translate: Callable[[KerasGraph, ir.Node], KerasTensor]
    check: Callable[[ir.Node], str | None] = lambda _: None
    parameters: tuple[int, ...] = ()


def computed_parameter(node: ir.Node, indices: tuple[int, ...]) -> str | None:
    """The reason why a node cannot be held whose inputs at `indices` are not all constants."""
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and constant_of(value) is None:
            return (
                f"the parameters of this {node.op_type} are computed; keep them as parameters or "
                "buffers of the module, so that the graph holds constants"
            )
    return None


def opset_of(node: ir.Node) -> int:
    """The opset that a node of the default domain is of."""
    assert node.graph is not None
    return node.graph.opset_imports.get("", 0)
