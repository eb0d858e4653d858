"""Make a .dab model of a lowered graph, its layers in an order that overwrites nothing.

The engine's Affine, Relu, PRelu and Add write over what they read. So a node that overwrites
comes after all others that read the same map; where that cannot be, or it is the network's
input, it gets a copy: a max pooling of 1×1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.facts import shape_of
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.targets._target import Refusal
from bibench_deploy.targets.dabnn.emitter import Emitter, Shape
from bibench_deploy.targets.dabnn.layer_limits import input_refusals
from bibench_deploy.targets.dabnn.nodes import OVERWRITING, RENAMING, NodeWriter, Refused
from bibench_deploy.targets.dabnn.schema import DabLayer, DabModel

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Assembled:
    """A .dab model, and what is known of how it came about.

    Attributes:
        model: it; where something is refused it is not whole.
        refusals: what the engine cannot hold.
        layers_of: source graph's node → its layers.
        borders: source graph's layer → how many numbers are added for its padding.
        copied: source graph's nodes that work on a copy.
    """

    model: DabModel
    refusals: tuple[Refusal, ...]
    layers_of: dict[str, list[DabLayer]]
    borders: dict[str, int]
    copied: tuple[str, ...]


def assemble(lowered: ir.Model, *, is_exact: bool = False) -> Assembled:
    """Make a .dab model of a lowered graph.

    Args:
        lowered: the graph, as `DabnnTarget.lower` gives it.
        is_exact: whether the border of what is padded with other numbers than −1 is corrected.
    """
    emitter = Emitter()
    writer = NodeWriter(lowered, is_exact, emitter)
    entry = lowered.graph.inputs[0]
    shape = _map_of(entry)
    name = emitter.place(str(entry.name), shape)
    order = _Order(lowered.graph, writer, emitter)
    refusals = [*input_refusals(shape), *order.write_all(name)]
    if not emitter.layers and not refusals:
        text = "a network that only moves numbers, of which no layer is left"
        refusals.append(Refusal("unsupported-operator", "", text, "give it a layer"))
    model = DabModel(name, (1, *shape), tuple(emitter.layers), tuple(emitter.tensors))
    return Assembled(
        model,
        (*refusals, *emitter.refusals),
        emitter.layers_of,
        writer.borders,
        tuple(order.copied),
    )


def _map_of(value: ir.Value) -> Shape:
    """(H, W, C) of a tensor [1, C, H, W] or [1, F]."""
    shape = shape_of(value)
    return (shape[2], shape[3], shape[1]) if len(shape) == 4 else (1, 1, shape[-1] if shape else 1)


class _Order:
    """Writes all nodes of a graph, each when nobody is left who reads what it overwrites."""

    def __init__(self, graph: ir.Graph, writer: NodeWriter, emitter: Emitter) -> None:
        self._graph = graph
        self._writer = writer
        self._emitter = emitter
        parts = set(writer.parts())
        self._left = [node for node in graph if node not in parts]
        # How often each value is still to be read.
        self._pending = Counter(value for node in self._left for value in writer.reads(node))
        # Under which name each value is held; values of one buffer lie in the same place.
        self._names: dict[ir.Value, str] = {}
        self._buffers: dict[ir.Value, int] = {}
        self.copied: list[str] = []

    def write_all(self, entry: str) -> list[Refusal]:
        """Write every node; gives those that the engine cannot hold."""
        self._names[self._graph.inputs[0]], self._buffers[self._graph.inputs[0]] = entry, 0
        refusals: list[Refusal] = []
        while self._left:
            ready = [node for node in self._left if self._is_ready(node)]
            harmless = (node for node in ready if not self._overwrites(node) or self._free(node))
            # Without one that is ready, what is read next are signs that nothing gives.
            node = next(harmless, ready[0] if ready else self._left[0])
            self._left.remove(node)
            self._emitter.node = source_layer(node)
            try:
                if not ready:
                    raise Refused(
                        "unsupported-operator",
                        f"{node.op_type} of signs, which daBNN has inside of binary layers only",
                        "let binary layers alone read them, or read the numbers before the sign",
                    )
                self._write(node)
            except Refused as refused:
                name = source_layer(node)
                refusals.append(Refusal(refused.rule, name, refused.message, refused.hint))
                # What comes behind it is looked at all the same.
                output = self._writer.output(node)
                self._keep(output, self._emitter.place("refused", _map_of(output)))
            self._pending.subtract(self._writer.reads(node))
        return refusals

    def _is_ready(self, node: ir.Node) -> bool:
        return all(value in self._names for value in self._writer.reads(node))

    def _overwrites(self, node: ir.Node) -> bool:
        return not node.domain and node.op_type in OVERWRITING

    def _write(self, node: ir.Node) -> None:
        reads = self._writer.reads(node)
        if not reads:
            raise Refused("operator-form", f"a {node.op_type} that reads constants alone")
        _check_ranks(node, reads)
        sources = [self._names[value] for value in reads]
        buffer = None
        if self._overwrites(node):
            free = self._free(node)
            place = free[0] if free else 0
            if free:
                buffer = self._buffers[reads[place]]
            else:
                sources[0] = self._emitter.copy(sources[0])
                self.copied.append(self._emitter.node)
            sources[0], sources[place] = sources[place], sources[0]
        elif node.op_type in RENAMING:
            buffer = self._buffers[reads[0]]
        self._keep(self._writer.output(node), self._writer.write(node, sources), buffer)

    def _keep(self, value: ir.Value, name: str, buffer: int | None = None) -> None:
        self._names[value] = name
        self._buffers[value] = len(self._buffers) if buffer is None else buffer

    def _free(self, node: ir.Node) -> list[int]:
        """Which of the maps that a node reads are read by nobody else from now on."""
        reads = self._writer.reads(node)
        # The input is the caller's, and the outputs are read at the end.
        pinned = {self._graph.inputs[0], *self._graph.outputs}
        found = []
        for place, value in enumerate(reads):
            same = [v for v, buffer in self._buffers.items() if buffer == self._buffers[value]]
            own = sum(item in same for item in reads)
            if not pinned.intersection(same) and sum(self._pending[v] for v in same) == own:
                found.append(place)
        return found


def _check_ranks(node: ir.Node, reads: Sequence[ir.Value]) -> None:
    for value in (*reads, node.outputs[0]):
        if len(shape_of(value)) not in (2, 4):
            raise Refused(
                "rank",
                f"{value.name} has {counted(len(shape_of(value)), 'dimension')}, and daBNN's maps "
                "have 4",
                "use tensors [N, C, H, W] or [N, C]",
            )
