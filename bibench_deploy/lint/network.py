"""What rules look at: one network, for one target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, BinaryConvFacts, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.near_misses import NearMiss, near_misses
from bibench_deploy.targets._target import Target

# BiBench's equations 7 and 8: a float weight is 32 bits, a float multiplication 64 binary ones.
BYTES_OF_FLOAT = 4
_BINARY_MACS_PER_MAC = 64


@dataclass(frozen=True)
class Network:
    """A graph and what is known of it.

    Attributes:
        model: the graph, as `load_graph` gives it.
        target: what it shall run on.
    """

    model: ir.Model
    target: Target

    @cached_property
    def convs(self) -> tuple[BinaryConv, ...]:
        """The binary layers, in graph order."""
        return tuple(binary_convs(self.model))

    @cached_property
    def layers(self) -> tuple[BinaryConvFacts, ...]:
        """The facts of every binary layer, in graph order."""
        return tuple(conv.facts for conv in self.convs)

    @cached_property
    def binary_nodes(self) -> frozenset[ir.Node]:
        """The nodes that are binary layers."""
        return frozenset(conv.node for conv in self.convs)

    @cached_property
    def nodes(self) -> Mapping[str, ir.Node]:
        """Name of a node → the node."""
        return {node.name or "": node for node in self.model.graph}

    @cached_property
    def near_misses(self) -> tuple[NearMiss, ...]:
        """What looks binary and cannot be shown to be."""
        return near_misses(self.model)

    @cached_property
    def weight_bytes(self) -> Mapping[ir.Node, float]:
        """Layer → bytes of its weights, one bit each where it is binary."""
        return {
            node: prod(shape) / 8 if node in self.binary_nodes else prod(shape) * BYTES_OF_FLOAT
            for node, shape in self._weight_shapes.items()
        }

    @cached_property
    def work(self) -> Mapping[ir.Node, float]:
        """Layer → multiplications for one input; 64 binary ones count as one."""
        return {
            node: macs / (_BINARY_MACS_PER_MAC if node in self.binary_nodes else 1)
            for node, macs in self.multiplications.items()
        }

    @cached_property
    def multiplications(self) -> Mapping[ir.Node, int]:
        """Layer → multiplications for one input."""
        return {node: _macs(node, shape) for node, shape in self._weight_shapes.items()}

    @cached_property
    def _weight_shapes(self) -> Mapping[ir.Node, tuple[int, ...]]:
        """Layer with constant weights → their shape, in graph order."""
        return {
            node: weight.shape
            for node in self.model.graph
            if node.domain == ""
            and node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
            and (weight := constant_of(node.inputs[1])) is not None
        }


def _macs(node: ir.Node, weight: tuple[int, ...]) -> int:
    """Multiplications of one layer."""
    output, source = shape_of(node.outputs[0]), node.inputs[0]
    if node.op_type == "Conv":
        return prod(weight) * prod(output[2:])
    if node.op_type == "ConvTranspose" and source is not None:
        return prod(weight) * prod(shape_of(source)[2:])
    if node.op_type == "MatMul" and output:  # a matrix for each of several maps, or a vector
        return prod(output) * weight[max(len(weight) - 2, 0)]
    return prod(weight) * prod(output[:-1])
