"""Make the FP32 twin: the same topology with float convolutions in place of binary ones.

Requires: canonical binarization.
Ensures: no sign is left, and each binary layer is a float layer with the signs of its
weights, divided by the number of terms in its sums. The twin serves latency and size,
never accuracy: that is the job of a network trained in float.

Why divided: with weights of ±1 a layer's sums grow with their number of terms, every clip
saturates, and rounding is amplified so much that no two engines agree on the output, so
the twin's conversion could not be proved.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.graph.load import normalize


def float_twin(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for conv in binary_convs(model):
        weight = conv.node.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        terms = conv.weight[0].size
        scaled = weight.const_value.numpy() / np.float32(terms)
        conv.node.replace_input_with(0, conv.binarization.source)
        conv.node.replace_input_with(
            1, add_initializer(model.graph, f"{conv.facts.name}_float", scaled.astype(np.float32))
        )
    normalize(model)
