"""The target `dabnn`: lowers, writes a .dab file, proves residency, runs it in numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from bibench_deploy.errors import ConversionError, LoweringError
from bibench_deploy.graph.description import FileDescription
from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.graph.load import normalize
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.centre_thresholds import centre_thresholds
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.fold_into_convolution import fold_into_convolution
from bibench_deploy.lowering.fold_pad import fold_pad
from bibench_deploy.lowering.fold_shifts import fold_shifts
from bibench_deploy.lowering.minus_one_padding import minus_one_padding
from bibench_deploy.lowering.sign_above_zero import sign_above_zero
from bibench_deploy.lowering.sign_before_clip import sign_before_clip
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.lowering.strict_sign import strict_sign
from bibench_deploy.targets._graph_refusals import zeros_before_signs
from bibench_deploy.targets._target import (
    DEFAULT_OPTIONS,
    Examination,
    Execution,
    Refusal,
    Target,
    WriteOptions,
    Writer,
    WrittenModel,
)
from bibench_deploy.targets._unfused_scales import refuse_unfused_scales
from bibench_deploy.targets.dabnn.assembly import Assembled, assemble
from bibench_deploy.targets.dabnn.capabilities import HELD_SCALES, graph_refusals, shift_refusals
from bibench_deploy.targets.dabnn.costs import costs
from bibench_deploy.targets.dabnn.description import describe_dab
from bibench_deploy.targets.dabnn.executor import DabExecutor
from bibench_deploy.targets.dabnn.flatbuffer import read_dab, write_dab
from bibench_deploy.targets.dabnn.layers import account_layers
from bibench_deploy.targets.dabnn.packing import WORD_BITS, pack_filters, words_per_filter
from bibench_deploy.targets.dabnn.schema import VERSION, DabModel, DabTensor, Operator

_Array = npt.NDArray[np.float32]
TARGET_NAME = "dabnn"
DAB_NAME = "model.dab"


class DabnnTarget(Target):
    """daBNN's last public version, of November 2019."""

    name = TARGET_NAME
    title = "daBNN"
    held_scales = HELD_SCALES
    options = frozenset({"padding", "allow_mean_shift"})
    suffix = ".dab"
    holds_mean_shift = False

    def refusals(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> list[Refusal]:
        """See capabilities.py, nodes.py and layer_limits.py."""
        return self.examine(model, options).refusals

    def examine(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> Examination:
        """The refusals; and where there are none, see `costs.costs`."""
        if found := list(graph_refusals(model)):
            return Examination(found, [])
        convs = binary_convs(model)
        found = list(refuse_unfused_scales(self, convs, options))
        known = {refusal.node for refusal in found}
        found += zeros_before_signs(model, convs)
        found += shift_refusals(convs, options)
        changed = self.changed(model, options)
        lowered = self.lower(model if changed is None else changed)
        assembled = _assemble(lowered, options)
        found += [item for item in assembled.refusals if not item.node or item.node not in known]
        return Examination(found, [] if found else list(costs(lowered, assembled)))

    def changed(self, model: ir.Model, options: WriteOptions) -> ir.Model | None:
        """The network with −1 padding, where that was asked for and changes it."""
        if options.padding != "minus-one":
            return None
        copy = model.clone()
        return copy if minus_one_padding(copy) else None

    def packed_bytes(self, shape: Sequence[int], strides: Sequence[int]) -> int:
        """Whole words of each filter, see `packing`."""
        outputs, inputs, *kernel = shape
        height, width = [1, 1, *kernel][-2:]
        vertical, horizontal = [1, 1, *strides][-2:]
        words = words_per_filter((height, width), inputs, (vertical, horizontal))
        return outputs * words * WORD_BITS // 8

    def describe(self, path: Path) -> FileDescription:
        """See `describe_dab`."""
        return describe_dab(path)

    def lower(self, model: ir.Model) -> ir.Model:
        """A copy in canonical form, signs of x > 0, scales in the batch norm behind each layer."""
        lowered = model.clone()
        fold_pad(lowered)
        canonical_binarization(lowered, is_widest=True)
        strict_sign(lowered)
        fold_channel_affine(lowered)
        drop_clip_before_sign(lowered)
        sign_before_clip(lowered)
        fold_shifts(lowered)
        centre_thresholds(lowered)
        fold_into_convolution(lowered)
        sign_above_zero(lowered)
        normalize(lowered)
        NameFixPass()(lowered)
        return lowered

    @contextmanager
    def open_writer(self) -> Iterator[Writer]:
        """Nothing has to be started: the file is written here."""
        yield _DabnnWriter()


def _assemble(lowered: ir.Model, options: WriteOptions) -> Assembled:
    return assemble(lowered, is_exact=options.padding == "exact")


class _DabnnWriter(Writer):
    def write(
        self,
        lowered: ir.Model,
        directory: Path,
        options: WriteOptions = DEFAULT_OPTIONS,
        source: ir.Model | None = None,
    ) -> WrittenModel:
        """Write model.dab, read it back, and prove that binary layers are binary there."""
        assembled = _assemble(lowered, options)
        if assembled.refusals:
            raise LoweringError(TARGET_NAME, [str(item) for item in assembled.refusals])
        path = directory / DAB_NAME
        write_dab(assembled.model, path)
        written = read_dab(path)
        _prove_residency(lowered, written)
        return WrittenModel(
            files={"model": path},
            layers=account_layers(source or lowered, written, assembled.layers_of),
            input={
                "name": lowered.graph.inputs[0].name,
                "shape": list(written.input_shape),
                "layout": "NHWC",
                "dtype": "float32",
                "rotated": False,
            },
            versions={"flatbuffers": version("flatbuffers"), "dab": str(VERSION)},
            execute=_Execute(written, lowered),
            padding=_cost_of_borders(assembled.borders),
        )


def _cost_of_borders(borders: dict[str, int]) -> dict[str, Any] | None:
    adds = sum(borders.values())
    costs = {"mode": "exact", "layers": len(borders), "size_bytes": 4 * adds, "adds": adds}
    return costs if borders else None


def _prove_residency(lowered: ir.Model, written: DabModel) -> None:
    """Check that each binary layer is a BinConv2D whose filter is the layer's own, bit by bit.

    Raises:
        ConversionError: one is not.
    """
    tensors = {tensor.name: tensor for tensor in written.tensors}
    kernels = {
        layer.name: (tensors[layer.text("weight")], layer.numbers("strides"))
        for layer in written.layers
        if layer.operator is Operator.BinConv2D
    }
    lost = []
    for conv in binary_convs(lowered):
        name = source_layer(conv.node)
        if name not in kernels or not _holds(*kernels[name], conv.weight):
            lost.append(name)
    if lost:
        raise ConversionError(
            f"{len(lost)} binary layers are not in the file as they should be "
            f"({', '.join(lost)}); report the model"
        )


def _holds(tensor: DabTensor, strides: tuple[int, ...], weight: _Array) -> bool:
    """Whether a constant is the signs of a weight [O, C, kH, kW], or [O, C·H·W] of a row."""
    _, height, width, channels = tensor.shape
    maps = weight.reshape(len(weight), channels, height, width).transpose(0, 2, 3, 1)
    expected = pack_filters(maps, (strides[0], strides[1]))
    return tensor.is_binary and np.array_equal(tensor.data, expected)


class _Execute:
    """Runs a .dab file in numpy, one input at a time, in PyTorch's layout."""

    def __init__(self, written: DabModel, lowered: ir.Model) -> None:
        self._executor = DabExecutor(written)
        self._layers = [source_layer(conv.node) for conv in binary_convs(lowered)]
        self._output_shape = shape_of(lowered.graph.outputs[0])

    def __call__(self, inputs: _Array, *, wants_signs: bool = True) -> Execution:
        """Run the model; see `Execute`."""
        outputs: list[_Array] = []
        signs: dict[str, list[_Array]] = {name: [] for name in self._layers}

        def watch(name: str, read: _Array) -> None:
            signs[name].append(_channels_first(np.where(read > 0, np.float32(1), np.float32(-1))))

        for row in inputs:
            image = np.moveaxis(row, 0, -1) if row.ndim == 3 else row.reshape(1, 1, -1)
            output = self._executor.run(image, watch) if wants_signs else self._executor.run(image)
            outputs.append(_channels_first(output).reshape(self._output_shape))
        stacked = {name: np.stack(rows) for name, rows in signs.items()} if wants_signs else {}
        return Execution(np.concatenate(outputs), stacked)


def _channels_first(blob: _Array) -> _Array:
    """The numbers of a map [H, W, C] in the order of [C, H, W]."""
    return np.ascontiguousarray(np.moveaxis(blob, -1, 0)).reshape(-1)
