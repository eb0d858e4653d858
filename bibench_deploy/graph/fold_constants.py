"""Fold everything that depends on no input into initializers.

Exporters leave weight arithmetic, shape arithmetic and expanded scalars in the graph;
after this pass a binarized weight is one tensor, whatever wrote it. ONNX Runtime computes
the values, with its optimisations off, so that they are those of the original graph.
"""

from __future__ import annotations

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


def fold_constants(model: ir.Model) -> bool:
    """Replace every constant node by an initializer, in place.

    Shapes must have been inferred: a Shape node of a static shape is constant too.

    Returns:
        Whether anything was folded; new shapes can then be inferred.
    """
    graph = model.graph
    is_changed = _resolve_static_nodes(graph)
    is_changed = _shrink_where_operands(graph) or is_changed
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
    arrays = evaluate(model, foldable, [], results, []) if results else []
    for value, array in zip(results, arrays, strict=True):
        constant = add_initializer(graph, f"{value.name}_folded", array)
        value.replace_all_uses_with(constant, replace_graph_outputs=True)
    for node in reversed(foldable):
        graph.remove(node, safe=True)
    return True


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
    return int(np.prod(value.shape.numpy())) * 4


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
