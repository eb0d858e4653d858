"""Fold everything that depends on no input into initializers.

Exporters leave weight arithmetic, shape arithmetic and expanded scalars in the graph;
after this pass a binarized weight is one tensor, whatever wrote it. ONNX Runtime computes
the values, with its optimisations off, so that they are those of the original graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.initializer import add_initializer

# Folding must not make a small file huge: an Expand of one number to a feature map, say.
LARGEST_FOLDED_BYTES = 64 * 2**20
_UNFOLDABLE = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
               "Multinomial", "Bernoulli", "Dropout"}  # fmt: skip
# What these give may be far larger than what they get: their shape must be known before.
_GROWING = {"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile",
            "Upsample"}  # fmt: skip


def fold_constants(model: ir.Model) -> bool:
    """Replace every constant node by an initializer, in place.

    Shapes must have been inferred: a Shape node of a static shape is constant too.

    Returns:
        Whether anything was folded; new shapes can then be inferred.
    """
    graph = model.graph
    is_changed = _resolve_static_nodes(graph)
    is_changed = _choose_branches(graph) or is_changed
    is_changed = _fold_products_with_zero(graph) or is_changed
    is_changed = _shrink_where_operands(graph) or is_changed
    is_changed = _shrink_maps(graph) or is_changed
    foldable = _constant_nodes(graph)
    if not foldable:
        return is_changed
    inside = set(foldable)
    results = [
        value
        for node in foldable
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]
    arrays = _evaluate_constants(model, foldable, results)
    for value, array in zip(results, arrays, strict=True):
        constant = add_initializer(graph, f"{value.name}_folded", array)
        value.replace_all_uses_with(constant, replace_graph_outputs=True)
    for node in reversed(foldable):
        graph.remove(node, safe=True)
    return True


def _evaluate_constants(
    model: ir.Model, nodes: Sequence[ir.Node], results: Sequence[ir.Value]
) -> list[npt.NDArray[np.generic]]:
    if not results:
        return []
    try:
        return evaluate(model, nodes, [], results, [])
    except GraphError:
        # Which of them it is, one by one: the message then is about one node.
        known: dict[ir.Value, npt.NDArray[np.generic]] = {}
        for node in nodes:
            fed = [item for item in dict.fromkeys(node.inputs) if item in known]
            try:
                arrays = evaluate(model, [node], fed, node.outputs, [known[item] for item in fed])
            except GraphError as error:
                shapes = [_shape_text(item, known) for item in node.inputs if item is not None]
                raise GraphError(
                    f'node "{node.name}" ({node.op_type}) cannot be computed from its inputs '
                    f"{', '.join(shapes) or '(none)'}; the file is damaged or was edited: "
                    "export the model again"
                ) from error
            known.update(zip(node.outputs, arrays, strict=True))
        return [known[value] for value in results]


def _shape_text(value: ir.Value, known: dict[ir.Value, npt.NDArray[np.generic]]) -> str:
    array = known.get(value)
    if array is None:
        array = constant_of(value)
    return "?" if array is None else str(list(array.shape))


def evaluate(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    feeds: Sequence[npt.NDArray[np.generic]],
) -> list[npt.NDArray[np.generic]]:
    """Compute some values of a graph with ONNX Runtime.

    Args:
        model: the graph's model, for its opset.
        nodes: what to run, in topological order; each reads `inputs`, constants, or
            other nodes of the list.
        inputs: the values that are fed.
        outputs: the values wanted.
        feeds: one array per input; its shape and dtype are those that the nodes see.

    Returns:
        One array per output.

    Raises:
        GraphError: ONNX Runtime refuses the nodes: a wrong shape, an opset that it lacks.
    """
    import onnxruntime

    clones: dict[ir.Value, ir.Value] = {}
    fed: list[ir.Value] = []
    for value, feed in zip(inputs, feeds, strict=True):
        clone = ir.Value(
            name=f"fed_{len(fed)}",
            shape=ir.Shape(feed.shape),
            type=ir.TensorType(ir.DataType.from_numpy(feed.dtype)),
        )
        clones[value] = clone
        fed.append(clone)
    constants: list[ir.Value] = []
    copies: list[ir.Node] = []
    for node in nodes:
        for operand in node.inputs:
            if operand is not None and operand not in clones:
                tensor = operand.const_value
                assert tensor is not None, f"{operand.name} is neither fed, constant nor computed"
                clones[operand] = ir.Value(
                    name=f"constant_{len(constants)}",
                    shape=ir.Shape(tensor.shape.numpy()),
                    type=ir.TensorType(tensor.dtype),
                    const_value=tensor,
                )
                constants.append(clones[operand])
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if operand is None else clones[operand] for operand in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            version=node.version,
        )
        for index, (value, clone) in enumerate(zip(node.outputs, copy.outputs, strict=True)):
            clone.name = f"value_{len(copies)}_{index}"
            clone.dtype = value.dtype if value.dtype is not None else ir.DataType.FLOAT
            clones[value] = clone
        copies.append(copy)
    part = ir.Model(
        ir.Graph(
            fed,
            [clones[value] for value in outputs],
            nodes=copies,
            initializers=constants,
            opset_imports=dict(model.opset_imports),
            name="part",
        ),
        ir_version=min(model.ir_version, 10),
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    names = [clones[value].name for value in outputs]
    feed_by_name = {clone.name: feed for clone, feed in zip(fed, feeds, strict=True)}
    try:
        session = onnxruntime.InferenceSession(
            ir.to_proto(part).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results: list[npt.NDArray[np.generic]] = session.run(names, feed_by_name)
    except Exception as error:  # ONNX Runtime's own classes have no public home
        raise GraphError(f"ONNX Runtime cannot run this model: {_cause(error)}") from error
    return results


def _cause(error: Exception) -> str:
    return str(error).partition(" : ")[2].strip() or str(error)


def constant_of(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array of a constant value, or None where the value is computed or absent."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def _resolve_static_nodes(graph: ir.Graph) -> bool:
    """Turn Shape of a static shape into a constant, and CastLike into Cast."""
    is_changed = False
    for node in list(graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Shape" and source is not None and source.shape is not None:
            if not source.shape.is_static():
                continue
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", len(source.shape))
            sizes = np.array(source.shape.numpy()[start:end], dtype=np.int64)
            constant = add_initializer(graph, f"{node.outputs[0].name}_static", sizes)
            node.outputs[0].replace_all_uses_with(constant, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            is_changed = True
        elif node.op_type == "CastLike" and node.inputs[1] is not None:
            dtype = node.inputs[1].dtype
            if dtype is not None:
                node.op_type = "Cast"
                node.resize_inputs(1)
                node.attributes["to"] = ir.AttrInt64("to", int(dtype))
                is_changed = True
    return is_changed


def _constant_nodes(graph: ir.Graph) -> list[ir.Node]:
    constant_values: set[ir.Value] = set()
    nodes: list[ir.Node] = []
    for node in graph:
        is_foldable = (
            node.domain == ""
            and node.op_type not in _UNFOLDABLE
            and not any(
                attribute.type in _GRAPH_ATTRIBUTES for attribute in node.attributes.values()
            )
            and all(
                value is None or value in constant_values or constant_of(value) is not None
                for value in node.inputs
            )
            and not (node.op_type in _GROWING and _is_unknown(node.outputs[0]))
            and sum(_size_bytes(value) for value in node.outputs) <= LARGEST_FOLDED_BYTES
        )
        if is_foldable:
            nodes.append(node)
            constant_values.update(node.outputs)
    return nodes


_GRAPH_ATTRIBUTES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _size_bytes(value: ir.Value) -> int:
    if value.shape is None or not value.shape.is_static():
        return 0
    return math.prod(value.shape.numpy()) * 4


def _is_unknown(value: ir.Value) -> bool:
    return value.shape is None or not value.shape.is_static()


def _shrink_where_operands(graph: ir.Graph) -> bool:
    """Bring a tensor of one repeated number back to a scalar, where a Where picks from it."""
    is_changed = False
    for node in graph:
        if node.op_type != "Where" or node.inputs[0] is None:
            continue
        # Safe only where the condition alone decides the output's shape.
        shape = node.inputs[0].shape
        if shape is None or not shape.is_static() or shape != node.outputs[0].shape:
            continue
        for index in (1, 2):
            array = constant_of(node.inputs[index])
            if array is None or array.size <= 1 or not (array == array.flat[0]).all():
                continue
            name = f"{node.outputs[0].name}_choice_{index}"
            scalar = add_initializer(graph, name, np.asarray(array.flat[0]))
            node.replace_input_with(index, scalar)
            is_changed = True
    return is_changed


def _choose_branches(graph: ir.Graph) -> bool:
    """Put the nodes of the branch taken in the place of every If with a constant condition."""
    is_changed = False
    for node in list(graph):
        condition = constant_of(node.inputs[0]) if node.op_type == "If" and node.inputs else None
        if node.domain != "" or condition is None or condition.size != 1:
            continue
        branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
        for value in list(branch.initializers.values()):
            assert value.name is not None
            branch.initializers.pop(value.name)
            constant = add_initializer(graph, value.name, _array_of(value))
            value.replace_all_uses_with(constant, replace_graph_outputs=True)
        results = list(branch.outputs)
        branch.outputs.clear()
        for inner in list(branch):
            branch.remove(inner)
            graph.insert_before(node, inner)
        for old, new in zip(node.outputs, results, strict=True):
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        is_changed = True
    return is_changed


def _array_of(value: ir.Value) -> npt.NDArray[np.generic]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _fold_products_with_zero(graph: ir.Graph) -> bool:
    """Replace x · 0 by zeros where it is one term of sums: x is finite, the term is gone."""
    is_changed = False
    for node in list(graph):
        if node.op_type != "Mul" or node.domain != "" or _is_unknown(node.outputs[0]):
            continue
        arrays = [constant_of(operand) for operand in node.inputs]
        output = node.outputs[0]
        has_zero = any(array is not None and not array.any() for array in arrays)
        if not has_zero or output.dtype is None or not _is_a_term(output):
            continue
        assert output.shape is not None
        if _size_bytes(output) <= LARGEST_FOLDED_BYTES:
            zeros = np.zeros(output.shape.numpy(), output.dtype.numpy())
            constant = add_initializer(graph, f"{output.name}_zero", zeros)
            output.replace_all_uses_with(constant, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            is_changed = True
    return is_changed


# What zeros pass through as zeros.
_LINEAR = frozenset(["Flatten", "MatMul", "Mul", "Neg", "Reshape", "Squeeze", "Transpose",
                     "Unsqueeze"])  # fmt: skip


def _is_a_term(value: ir.Value, depth: int = 16) -> bool:
    """Whether a value ends in sums with other computed values, and nowhere else."""
    if depth == 0 or value.is_graph_output():
        return False
    for user, index in value.uses():
        if user.domain != "":
            return False
        if user.op_type in ("Add", "Sub") and constant_of(user.inputs[1 - index]) is None:
            continue
        if user.op_type not in _LINEAR or not _is_a_term(user.outputs[0], depth - 1):
            return False
    return True


# Operator: the operands that may be brought back to one number per channel.
_CHANNEL_OPERANDS = {"Add": (0, 1), "Sub": (0, 1), "Mul": (0, 1), "Div": (0, 1), "PRelu": (1,)}


def _shrink_maps(graph: ir.Graph) -> bool:
    """Bring a constant that a whole map repeats back to one number per channel."""
    is_changed = False
    for node in graph:
        if node.domain != "" or node.op_type not in _CHANNEL_OPERANDS or len(node.inputs) != 2:
            continue
        output = node.outputs[0]
        for index in _CHANNEL_OPERANDS[node.op_type]:
            array, other = constant_of(node.inputs[index]), node.inputs[1 - index]
            # Safe only where the other operand alone decides the output's shape.
            if array is None or other is None or _is_unknown(other) or other.shape != output.shape:
                continue
            assert other.shape is not None
            first_spatial = max(0, 2 - (len(other.shape) - array.ndim))
            small = array
            for axis in range(first_spatial, array.ndim):
                small = small.take([0], axis)
            if small.size < array.size and (array == small).all():
                name = f"{output.name}_operand_{index}"
                node.replace_input_with(index, add_initializer(graph, name, small))
                is_changed = True
    return is_changed
