"""What PyTorch itself computes: the outputs and signs that an export is compared with.

The signs of bibench's own binary layers are taken from the module as it runs. Any other
module shows its signs through what torch.export traced of it: values in the .onnx file keep
the names of the traced program's nodes, so the program is run node by node and those that
the graph knows as signs are kept. The module and its trace must give the same outputs, or
else the trace is no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import ParityError
from bibench_deploy.graph.facts import BinaryConv, binary_convs
from bibench_deploy.verify.parity import ROUNDING, SIGN_ROUNDING, GraphRunner, Observation

if TYPE_CHECKING:
    import torch

_Array = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int64]


def answer(model: torch.nn.Module, images: _Array) -> _Labels:
    """The class that a module in eval mode gives to each image [N, …]."""
    import torch

    with torch.no_grad():
        batches = np.split(images, range(64, len(images), 64))
        answers = [model(torch.from_numpy(batch)).argmax(dim=1).numpy() for batch in batches]
    return np.concatenate(answers)


@dataclass(frozen=True)
class Reference:
    """A module that was exported, and what torch traced of it.

    Attributes:
        model: hardened, in eval mode.
        program: the traced program that was written as ONNX.
    """

    model: torch.nn.Module
    program: torch.export.ExportedProgram

    def observe(self, graph: ir.Model, inputs: _Array) -> Observation:
        """Outputs and signs for each input, the signs for the binary layers of `graph`.

        Args:
            graph: what was exported, as `load_graph` gives it.
            inputs: [N, …].

        Raises:
            ParityError: the module computes something else than its trace.
        """
        own, convs = observe_module(self.model, inputs), binary_convs(graph)
        if len(own.signs or ()) == len(convs):
            return own
        traced = observe_program(self.program, convs, inputs)
        if traced is None:
            return Observation(own.outputs, None)
        _check_alike(graph, inputs, own.outputs, traced.outputs)
        return traced


def _check_alike(graph: ir.Model, inputs: _Array, own: _Array, traced: _Array) -> None:
    """Refuse a trace that is of something else than the module.

    Both run the same kernels, so they mostly agree to the bit; where torch took an operator
    apart, a sum may round otherwise and flip a sign that lies within rounding of zero. That
    happens for an input here and there, never for most of them.
    """
    scale = max(float(np.abs(own).max()), 1.0)
    differs = np.abs(own - traced).reshape(len(own), -1).max(axis=1) > ROUNDING * scale
    is_other = 2 * differs.sum() > len(own)
    if differs.any() and not is_other:
        runner = GraphRunner(graph)
        rows = np.flatnonzero(differs)
        is_other = any(runner.nearest_sign(inputs[row : row + 1]) > SIGN_ROUNDING for row in rows)
    if is_other:
        error = float(np.abs(own - traced).max())
        raise ParityError(
            f"the module differs from what torch.export traced of it by {error:.2g} (outputs up "
            f"to {scale:.2g}); its forward must do the same for every input, traced or not. "
            "Nothing was written"
        )


def observe_program(
    program: torch.export.ExportedProgram, convs: Sequence[BinaryConv], inputs: _Array
) -> Observation | None:
    """Run a traced program on each input, and keep what it binarizes.

    Args:
        program: of the module that the graph was exported from.
        convs: the binary layers of the graph.
        inputs: [N, …].

    Returns:
        Outputs, and the signs of each layer; None where neither a layer's sign nor the
        number before it is a node of the program, by name.
    """
    import torch
    from torch.export.graph_signature import InputKind

    graph = program.graph_module.graph
    nodes = {node.name for node in graph.nodes if node.op == "call_function"}
    shown = [_shown_name(conv, nodes) for conv in convs]
    stored = {**program.constants, **program.state_dict}
    specs = program.graph_signature.input_specs
    is_known = [spec.kind is InputKind.USER_INPUT or spec.target in stored for spec in specs]
    if None in shown or not all(is_known):
        return None

    class Recorder(torch.fx.Interpreter):
        """Keeps the tensors that the graph knows as signs."""

        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in seen:
                seen[n.name] = result
            return result

    seen: dict[str | None, Any] = dict.fromkeys(shown)
    recorder = Recorder(program.graph_module)
    outputs: list[_Array] = []
    signs: list[list[_Array]] = [[] for _ in convs]
    with torch.no_grad():
        for index in range(len(inputs)):
            row = torch.from_numpy(inputs[index : index + 1].copy())
            arguments = [
                row if spec.kind is InputKind.USER_INPUT else stored[str(spec.target)]
                for spec in specs
            ]
            results = recorder.run(*arguments, enable_io_processing=False)
            # What a module writes to its buffers comes before what it returns.
            outputs.append(results[-1].numpy())
            for layer, conv, name in zip(signs, convs, shown, strict=True):
                is_sign = name == conv.binarization.result.name
                layer.append((_sides if is_sign else _signs)(seen[name].numpy(), conv))
    return Observation(np.concatenate(outputs), tuple(np.concatenate(layer) for layer in signs))


def _shown_name(conv: BinaryConv, nodes: set[str]) -> str | None:
    """The name under which a program shows a layer's signs, or else the numbers before them."""
    for value in (conv.binarization.result, conv.binarization.source):
        if value.name in nodes:
            return value.name
    return None


def _sides(values: _Array, conv: BinaryConv) -> _Array:
    """±1 for a binarized tensor: which of its two values each number is, or is nearer to."""
    high, low = conv.binarization.high, conv.binarization.low
    is_high = np.abs(values - high) <= np.abs(values - low)
    return np.where(is_high, np.float32(1), np.float32(-1))


def _signs(values: _Array, conv: BinaryConv) -> _Array:
    """±1 for the numbers that are about to be binarized."""
    binarization = conv.binarization
    is_low_there = binarization.at_threshold == binarization.low
    threshold = np.float32(binarization.threshold)
    is_high = values > threshold if is_low_there else values >= threshold
    return np.where(is_high, np.float32(1), np.float32(-1))


def observe_module(model: torch.nn.Module, inputs: _Array) -> Observation:
    """Run a hardened module on each input.

    Args:
        model: in eval mode. Signs are known where its binary layers are bibench's own.
        inputs: [N, …].
    """
    import torch

    from bibench_train.harden import HardBinaryLayer

    signs: list[list[_Array]] = []
    row: list[_Array] = []

    def keep(layer: HardBinaryLayer, arguments: tuple[torch.Tensor]) -> None:
        (x,) = arguments
        shifted = x if layer.shift is None else x + layer.shift
        row.append(np.where(shifted.numpy() >= 0, np.float32(1), np.float32(-1)))

    layers = [module for module in model.modules() if isinstance(module, HardBinaryLayer)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    outputs: list[_Array] = []
    try:
        with torch.no_grad():
            for index in range(len(inputs)):
                row.clear()
                # A copy, since a module may write to what it is given.
                row_input = torch.from_numpy(inputs[index : index + 1].copy())
                outputs.append(model(row_input).numpy())
                signs.append(list(row))
    finally:
        for hook in hooks:
            hook.remove()
    per_layer = tuple(np.concatenate(layer) for layer in zip(*signs, strict=True))
    return Observation(np.concatenate(outputs), per_layer)
