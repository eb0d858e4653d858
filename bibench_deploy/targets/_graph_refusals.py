"""What stands in the way of a graph as a whole, the same for every target of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from bibench_deploy.targets._target import Refusal

# Operators of these are in ONNX Runtime's own packages.
_RUNTIME_DOMAINS = ("", "ai.onnx.ml", "com.microsoft")


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


def unknown_domains(model: ir.Model) -> Iterator[Refusal]:
    """Refuse operators that ONNX Runtime does not bring."""
    for node in model.graph:
        if node.domain not in _RUNTIME_DOMAINS:
            yield Refusal(
                "unknown-domain",
                node.name or "",
                f"ONNX Runtime does not bring the operator {node.domain}.{node.op_type}",
                "write it with other operators, or end the model before it",
            )
