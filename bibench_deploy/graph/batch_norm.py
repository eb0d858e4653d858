"""What a batch norm does to each channel at inference: a multiplication and an addition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of

_Vector = npt.NDArray[np.float64]


def batch_norm_step(node: ir.Node) -> tuple[_Vector, _Vector] | None:
    """Read a BatchNormalization as a multiplication and an addition of one number per channel.

    Returns:
        (multiplier [C], offset [C]); None where its parameters are no constants.
    """
    arrays = [constant_of(item) if item is not None else None for item in node.inputs[1:]]
    if any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    multiplier = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return multiplier, beta - multiplier * mean
