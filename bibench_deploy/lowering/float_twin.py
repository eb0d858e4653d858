"""Make the FP32 twin: the same topology with float convolutions in place of binary ones.

Requires: canonical binarization.
Ensures: no sign is left, and each binary layer is a float layer whose weights are those of
the binary one, ±scale. The twin serves latency and size, never accuracy: that is the job
of a network trained in float.
"""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.load import normalize


def float_twin(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for conv in binary_convs(model):
        conv.node.replace_input_with(0, conv.binarization.source)
    normalize(model)
