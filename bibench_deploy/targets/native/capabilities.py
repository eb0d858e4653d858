"""What the native target cannot hold: little, since ONNX Runtime runs whatever is float."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, Granularity, shape_of
from bibench_deploy.targets._target import Refusal

# Factors that a binary convolution multiplies its own dot products by.
HELD_SCALES = frozenset({Granularity.NONE, Granularity.TENSOR, Granularity.CHANNEL})


def graph_refusals(model: ir.Model) -> Iterator[Refusal]:
    """What stands in the way of the graph as a whole.

    Args:
        model: the model, as `load_graph` gives it.
    """
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs)
        yield Refusal(
            "several-inputs",
            "",
            f"the graph has {len(inputs)} inputs ({names})",
            "pass one tensor and split it inside, or fix the others in the module's __init__",
        )


def layer_refusals(convs: Sequence[BinaryConv]) -> Iterator[Refusal]:
    """What of a binary layer's form the library has not.

    Args:
        convs: the binary layers of the model.
    """
    for conv in convs:
        if conv.weight.ndim not in (2, 3, 4):
            message = "a binary convolution of a volume, which the library has not"
            yield Refusal("volume", conv.facts.name, message, "use two dimensions")
        if not (shape_of(conv.node.outputs[0]) and shape_of(conv.binarization.source)):
            yield Refusal(
                "dynamic-shape",
                conv.facts.name,
                f"the size of {conv.binarization.source.name} is not known",
                "export the model with fixed sizes",
            )
