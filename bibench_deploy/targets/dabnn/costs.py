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
    for conv in binary_convs(lowered):
        facts = before[source_layer(conv.node)]
        if not any(facts.pads) or facts.pad_value == -1:
            continue
        if facts.name in assembled.borders:
            message = f"pads with {facts.pad_value:g}, so a constant map is added to its output"
        else:
            message = f"pads with −1 in place of {facts.pad_value:g}, so its outputs are others"
        yield Cost("zero-padding", facts.name, message, "train with −1 padding")
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
