"""What daBNN holds at a price, counted in the layers that were made."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.targets._target import Cost
from bibench_deploy.targets.dabnn.assembly import Assembled


def costs(model: ir.Model, lowered: ir.Model, assembled: Assembled) -> Iterator[Cost]:
    """What of a model runs slower, or computes something else, for what the engine lacks.

    Args:
        model: the model, as `load_graph` gives it.
        lowered: the same after the target's lowering, or what it was changed to.
        assembled: what was made of that.
    """
    before = {conv.facts.name: conv.facts for conv in binary_convs(model)}
    for name in assembled.borders:
        yield Cost(
            "zero-padding",
            name,
            f"pads with {before[name].pad_value:g}, which daBNN has not: a constant map is added "
            "to its output",
            "train with −1 padding",
        )
    for conv in binary_convs(lowered):
        name = source_layer(conv.node)
        if (
            any(before[name].pads)
            and before[name].pad_value != -1
            and name not in assembled.borders
        ):
            yield Cost(
                "zero-padding",
                name,
                f"pads with −1 in place of {before[name].pad_value:g}: another network",
                "train with −1 padding, or export with --padding exact",
            )
    for node in lowered.graph:
        if node.op_type == "Clip" and node.domain == "":
            name = source_layer(node)
            count = len(assembled.layers_of.get(name, ()))
            yield Cost(
                "clip-kept",
                name,
                f"a clip that more than signs read: {count} passes over its map",
                "let the shortcut go around it, or leave it out",
            )
    for name in assembled.copied:
        yield Cost(
            "overwritten-map",
            name,
            "writes over a map that is still to be read, so it works on a copy: a max pooling of "
            "1×1",
            "let one operator alone read the map",
            is_small=True,
        )
