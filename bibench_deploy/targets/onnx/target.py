"""The target `onnx`: the graph as it is, in float, for ONNX Runtime.

Binary layers keep their ±1 as 32-bit floats: this target is what a binarized network is
compared with where nothing runs it in one bit, and what its FP32 twin runs on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.artifact import writing
from bibench_deploy.errors import ConversionError
from bibench_deploy.graph.description import FileDescription, describe_onnx
from bibench_deploy.graph.facts import Granularity, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets._graph_refusals import (
    several_inputs,
    unfit_outputs,
    unknown_domains,
    weights_not_finite,
)
from bibench_deploy.targets._size_by_part import SizeByPart
from bibench_deploy.targets._target import (
    DEFAULT_OPTIONS,
    Execution,
    Refusal,
    Target,
    WriteOptions,
    Writer,
    WrittenModel,
)
from bibench_deploy.targets._unfused_scales import refuse_unfused_scales
from bibench_deploy.targets.onnx.run_model import load_session
from bibench_deploy.targets.onnx.size_by_part import size_by_part

_Array = npt.NDArray[np.float32]
MODEL_NAME = "model.onnx"
# onnxruntime 1.20 reads files up to this version of the format.
_IR_VERSION = 10


class OnnxTarget(Target):
    """ONNX Runtime 1.20 and newer."""

    name = "onnx"
    title = "ONNX Runtime"
    sign_of_zero = 0
    # The benchmark's rule, though here every scale is an operator of its own.
    held_scales = frozenset({Granularity.NONE, Granularity.TENSOR, Granularity.CHANNEL})
    options = frozenset({"allow_unfused_scales"})
    suffix = ".onnx"

    def refusals(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> list[Refusal]:
        """Inputs and operators that it cannot run; scales outside the rule, unless allowed."""
        return [
            *several_inputs(model),
            *unfit_outputs(model),
            *unknown_domains(model),
            *weights_not_finite(model),
            *refuse_unfused_scales(self, binary_convs(model), options),
        ]

    def describe(self, path: Path) -> FileDescription:
        """See `describe_onnx`."""
        return describe_onnx(path)

    def lower(self, model: ir.Model) -> ir.Model:
        """A copy."""
        return model.clone()

    def size_by_part(self, path: Path) -> SizeByPart:
        """See `size_by_part.size_by_part`."""
        return size_by_part(path)

    @contextmanager
    def open_writer(self) -> Iterator[Writer]:
        """Nothing needs to be started."""
        yield _OnnxWriter()


class _OnnxWriter:
    def write(
        self,
        lowered: ir.Model,
        directory: Path,
        options: WriteOptions = DEFAULT_OPTIONS,
        source: ir.Model | None = None,
    ) -> WrittenModel:
        """Write model.onnx, over the one that the graph was read from."""
        import onnxruntime

        lowered.ir_version = min(lowered.ir_version, _IR_VERSION)
        path = directory / MODEL_NAME
        with writing(path):
            ir.save(lowered, path)
        entry = lowered.graph.inputs[0]
        layout = {2: "NC", 3: "NCL", 4: "NCHW"}
        return WrittenModel(
            files={"model": path},
            layers=list(_layers(source or lowered)),
            input={
                "name": entry.name,
                "shape": list(shape_of(entry)),
                "layout": layout.get(len(shape_of(entry)), ""),
                "dtype": "float32",
                "rotated": False,
            },
            versions={"onnxruntime": onnxruntime.__version__},
            execute=_Executor(lowered),
            store_smaller=lambda *_: self.write(lowered, directory, source=source),
        )

    def measure_unfused_scales(
        self, lowered: ir.Model, written: WrittenModel, options: WriteOptions = DEFAULT_OPTIONS
    ) -> dict[str, Any] | None:
        """None: no scale needs an operator that the graph has not."""
        return None


class _Executor:
    """Runs the graph as a device does, optimisations on; also gives the signs of its layers."""

    def __init__(self, lowered: ir.Model) -> None:
        self._model = lowered

    def __call__(self, inputs: _Array, *, wants_signs: bool = True) -> Execution:
        """Run the model; see `Execute`.

        Raises:
            ConversionError: ONNX Runtime cannot run the graph.
        """
        shown = self._model.clone()
        convs = binary_convs(shown) if wants_signs else []
        signs = {conv.binarization.result.name: conv.binarization.result for conv in convs}
        outputs = {value.name for value in shown.graph.outputs}
        shown.graph.outputs.extend(value for name, value in signs.items() if name not in outputs)
        try:
            session = load_session(ir.to_proto(shown).SerializeToString())
        except RuntimeError as error:
            raise ConversionError(str(error)) from error
        first = self._model.graph.outputs[0].name
        rows = [
            dict(
                zip(
                    [first, *signs],
                    session.run([first, *signs], {shown.graph.inputs[0].name: row[None]}),
                    strict=True,
                )
            )
            for row in inputs
        ]
        found: dict[str, _Array] = {}
        for conv in convs:
            taken = np.stack([row[conv.binarization.result.name] for row in rows])
            low, high = conv.binarization.low, conv.binarization.high
            if not np.isin(taken, np.array([low, high], np.float32)).all():
                found = {}  # ONNX Sign gives a third value for 0; outputs alone are compared
                break
            found[conv.facts.name] = np.where(taken == np.float32(high), 1, -1).astype(np.float32)
        return Execution(np.concatenate([row[first] for row in rows]), found)


def _layers(source: ir.Model) -> Iterator[dict[str, Any]]:
    """One entry for each layer with weights, as the manifest lists them."""
    intended = {conv.node: conv for conv in binary_convs(source)}
    for node in source.graph:
        if node in intended:
            shape = intended[node].weight.shape
        elif node.domain == "" and node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            weight = constant_of(node.inputs[1])
            if weight is None or weight.ndim < 2:
                continue
            shape = weight.shape
        else:
            continue
        kind = "linear" if len(shape) == 2 else "conv"
        yield {
            "name": node.name,
            "kind": f"{'binary' if node in intended else 'float'}_{kind}",
            "weight_shape": list(shape),
            "intended_bits": 1 if node in intended else 32,
            "intended_bytes": -(-prod(shape) // 8) if node in intended else 4 * prod(shape),
            "actual_bits": 32,
            "actual_bytes": 4 * prod(shape),
            "kernel": node.op_type,
            "fused": [],
        }
