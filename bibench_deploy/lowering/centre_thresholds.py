"""Put the threshold of a binary layer's sign midway between two sums that the layer can give.

Requires: canonical binarization; constants per channel behind a binary layer are one
BatchNormalization.
Ensures: where signs alone read γ·n + β of a binary layer, no sum n gives a number nearer to
zero than half of what one more in the sum makes. Each sign stays what it was.

The sum n of a layer with weights of −1, 0 and +1 is a whole number, so the sign changes
between two of them, and any β that keeps it there computes the same. With the β of training
a sum may lie on the threshold itself, as it does with fresh batch norm at n = 0. Engines
then decide by rounding: Larq Compute Engine folds the number of terms into β in single
precision, and corrects for zero padding at the border of a map in float.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import channel_step
from bibench_deploy.lowering.sign_places import LAYOUT

_Vector = npt.NDArray[np.float64]


def centre_thresholds(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    convs = binary_convs(model)
    # A pass may have made x > 0 of a sign: it needs its own sums, and is no threshold to move.
    compares = {
        conv.binarization.nodes[0] for conv in convs if conv.binarization.nodes[0].op_type == "Less"
    }
    for conv in convs:
        output = conv.node.outputs[0]
        norm = only_reader(output)
        if norm is None or norm.op_type != "BatchNormalization":
            continue
        step = channel_step(norm, output, shape_of(output)[1])
        beta = constant_of(norm.inputs[2])
        if step is None or beta is None or not _only_signs_read(norm.outputs[0], compares):
            continue
        factor, offset = step
        terms = conv.weight[0].size
        centred = beta.astype(np.float64) + centred_offset(factor, offset, terms) - offset
        name = f"{conv.facts.name}_centred"
        array = centred.astype(np.float32)
        norm.replace_input_with(2, add_initializer(model.graph, name, array))


def centred_offset(factor: _Vector, offset: _Vector, terms: int) -> _Vector:
    """The offset whose zero lies midway between the two sums where the sign changes.

    Args:
        factor: [O], what one more in the sum adds; channels of 0 are left as they are.
        offset: [O].
        terms: the sum lies between −terms and terms; a change outside is left as it is.

    Example:
        >>> centred_offset(np.array([2.0, 2.0, -2.0]), np.array([0.0, -0.5, 0.0]), 9).tolist()
        [1.0, -1.0, 1.0]
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        nearest = np.rint(-offset / factor)
    # Half of a factor below that may be lost, and engines take it for 0.
    is_factor = np.abs(factor) >= np.finfo(np.float32).tiny
    is_reached = is_factor & np.isfinite(nearest) & (np.abs(nearest) <= terms)
    nearest = np.where(is_reached, nearest, 0)
    is_high = factor * nearest + offset >= 0
    change = nearest + np.where(is_high == (factor > 0), -0.5, 0.5)
    centred: _Vector = np.where(is_reached, -factor * change, offset)
    return centred


def _only_signs_read(value: ir.Value, compares: set[ir.Node]) -> bool:
    """Whether nothing but signs comes of a tensor; a max pooling of signs is one too."""
    if value.is_graph_output() or not value.uses():
        return False
    for use in value.uses():
        node = use.node
        if node in compares:
            continue
        is_passed = node.op_type == "MaxPool" or LAYOUT in node.metadata_props
        if not is_passed or len(node.outputs) != 1:
            return False
        if not _only_signs_read(node.outputs[0], compares):
            return False
    return True
