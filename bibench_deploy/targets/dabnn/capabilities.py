"""What daBNN can hold: the one source of facts for export and for lint.

What is said of the graph before any lowering is here, but for scales, whose rule every target
shares; what a node cannot become is in assembly.py, and what the engine's kernels cannot run in
layer_limits.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.facts import BinaryConv, Granularity, shape_of
from bibench_deploy.targets._graph_refusals import weights_not_finite
from bibench_deploy.targets._target import Refusal, WriteOptions

# Factors that fold into the Affine behind a binary convolution.
HELD_SCALES = frozenset({Granularity.NONE, Granularity.TENSOR, Granularity.CHANNEL})


def graph_refusals(model: ir.Model) -> Iterator[Refusal]:
    """What is wrong with the graph as a whole."""
    inputs = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs)
        yield Refusal(
            "several-inputs",
            "",
            f"the graph has {len(inputs)} inputs ({names}), and daBNN feeds one",
            "pass one tensor and split it inside, or fix the others in the module's __init__",
        )
    yield from (
        Refusal(
            "rank",
            "",
            f'the graph\'s input "{value.name}" has {counted(len(shape_of(value)), "dimension")}',
            "give it 2 (N, F) or 4 (N, C, H, W)",
        )
        for value in inputs
        if len(shape_of(value)) not in (2, 4)
    )
    if len(model.graph.outputs) != 1:
        yield Refusal(
            "several-outputs",
            "",
            f"the graph gives {len(model.graph.outputs)} outputs, and a .dab file is read for one",
            "return one tensor, by torch.cat of the flattened ones for instance",
        )
    yield from weights_not_finite(model)


def shift_refusals(convs: Sequence[BinaryConv], options: WriteOptions) -> Iterator[Refusal]:
    """The binary layers with a constant per channel before their sign, unless that is allowed."""
    for conv in convs:
        facts = conv.facts
        if facts.has_mean_shift and not options.allow_mean_shift:
            yield Refusal(
                "mean-shift",
                facts.name,
                "a constant per channel is added before its sign, which BiBench counts as not "
                "supported by daBNN",
                "train without it (bireal), or export with --allow-mean-shift, which folds it "
                "into what stands around it and stays exact",
            )
