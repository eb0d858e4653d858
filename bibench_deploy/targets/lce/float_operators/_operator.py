"""What an operator in the float part of a network becomes in Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor


@dataclass(frozen=True)
class FloatOperator:
    """One operator of ONNX, in TensorFlow's terms.

    Attributes:
        translate: adds the operator to the Keras model; gives the tensor of its output.
    """

    translate: Callable[[KerasGraph, ir.Node], KerasTensor]
