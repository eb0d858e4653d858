"""What Larq Compute Engine can hold: the one source of facts for export and for lint.

Figures and failures were found by experiment with larq-compute-engine 0.16; the tests
beside this file's name repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.binarization import find_binarization
from bibench_deploy.graph.facts import BinaryConv, Granularity, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.near_misses import why_not_one_layer
from bibench_deploy.targets._graph_refusals import (
    several_inputs,
    unfit_outputs,
    weights_not_finite,
    zeros_before_signs,
)
from bibench_deploy.targets._target import DEFAULT_OPTIONS, Refusal, Target, WriteOptions
from bibench_deploy.targets._unfused_scales import refuse_unfused_scales
from bibench_deploy.targets.lce.float_operators import OPERATORS
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator, computed_parameter

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
    target: Target, model: ir.Model, lowered: ir.Model, options: WriteOptions = DEFAULT_OPTIONS
) -> list[Refusal]:
    """Every reason why this target cannot hold a model, each with node and next step.

    Args:
        target: this target.
        model: the model, as `load_graph` gives it.
        lowered: the same after the target's lowering, which takes much out of the way.
        options: what the user chose; scales that do not fold are held where it allows them.

    Returns:
        At least one for each node in the way; empty where the target holds the model.
    """
    convs = binary_convs(model)
    return [
        *_interface_refusals(model),
        *weights_not_finite(model),
        *zeros_before_signs(model, convs),
        *refuse_unfused_scales(target, convs, options),
        *_form_refusals(convs),
        *_left_over_refusals(lowered),
    ]


def _interface_refusals(model: ir.Model) -> Iterator[Refusal]:
    """What stands in the way of the graph's own inputs and outputs."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    yield from several_inputs(model)
    for value in inputs:
        rank = len(shape_of(value))
        if rank not in _INPUT_RANKS:
            yield Refusal(
                "rank",
                "",
                f'the graph\'s input "{value.name}" has {counted(rank, "dimension")}',
                "give it 2 (N, F), 3 (N, C, L) or 4 (N, C, H, W)",
            )
    outputs = model.graph.outputs
    if len(outputs) != 1:
        yield Refusal(
            "several-outputs",
            "",
            f"the graph gives {len(outputs)} outputs",
            "return one tensor, by torch.cat of the flattened ones for instance",
        )
    yield from unfit_outputs(model)


def _form_refusals(convs: list[BinaryConv]) -> Iterator[Refusal]:
    """What of a binary layer's form LCE's binary convolution has not."""
    for conv in convs:
        facts = conv.facts
        if conv.weight.ndim not in (2, 3, 4):
            message = "a binary convolution of a volume, which LCE has not"
            yield Refusal("volume", facts.name, message, "use two dimensions")
        if facts.group > MOST_GROUPS:
            yield Refusal(
                "depthwise" if facts.weight_shape[1] == 1 else "groups",
                facts.name,
                f"a binary convolution of {facts.group} groups",
                f"LCE runs one operator for each, so use at most {MOST_GROUPS}",
            )


def _left_over_refusals(lowered: ir.Model) -> Iterator[Refusal]:
    """What is neither a binary layer of the lowered graph nor an operator that Keras has."""
    convs = binary_convs(lowered)
    held = {conv.node for conv in convs}
    held.update(node for conv in convs for node in conv.binarization.nodes)
    for node in lowered.graph:
        found = None if node in held else _float_refusal(lowered, node)
        if found is not None:
            rule, text = found
            # Up to the first semicolon is what was found, behind it what to do.
            message, _, hint = text.partition("; ")
            yield Refusal(rule, node.name or "", message, hint)


_Found = tuple[str, str]  # name of the rule, and the reason


