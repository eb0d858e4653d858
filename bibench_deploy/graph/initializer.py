"""Add constants to a graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def add_initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Add a constant to a graph, under `name` or, where that is taken, a name like it.

    Names of constants, and of what goes in and out of the graph, are looked at. What nodes
    give may still have the name: whoever rewrites a graph has `NameFixPass` part the two.
    """
    ends = {value.name for value in (*graph.inputs, *graph.outputs)}
    unique, number = name, 1
    while unique in graph.initializers or unique in ends:
        unique, number = f"{name}_{number}", number + 1
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(
        name=unique,
        shape=ir.Shape(list(array.shape)),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
