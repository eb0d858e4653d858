"""What stands in the way of a graph as a whole, said alike by several targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.common_zeros import values_with_common_zeros
from bibench_deploy.graph.facts import BinaryConv
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets._target import Refusal

# Operators that hold what was trained.
_LAYERS = frozenset(
    ["BatchNormalization", "Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "MatMul"]
)


def several_inputs(model: ir.Model) -> Iterator[Refusal]:
    """Refuse a network of several inputs: whatever proves, measures or runs a model feeds one."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs)
        yield Refusal(
            "several-inputs",
            "",
            f"the graph has {len(inputs)} inputs ({names})",
            "pass one tensor and split it inside, or fix the others in the module's __init__",
        )


def unfit_outputs(model: ir.Model) -> Iterator[Refusal]:
    """Refuse outputs that are no numbers along an axis, which nothing could be compared by."""
    for value in model.graph.outputs:
        message = f"the graph gives {value.name},"
        if value.dtype == ir.DataType.BOOL:
            message += " which is true or false"
            yield Refusal("tensor-type", "", message, "return numbers, by .float()")
        elif value.shape is not None and len(value.shape) == 0:
            message += " a single number"
            yield Refusal("rank", "", message, "keep a dimension of it, by keepdim=True")


def weights_not_finite(model: ir.Model) -> Iterator[Refusal]:
    """Refuse layers whose weights are infinite or no numbers: a training that diverged."""
    for node in model.graph:
        if node.domain != "" or node.op_type not in _LAYERS:
            continue
        arrays = [array for value in node.inputs if (array := constant_of(value)) is not None]
        count = sum(int((~np.isfinite(array)).sum()) for array in arrays if array.dtype.kind == "f")
        if count:
            yield Refusal(
                "not-finite",
                node.name or "",
                f"{counted(count, 'of its weights is', 'of its weights are')} infinite or NaN",
                "the training has diverged: lower its learning rate, and train again",
            )


def zeros_before_signs(model: ir.Model, convs: Sequence[BinaryConv]) -> Iterator[Refusal]:
    """Refuse a Sign of numbers that often are exactly 0, and that would become a third value."""
    open_to_zero = [
        conv for conv in convs if conv.facts.threshold == 0 and conv.facts.at_threshold == 0
    ]
    if not open_to_zero:
        return
    zeros = values_with_common_zeros(model, {conv.node for conv in convs})
    for conv in open_to_zero:
        if conv.binarization.source in zeros:
            yield Refusal(
                "sign-of-zero",
                conv.facts.name,
                f"0 becomes 0 here, a third value, and many numbers of {conv.facts.source} are 0",
                "binarize by torch.where(x >= 0, 1.0, -1.0)",
            )


def unknown_domains(model: ir.Model) -> Iterator[Refusal]:
    """Refuse operators that ONNX Runtime does not bring."""
    foreign = [node for node in model.graph if node.domain != ""]
    known = _runtime_operators() if foreign else frozenset()
    for node in foreign:
        if (node.domain, node.op_type) not in known:
            yield Refusal(
                "unknown-domain",
                node.name or "",
                f"ONNX Runtime does not bring the operator {node.domain}.{node.op_type}",
                "write it with other operators, or end the model before it",
            )


@cache
def _runtime_operators() -> frozenset[tuple[str, str]]:
    """Domain and name of every operator that the installed ONNX Runtime has."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    return frozenset((entry.domain, entry.name) for entry in runtime.get_all_operator_schema())
