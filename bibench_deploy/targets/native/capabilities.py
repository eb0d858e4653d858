"""What the native target cannot hold: little, since ONNX Runtime runs whatever is float."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bibench_deploy.graph.facts import BinaryConv, Granularity, shape_of
from bibench_deploy.targets._target import Refusal

# Factors that a binary convolution multiplies its own dot products by.
HELD_SCALES = frozenset({Granularity.NONE, Granularity.TENSOR, Granularity.CHANNEL})


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
