"""What rules look at: one network, for one target."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, BinaryConvFacts
from bibench_deploy.targets._target import Target


@dataclass(frozen=True)
class Network:
    """A graph and what is known of it.

    Attributes:
        model: the graph, as `load_graph` gives it.
        convs: its binary layers, in graph order.
        target: what it shall run on.
    """

    model: ir.Model
    convs: tuple[BinaryConv, ...]
    target: Target

    @property
    def layers(self) -> tuple[BinaryConvFacts, ...]:
        """The facts of every binary layer, in graph order."""
        return tuple(conv.facts for conv in self.convs)
