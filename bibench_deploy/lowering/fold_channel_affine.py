"""Fold the scale, bias and batch norm after a binary layer into one BatchNormalization.

Requires: canonical binarization.
Ensures: whatever constants per channel multiply or shift a binary layer's output, batch
norm included, form one BatchNormalization that reads the layer directly. Engines fuse
exactly that into their binary convolution.

With y = m·c + b before a batch norm (γ, β, μ, σ² + ε): γ' = γ·m, μ' = 0 and
β' = β + γ·(b − μ)/√(σ² + ε), in double precision, rounded once. Variance and ε stay, of
several batch norms in a row the last one's; what follows multiplies γ' and β'. A shift that
only an exact zero notices, the −2^-126 of x > 0, moves β' by its last bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.batch_norm import batch_norm_step
from bibench_deploy.graph.facts import binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer

_Vector = npt.NDArray[np.float64]

# A shift so small that only an exact zero notices it: it says which sign 0 has, and would be
# lost in any sum.
SMALLEST_SHIFT = 1e-30


def fold_channel_affine(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for conv in binary_convs(model):
        _fold_behind(model.graph, conv.node, conv.facts.name)


def _fold_behind(graph: ir.Graph, node: ir.Node, name: str) -> None:
    output = node.outputs[0]
    channels = shape_of(output)[1]
    multiplier, offset = np.ones(channels), np.zeros(channels)
    if len(node.inputs) > 2 and (bias := constant_of(node.inputs[2])) is not None:
        offset = np.broadcast_to(bias.astype(np.float64).reshape(-1), (channels,)).copy()
        node.resize_inputs(2)
    variance, epsilon = np.ones(channels), 0.0
    nudge = np.zeros(channels)
    folded: list[ir.Node] = []
    value = output
    while (reader := only_reader(value)) is not None:
        step = channel_step(reader, value, channels)
        if step is None:
            break
        if reader.op_type == "BatchNormalization":
            # Its own deviation stays beside its γ: a quotient of both may be out of range.
            own = np.asarray(constant_of(reader.inputs[4]), dtype=np.float64)
            own_epsilon = reader.attributes.get_float("epsilon", 1e-5)
            deviation = np.sqrt(variance + epsilon)
            multiplier = multiplier / deviation * np.asarray(constant_of(reader.inputs[1]))
            variance, epsilon = own, own_epsilon
            offset = step[0] * offset + step[1]
        else:
            is_nudge = np.abs(step[1]) < SMALLEST_SHIFT
            nudge += np.where(is_nudge, step[1], 0)
            multiplier = step[0] * multiplier
            offset = step[0] * offset + np.where(is_nudge, 0, step[1])
        nudge = step[0] * nudge
        folded.append(reader)
        value = reader.outputs[0]
    if not folded and not offset.any():
        return
    parameters = {
        "gamma": multiplier.astype(np.float32),
        "beta": _nudged(offset.astype(np.float32), nudge),
        "mean": np.zeros(channels, np.float32),
        "variance": variance.astype(np.float32),
    }
    normalization = ir.node(
        "BatchNormalization",
        [output, *(add_initializer(graph, f"{name}_{key}", array)
                   for key, array in parameters.items())],
        attributes={"epsilon": epsilon},
        name=f"{name}_batch_norm",
    )  # fmt: skip
    result = normalization.outputs[0]
    result.name, result.shape, result.dtype = f"{name}_normalized", value.shape, ir.DataType.FLOAT
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    for old in reversed(folded):
        graph.remove(old, safe=True)
    normalization.replace_input_with(0, output)
    graph.insert_after(node, normalization)


def _nudged(offset: npt.NDArray[np.float32], nudge: _Vector) -> npt.NDArray[np.float32]:
    """An offset moved as little as can be towards the sign of `nudge`."""
    tiny = np.copysign(np.finfo(np.float32).tiny, nudge).astype(np.float32)
    ends = np.copysign(np.inf, nudge).astype(np.float32)
    moved = np.where(offset == 0, tiny, np.nextafter(offset, ends))
    return np.where(nudge == 0, offset, moved)


def channel_step(node: ir.Node, value: ir.Value, channels: int) -> tuple[_Vector, _Vector] | None:
    """Read a node as a multiplication and an addition of one number per channel.

    Args:
        node: a reader of `value`.
        value: [N, O, …].
        channels: O.

    Returns:
        (multiplier [O], offset [O]) of a batch norm, or of a Mul, Div, Add or Sub of
        constants; None where it is anything else.
    """
    if node.op_type == "BatchNormalization" and node.domain == "":
        return batch_norm_step(node) if len(node.outputs) == 1 else None
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or node.domain != "":
        return None
    is_left = node.inputs[0] is value
    array = constant_of(node.inputs[1] if is_left else node.inputs[0])
    if array is None or array.size not in (1, channels):
        return None
    rank = len(shape_of(value))
    aligned = (1,) * (rank - array.ndim) + array.shape
    if array.size == channels != 1 and (len(aligned) != rank or aligned[1] != channels):
        return None
    vector = np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return vector, zeros
    if node.op_type == "Add":
        return ones, vector
    if node.op_type == "Sub":
        return (ones, -vector) if is_left else (-ones, vector)
    return (1 / vector, zeros) if is_left else None
