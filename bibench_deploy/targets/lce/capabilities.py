"""What Larq Compute Engine can hold: the one source of facts for export and for lint.

Figures and failures were found by experiment with larq-compute-engine 0.16; the tests
beside this file's name repeat them.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from bibench_deploy.graph.binarization import find_binarization
from bibench_deploy.graph.facts import BinaryConv, Granularity, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.near_misses import why_not_one_layer
from bibench_deploy.targets._target import DEFAULT_OPTIONS, WriteOptions
from bibench_deploy.targets.lce.float_operators import OPERATORS
from bibench_deploy.targets.lce.float_operators._operator import computed_parameter

# Factors that fold into the batch norm behind a binary convolution.
HELD_SCALES = frozenset({Granularity.NONE, Granularity.TENSOR, Granularity.CHANNEL})

# A grouped binary convolution becomes one for each group.
MOST_GROUPS = 32

# Ranks and types of tensors that TensorFlow Lite's float operators run on.
_INPUT_RANKS = (2, 3, 4)
_LARGEST_RANK = 5
_LARGEST_RANK_OF_SHAPES = 6
_MOVING = frozenset(["Flatten", "Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
_HELD_TYPES = frozenset([ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64])
_LAYERS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])

_RECURRENT = "recurrent layers need a state; write one step of it with linear layers"
_CONTROL = "the graph must do the same for every input; use torch.where, or fix the branch"
_AFTERWARDS = "end the model before it, and do it on the outputs"
_INSTEAD = "write it with other operators, or end the model before it"

# What to write instead of operators that no network for LCE can hold.
_WAYS_OUT = {
    "Dropout": "export the model after model.eval()",
    "Einsum": "write it with torch.matmul, transpose and reshape",
    "GRU": _RECURRENT,
    "If": _CONTROL,
    "LSTM": _RECURRENT,
    "Loop": _CONTROL,
    "NonMaxSuppression": _AFTERWARDS,
    "NonZero": _AFTERWARDS,
    "RNN": _RECURRENT,
    "Scan": _CONTROL,
}


def refusals(
    model: ir.Model, lowered: ir.Model, options: WriteOptions = DEFAULT_OPTIONS
) -> list[str]:
    """Every reason why this target cannot hold a model, each with node and next step.

    Args:
        model: the model, as `load_graph` gives it.
        lowered: the same after the target's lowering, which takes much out of the way.
        options: what the user chose; scales that do not fold are held where it allows them.

    Returns:
        One text per node in the way; empty where the target holds the model.
    """
    reasons: list[str] = []
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs)
        reasons.append(
            f"the graph has {len(inputs)} inputs ({names}); pass one tensor and split it inside, "
            "or fix the others in the module's __init__"
        )
    reasons.extend(
        f'the graph\'s input "{value.name}" has {len(shape_of(value))} dimensions; give it 2 '
        "(N, F), 3 (N, C, L) or 4 (N, C, H, W)"
        for value in inputs
        if len(shape_of(value)) not in _INPUT_RANKS
    )
    if len(model.graph.outputs) != 1:
        reasons.append(
            f"the graph gives {len(model.graph.outputs)} outputs; return one tensor, by torch.cat "
            "of the flattened ones for instance"
        )
    reasons.extend(
        f"the graph gives {value.name}, {reason}"
        for value in model.graph.outputs
        if (reason := _output_refusal(value)) is not None
    )
    convs = binary_convs(model)
    for conv in convs:
        reasons.extend(f"{conv.facts.name}: {text}" for text in _binary_refusals(conv, options))
    reasons.extend(_left_over_refusals(lowered))
    return reasons


def _output_refusal(value: ir.Value) -> str | None:
    if value.dtype == ir.DataType.BOOL:
        return "which is true or false; return numbers, by .float()"
    if value.shape is not None and len(value.shape) == 0:
        return "a single number; keep a dimension of it, by keepdim=True"
    return None


def _left_over_refusals(lowered: ir.Model) -> list[str]:
    """What is neither a binary layer of the lowered graph nor an operator that Keras has."""
    convs = binary_convs(lowered)
    held = {conv.node for conv in convs}
    held.update(node for conv in convs for node in conv.binarization.nodes)
    reasons: list[str] = []
    for node in lowered.graph:
        if node not in held:
            reason = _float_refusal(lowered, node)
            reasons += [] if reason is None else [f"{node.name}: {reason}"]
    return reasons


def _binary_refusals(conv: BinaryConv, options: WriteOptions) -> list[str]:
    facts, reasons = conv.facts, []
    if conv.weight.ndim not in (2, 3, 4):
        reasons.append("a binary convolution of a volume, which LCE has not; use two dimensions")
    if facts.scale not in HELD_SCALES and not options.allow_unfused_scales:
        reasons.append(
            f"a {facts.scale.value} scale does not fold into batch norm; use one per channel"
        )
    if conv.factor is not None and set(shape_of(conv.factor)) != {1}:
        reasons.append(
            f"its signs are multiplied by {conv.factor.name}, which differs from place to place; "
            "multiply the layer's output instead"
        )
    if facts.group > MOST_GROUPS:
        reasons.append(
            f"a binary convolution of {facts.group} groups; LCE runs one operator for each, so "
            f"use at most {MOST_GROUPS}"
        )
    return reasons


def _float_refusal(model: ir.Model, node: ir.Node) -> str | None:
    """Why a node that is no binary layer cannot be held, and what to do; None where it can."""
    check = None if node.domain else _CHECKS.get(node.op_type)
    if check is None:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        return f"operator {name} is not supported; {_WAYS_OUT.get(node.op_type, _INSTEAD)}"
    return _tensor_refusal(node) or _sign_refusal(model, node) or check(node)


def _tensor_refusal(node: ir.Node) -> str | None:
    """Whether the tensors themselves, whatever is done with them, cannot be held."""
    for value in [*node.inputs, *node.outputs]:
        if value is None or value.name == "" or (value.shape is None and not value.uses()):
            continue
        if value.shape is None or not value.shape.is_static():
            return f"the size of {value.name} is not known; export the model with fixed sizes"
        if value.dtype is not None and value.dtype not in _HELD_TYPES:
            return f"{value.name} is {value.dtype}; keep the model in float32"
        most = _LARGEST_RANK_OF_SHAPES if node.op_type in _MOVING else _LARGEST_RANK
        if len(value.shape) > most and constant_of(value) is None:
            return f"{value.name} has {len(value.shape)} dimensions; use at most {most}"
    return None


def _sign_refusal(model: ir.Model, node: ir.Node) -> str | None:
    """Whether a layer reads binarized numbers and is no binary layer: it was meant to be one."""
    if node.op_type not in _LAYERS:
        return None
    value = node.inputs[0]
    while value is not None:
        binarization = find_binarization(model, value)
        if binarization is not None:
            known = None if node.op_type == "ConvTranspose" else why_not_one_layer(model, node)
            return known or _not_binary(node, str(binarization.source.name))
        mover = value.producer()
        is_passed = mover is not None and (mover.op_type in _MOVING or mover.op_type == "Pad")
        value = mover.inputs[0] if mover is not None and is_passed else None
    # Behind a pooling of signs, a layer of float weights is one in float; no other is.
    return why_not_one_layer(model, node)


def _not_binary(node: ir.Node, source: str) -> str:
    if node.op_type == "ConvTranspose":
        return (
            f"a transposed convolution of the signs of {source}, which LCE has not; upsample and "
            f"use a binary convolution, or let it read {source} before the sign"
        )
    return (
        f"reads the signs of {source}, but its own weights are not binary: they need one magnitude "
        f"per output channel; binarize them, or let it read {source} before the sign"
    )


def _conv_refusal(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim != 4:
        return "a convolution of a volume, which LCE has not; use one or two dimensions"
    return None


def _pool_refusal(node: ir.Node) -> str | None:
    if len(shape_of(node.outputs[0])) != 4:
        return "a pooling of a volume, which LCE has not; pool over height and width"
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return "a max pooling whose indices are read; upsample without them"
    return None


_CHECKS: dict[str, Callable[[ir.Node], str | None]] = {
    **{name: operator.refusal for name, operator in OPERATORS.items()},
    "AveragePool": _pool_refusal,
    "Conv": lambda node: computed_parameter(node, (1, 2)) or _conv_refusal(node),
    "MaxPool": _pool_refusal,
}
