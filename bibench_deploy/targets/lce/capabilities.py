"""What Larq Compute Engine can hold: the one source of facts for export and for lint.

Figures and failures were found by experiment with larq-compute-engine 0.16; the tests
beside this file's name repeat them.
"""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, Granularity, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets._target import DEFAULT_OPTIONS, WriteOptions
from bibench_deploy.targets.lce.keras_model import SUPPORTED

# Factors that fold into the batch norm behind a binary convolution.
HELD_SCALES = frozenset({Granularity.NONE, Granularity.TENSOR, Granularity.CHANNEL})

# A grouped binary convolution becomes one for each group.
MOST_GROUPS = 32

_SIGN_OPERATORS = frozenset(
    ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sign", "Where"]
)

_OUTSIDE_A_LAYER = (
    "outside any recognised binary layer; what it feeds needs weights of one magnitude per "
    "output channel, no zeros, and inputs of exactly −1 and +1"
)


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
    if len(inputs) != 1 or len(shape_of(inputs[0])) not in (2, 4):
        reasons.append("the graph needs one input of two or four dimensions")
    if len(model.graph.outputs) != 1:
        reasons.append(f"the graph gives {len(model.graph.outputs)} outputs; keep one")
    convs = binary_convs(model)
    for conv in convs:
        reasons.extend(f"{conv.facts.name}: {text}" for text in _binary_refusals(conv, options))
    reasons.extend(_left_over_refusals(lowered, convs))
    return reasons


def _left_over_refusals(lowered: ir.Model, source_convs: list[BinaryConv]) -> list[str]:
    """What is neither a binary layer of the lowered graph nor an operator that Keras has."""
    convs = binary_convs(lowered)
    held = {conv.node for conv in convs}
    held.update(node for conv in convs for node in conv.binarization.nodes)
    # Lowering gives each layer a sign of its own: an old one that is still there has a reader.
    old_signs = {node.name for conv in source_convs for node in conv.binarization.nodes}
    old_results = {conv.binarization.result.name for conv in source_convs}
    reasons: list[str] = []
    for node in lowered.graph:
        if node in held:
            continue
        if node.name in old_signs:
            reasons.extend(
                f"{use.node.name}: {use.node.op_type} reads a binarized tensor; only binary "
                "layers can, so let it read the tensor before the sign"
                for value in node.outputs
                if value.name in old_results
                for use in value.uses()
            )
        else:
            reasons.extend(f"{node.name}: {text}" for text in _float_refusals(node))
    return reasons


def _binary_refusals(conv: BinaryConv, options: WriteOptions) -> list[str]:
    facts, reasons = conv.facts, []
    if conv.weight.ndim not in (2, 4):
        reasons.append("a one-dimensional binary convolution; write it as two-dimensional (1, k)")
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


def _float_refusals(node: ir.Node) -> list[str]:
    if node.domain == "" and node.op_type in _SIGN_OPERATORS:
        return [f"{node.op_type} {_OUTSIDE_A_LAYER}"]
    if node.domain != "" or node.op_type not in SUPPORTED:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        return [f"operator {name} is not supported; replace it in the model"]
    if node.op_type in _CONSTANT_PARAMETERS:
        parameters = [value for value in node.inputs[1:] if value is not None]
        if any(constant_of(value) is None for value in parameters):
            return [f"the parameters of this {node.op_type} are computed; make them constants"]
    if node.op_type in ("Flatten", "Reshape"):
        # A sign's only readers are binary layers, and those know the order of a flattened map.
        readers = {use.node for use in node.outputs[0].uses() if use.node.op_type != "Less"}
        reason = _flatten_refusal(node, readers)
    else:
        check = _CHECKS.get(node.op_type)
        reason = None if check is None else check(node)
    return [] if reason is None else [reason]


# Operators whose every input but the first must be known when the model is written.
_CONSTANT_PARAMETERS = frozenset(["BatchNormalization", "Clip", "Conv", "Gemm", "PRelu"])


