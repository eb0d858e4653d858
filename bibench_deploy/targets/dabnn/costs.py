"""What daBNN holds at a price, counted in the layers that were made."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.facts import shape_of
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.targets._target import Cost
from bibench_deploy.targets.dabnn.assembly import Assembled


def costs(lowered: ir.Model, assembled: Assembled) -> Iterator[Cost]:
    """What of a model takes layers of its own for what the engine lacks.

    What padding costs depends on an option, and the manifest has it as a whole.

    Args:
        lowered: the model after the target's lowering.
        assembled: what was made of that.
    """
    for node in lowered.graph:
        if node.op_type == "Clip" and node.domain == "":
            name = source_layer(node)
            count = len(assembled.layers_of.get(name, ()))
            passes = counted(count, "pass", "passes")
            yield Cost(
                "clip-kept",
                name,
                f"a clip that more than signs read: {passes} over "
                f"{counted(prod(shape_of(node.outputs[0])), 'number')}",
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