def _float_refusal(model: ir.Model, node: ir.Node) -> _Found | None:
    """Why a node that is no binary layer cannot be held, and what to do; None where it can."""
    if node.domain:
        name = f"{node.domain}.{node.op_type}"
        return "unknown-domain", f"operator {name} is not supported; {_INSTEAD}"
    check = _CHECKS.get(node.op_type)
    if check is None:
        way_out = _WAYS_OUT.get(node.op_type, _INSTEAD)
        return "unsupported-operator", f"operator {node.op_type} is not supported; {way_out}"
    return _tensor_refusal(node) or _sign_refusal(model, node) or check(node)


def _tensor_refusal(node: ir.Node) -> _Found | None:
    """Whether the tensors themselves, whatever is done with them, cannot be held."""
    for value in [*node.inputs, *node.outputs]:
        if value is None or value.name == "" or (value.shape is None and not value.uses()):
            continue
        if value.shape is None or not value.shape.is_static():
            text = f"the size of {value.name} is not known; export the model with fixed sizes"
            return "dynamic-shape", text
        if value.dtype is not None and value.dtype not in _HELD_TYPES:
            return "tensor-type", f"{value.name} is {value.dtype}; keep the model in float32"
        most = _LARGEST_RANK_OF_SHAPES if node.op_type in _MOVING else _LARGEST_RANK
        if len(value.shape) > most and constant_of(value) is None:
            return "rank", f"{value.name} has {len(value.shape)} dimensions; use at most {most}"
    return None


def _sign_refusal(model: ir.Model, node: ir.Node) -> _Found | None:
    """Whether a layer reads binarized numbers and is no binary layer: it was meant to be one."""
    if node.op_type not in _LAYERS:
        return None
    is_transposed = node.op_type == "ConvTranspose"
    changed = "transposed-convolution" if is_transposed else "changed-signs"
    value = node.inputs[0]
    while value is not None:
        binarization = find_binarization(model, value)
        if binarization is not None:
            known = None if is_transposed else why_not_one_layer(model, node)
            return (changed, known) if known else _not_binary(node, str(binarization.source.name))
        mover = value.producer()
        is_passed = mover is not None and (mover.op_type in _MOVING or mover.op_type == "Pad")
        value = mover.inputs[0] if mover is not None and is_passed else None
    # Behind a pooling of signs, a layer of float weights is one in float; no other is.
    known = why_not_one_layer(model, node)
    return None if known is None else (changed, known)


def _not_binary(node: ir.Node, source: str) -> _Found:
    if node.op_type == "ConvTranspose":
        return "transposed-convolution", (
            f"a transposed convolution of the signs of {source}, which LCE has not; upsample and "
            f"use a binary convolution, or let it read {source} before the sign"
        )
    return "float-weights-on-signs", (
        f"reads the signs of {source}, but its own weights are not binary: they need one magnitude "
        f"per output channel; binarize them, or let it read {source} before the sign"
    )


def _conv_refusal(node: ir.Node) -> _Found | None:
    if (text := computed_parameter(node, (1, 2))) is not None:
        return "computed-parameter", text
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim != 4:
        return "volume", "a convolution of a volume, which LCE has not; use one or two dimensions"
    return None


def _pool_refusal(node: ir.Node) -> _Found | None:
    if len(shape_of(node.outputs[0])) != 4:
        return "volume", "a pooling of a volume, which LCE has not; pool over height and width"
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        text = "a max pooling whose indices are read; upsample without them"
        return "operator-form", text
    return None


def _operator_refusal(operator: FloatOperator) -> Callable[[ir.Node], _Found | None]:
    def check(node: ir.Node) -> _Found | None:
        if (text := computed_parameter(node, operator.parameters)) is not None:
            return "computed-parameter", text
        text = operator.check(node)
        return None if text is None else ("operator-form", text)

    return check


_CHECKS: dict[str, Callable[[ir.Node], _Found | None]] = {
    **{name: _operator_refusal(operator) for name, operator in OPERATORS.items()},
    "AveragePool": _pool_refusal,
    "Conv": _conv_refusal,
    "MaxPool": _pool_refusal,
}