def _conv_refusal(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim != 4:
        return "a convolution needs constant two-dimensional kernels"
    return None


def _pool_refusal(node: ir.Node) -> str | None:
    if len(shape_of(node.outputs[0])) != 4:
        return "a pooling needs two dimensions"
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return "a max pooling whose indices are read"
    return None


def _linear_refusal(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim != 2 or len(shape_of(node.outputs[0])) != 2:
        return "a matrix product needs a constant [O, I] weight and a [N, I] input"
    is_plain = all(
        node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta")
    ) and not node.attributes.get_int("transA")
    return None if is_plain else "a Gemm with alpha, beta or transA; fold them into its weight"


def _arithmetic_refusal(node: ir.Node) -> str | None:
    shapes = [shape_of(value) for value in node.inputs if value is not None]
    arrays = [constant_of(value) for value in node.inputs]
    output = shape_of(node.outputs[0])
    for array, shape in zip(arrays, shapes, strict=True):
        if array is None:
            if len(shape) != len(output) or (len(shape) == 4 and shape[1] != output[1]):
                return "operands of different rank or channel count; give both the same"
        elif array.size != 1:
            aligned = (1,) * (len(output) - array.ndim) + array.shape
            if len(aligned) < 2 or array.size != aligned[1]:
                return (
                    f"a constant of shape {list(array.shape)} is not one number per channel; "
                    "LCE's interpreter dies on any other behind a binary convolution"
                )
    return None


def _reduce_refusal(node: ir.Node) -> str | None:
    axes = list(node.attributes.get_ints("axes", ()))
    # Since opset 18 the axes are an input.
    if len(node.inputs) > 1 and (array := constant_of(node.inputs[1])) is not None:
        axes = array.tolist()
    source = node.inputs[0]
    rank = len(shape_of(source)) if source is not None else 0
    if rank != 4 or sorted(axis % 4 for axis in axes) != [2, 3]:
        return "a mean over anything but height and width"
    return None


def _flatten_refusal(node: ir.Node, readers: set[ir.Node]) -> str | None:
    source, output = node.inputs[0], shape_of(node.outputs[0])
    assert source is not None
    shape = shape_of(source)
    is_flat = len(output) == 2 and len(shape) in (2, 4) and output[0] == shape[0]
    if not is_flat:
        return f"reshapes {list(shape)} to {list(output)}; only flattening a whole map is supported"
    users = {reader.op_type for reader in readers}
    if len(shape) == 4 and shape[2:] != (1, 1) and not users <= {"Gemm", "MatMul"}:
        return "a flattened map that other than fully connected layers read"
    return None


def _concat_refusal(node: ir.Node) -> str | None:
    if any(constant_of(value) is not None for value in node.inputs):
        return "a concatenation with a constant; concatenate computed tensors only"
    is_channels = node.attributes.get_int("axis", 1) == 1 and len(shape_of(node.outputs[0])) == 4
    return None if is_channels else "a concatenation along anything but channels"


def _prelu_refusal(node: ir.Node) -> str | None:
    slope, output = constant_of(node.inputs[1]), shape_of(node.outputs[0])
    assert slope is not None
    aligned = (1,) * (len(output) - slope.ndim) + slope.shape
    is_held = slope.size == 1 or (len(aligned) > 1 and slope.size == aligned[1] == output[1])
    return None if is_held else f"slopes of shape {list(slope.shape)}; use one for each channel"


def _softmax_refusal(node: ir.Node) -> str | None:
    if len(shape_of(node.outputs[0])) != 2:
        return "a softmax over a map"
    is_last = node.attributes.get_int("axis", -1) in (-1, 1)
    return None if is_last else "a softmax over the batch; use the last axis"


_CHECKS = {
    "Add": _arithmetic_refusal,
    "AveragePool": _pool_refusal,
    "Concat": _concat_refusal,
    "Conv": _conv_refusal,
    "Div": _arithmetic_refusal,
    "Gemm": _linear_refusal,
    "MatMul": _linear_refusal,
    "MaxPool": _pool_refusal,
    "Mul": _arithmetic_refusal,
    "PRelu": _prelu_refusal,
    "ReduceMean": _reduce_refusal,
    "Softmax": _softmax_refusal,
    "Sub": _arithmetic_refusal,
}
