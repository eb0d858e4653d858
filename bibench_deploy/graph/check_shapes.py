"""Find the node whose inputs do not fit together, or whose size nothing fixes."""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from bibench_deploy.errors import GraphError, UnfitGraphError

# What one tensor may hold: 2 GiB in float32, far beyond any image that a board sees.
LARGEST_TENSOR = 2**29
# Engines count rows and columns in 32 bits, and add up several of these.
_LARGEST_STEP = 2**30
_STEPS = ("dilations", "kernel_shape", "pads", "strides")
_AGAIN = "the file is damaged or was edited: export the model again"


def check_shapes(model: ir.Model) -> None:
    """Check that every standard operator gives tensors of a static shape.

    Args:
        model: a graph whose shapes have been inferred, and not taken from the file.

    Raises:
        UnfitGraphError: names the first node whose inputs have static shapes and whose
            result has none.
        GraphError: names the first node that fits its inputs badly or gives more numbers than
            can be computed.
    """
    for node in model.graph:
        _check_steps(node)
        if node.domain != "" or any(value.shape is None for value in _given(node)):
            continue
        if not all(value.shape is not None and value.shape.is_static() for value in _given(node)):
            continue
        if not _fits(node) or (_is_open(node) and _is_refused(node, model)):
            shapes = " and ".join(_text(value) for value in _given(node))
            raise GraphError(
                f'node "{node.name}" ({node.op_type}) does not fit its inputs {shapes}; {_AGAIN}'
            )
        if _is_open(node):
            raise UnfitGraphError(
                "dynamic-shape",
                f"{node.op_type} gives a tensor whose size is not known before the network runs",
                "let no size depend on what the network is fed, or end the model before this node",
                node=node.name or "",
            )
        for value in node.outputs:
            if value.shape is not None and math.prod(_sizes(value)) > LARGEST_TENSOR:
                raise GraphError(
                    f'node "{node.name}" ({node.op_type}) gives {_sizes(value)}, more numbers '
                    "than can be computed; export the model for real images"
                )


def _check_steps(node: ir.Node) -> None:
    for name in _STEPS:
        attribute = node.attributes.get(name)
        if attribute is None or attribute.type != ir.AttributeType.INTS:
            continue
        steps = list(attribute.as_ints())
        if max(map(abs, steps), default=0) > _LARGEST_STEP:
            raise GraphError(
                f'node "{node.name}" ({node.op_type}) has {name} {steps}, beyond what any engine '
                f"counts; {_AGAIN}"
            )


def _given(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _sizes(value: ir.Value) -> list[int]:
    return [] if value.shape is None else list(value.shape.numpy())


def _text(value: ir.Value) -> str:
    """Its shape, and its type where that is not the usual one."""
    is_usual = value.dtype in (None, ir.DataType.FLOAT)
    return f"{_sizes(value)}" if is_usual else f"{_sizes(value)} of {value.dtype}"


def _is_open(node: ir.Node) -> bool:
    """Whether a result that somebody reads has no static shape."""
    return any(
        (value.uses() or value.is_graph_output())
        and (value.shape is None or not value.shape.is_static())
        for value in node.outputs
    )


def _fits(node: ir.Node) -> bool:
    """What shape inference does not compare: channels, biases, paddings, reshaped numbers."""
    given = [_sizes(value) for value in _given(node)]
    if node.op_type == "Conv" and len(given) >= 2:
        x, weight = given[:2]
        group = node.attributes.get_int("group", 1)
        return (
            len(x) == len(weight) >= 3
            and x[1] == weight[1] * group
            and weight[0] % group == 0
            and (len(given) < 3 or given[2] == [weight[0]])
        )
    if node.op_type == "ConvTranspose" and len(given) >= 2:
        x, weight = given[:2]
        group = node.attributes.get_int("group", 1)
        return (
            len(x) == len(weight) >= 3
            and x[1] == weight[0]
            and group > 0
            and weight[0] % group == 0
            and (len(given) < 3 or given[2] == [weight[1] * group])
        )
    if node.op_type == "BatchNormalization" and len(given) == 5:
        return len(given[0]) >= 2 and all(sizes == [given[0][1]] for sizes in given[1:])
    if node.op_type == "Clip":
        return all(math.prod(bound) == 1 for bound in given[1:])
    if node.op_type == "Gemm" and len(given) == 3 and not _is_open(node):
        output = _sizes(node.outputs[0])[-len(given[2]) :] if given[2] else []
        return len(given[2]) == len(output) and all(
            size in (1, whole) for size, whole in zip(given[2], output, strict=True)
        )
    if node.op_type == "Pad" and len(given) >= 2:
        axes = node.inputs[3] if len(node.inputs) > 3 else None
        count = len(given[0]) if axes is None else math.prod(_sizes(axes))
        return given[1] == [2 * count]
    if node.op_type == "Reshape" and given and not _is_open(node):
        return math.prod(given[0]) == math.prod(_sizes(node.outputs[0]))
    return True


def _is_refused(node: ir.Node, model: ir.Model) -> bool:
    """Whether ONNX itself finds a contradiction in the node's inputs."""
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset_imports.get("", 1), "")
        proto = ir.to_proto(node)
        types = {
            value.name: onnx.helper.make_tensor_type_proto(int(value.dtype), _sizes(value))
            for value in _given(node)
            if value.name is not None and value.dtype is not None
        }
        constants = {
            value.name: ir.serde.serialize_tensor(value.const_value)
            for value in _given(node)
            if value.name is not None and value.const_value is not None
        }
        onnx.shape_inference.infer_node_outputs(schema, proto, types, constants)
    except onnx.shape_inference.InferenceError:
        return True
    except Exception:  # a type or an operator that ONNX has no rule for: no contradiction
        return False
    return False
