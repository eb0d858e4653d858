"""The target `native`: ONNX Runtime with a binary convolution of our own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.artifact import writing
from bibench_deploy.errors import ConversionError
from bibench_deploy.graph.description import FileDescription
from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of
from bibench_deploy.graph.load import name_outputs, normalize
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.centre_thresholds import centre_thresholds
from bibench_deploy.lowering.double_input_channels import double_input_channels
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign
from bibench_deploy.lowering.fold_batch_norm import fold_batch_norm
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.fold_pad import fold_pad
from bibench_deploy.lowering.fold_shifts import fold_shifts
from bibench_deploy.lowering.pointwise_convolution import pointwise_convolution
from bibench_deploy.lowering.sign_places import binarized_tensor, sign_places, source_layer
from bibench_deploy.lowering.split_groups import split_groups
from bibench_deploy.lowering.two_dimensional import two_dimensional
from bibench_deploy.lowering.unfused_scales import (
    unfused_nodes,
    unfused_scales,
    without_unfused_scales,
)
from bibench_deploy.targets._graph_refusals import (
    several_inputs,
    unfit_outputs,
    unknown_domains,
    weights_not_finite,
    zeros_before_signs,
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
from bibench_deploy.targets.lce.unfused_cost import UnfusedCost
from bibench_deploy.targets.native.capabilities import (
    HELD_SCALES,
    layer_refusals,
)
from bibench_deploy.targets.native.description import (
    describe_native,
    is_native_file,
    size_by_part,
)
from bibench_deploy.targets.native.layers import account_layers, packed_bytes, resident_layers
from bibench_deploy.targets.native.operators import (
    BINARY_CONV,
    DOMAIN,
    FLOAT_STEM,
    drop_unread_outputs,
    is_own,
    unpack_signs,
)
from bibench_deploy.targets.native.passes.binary_operators import binary_operators, layer_input
from bibench_deploy.targets.native.passes.channels_last import channels_last
from bibench_deploy.targets.native.passes.fused_stem import fused_stem
from bibench_deploy.targets.native.passes.int8_stem import int8_stem
from bibench_deploy.targets.native.shared_library import IR_VERSION, library
from bibench_deploy.targets.native.unfused_cost import extra_operators, latency_ratio
from bibench_deploy.targets.onnx.run_model import load_session

_Array = npt.NDArray[np.float32]

MODEL_NAME = "model.onnx"
_LAYOUTS = {2: "NC", 3: "NCL", 4: "NCHW"}


class NativeTarget(Target):
    """ONNX Runtime 1.20 and newer, with the library of `library()`."""

    name = "native"
    title = "bibench's native library"
    held_scales = HELD_SCALES
    options = frozenset({"allow_unfused_scales", "stem"})
    onnx_name = "source.onnx"
    suffix = ".onnx"

    def refusals(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> list[Refusal]:
        """See `capabilities`."""
        convs = binary_convs(model)
        return [
            *several_inputs(model),
            *unfit_outputs(model),
            *unknown_domains(model),
            *weights_not_finite(model),
            *zeros_before_signs(model, convs),
            *refuse_unfused_scales(self, convs, options),
            *layer_refusals(convs),
        ]

    def packed_bytes(self, shape: Sequence[int], strides: Sequence[int]) -> int:
        """See `layers.packed_bytes`."""
        return packed_bytes(shape)

    def wrote(self, path: Path) -> bool:
        """Whether the file holds operators of the library."""
        return is_native_file(path)

    def describe(self, path: Path) -> FileDescription:
        """See `description.describe_native`."""
        return describe_native(path)

    def size_by_part(self, path: Path) -> SizeByPart:
        """See `description.size_by_part`."""
        return size_by_part(path)

    def lower(self, model: ir.Model) -> ir.Model:
        """A copy in canonical form, of ONNX's own operators alone."""
        lowered = model.clone()
        names = [value.name for value in lowered.graph.outputs]
        two_dimensional(lowered)
        pointwise_convolution(lowered)
        fold_pad(lowered)
        canonical_binarization(lowered, is_widest=True)
        unfused_scales(lowered)
        fold_channel_affine(lowered)
        drop_clip_before_sign(lowered)
        fold_shifts(lowered)
        centre_thresholds(lowered)
        zeros = [conv for conv in binary_convs(lowered) if conv.facts.zero_weights]
        if any(conv.facts.group > 1 for conv in zeros):
            # Input channels are doubled for all groups of a layer together.
            split_groups(lowered)
        double_input_channels(lowered)
        fold_batch_norm(lowered)
        normalize(lowered)
        name_outputs(lowered, names)
        return lowered

    @contextmanager
    def open_writer(self) -> Iterator[Writer]:
        """Load the library, and run one operator, if this process has not yet."""
        library()
        yield _NativeWriter()


class _NativeWriter:
    def write(
        self,
        lowered: ir.Model,
        directory: Path,
        options: WriteOptions = DEFAULT_OPTIONS,
        source: ir.Model | None = None,
        images: _Array | None = None,
    ) -> WrittenModel:
        """Write model.onnx, and prove that binary layers are binary there.

        Args:
            lowered: the graph.
            directory: where the file goes.
            options: of the file.
            source: the graph before lowering.
            images: that give the ranges of what runs in 8 bits; None for a file that is exact.
        """
        import onnxruntime

        convs = binary_convs(lowered)
        written = with_own_operators(lowered, images)
        resident = resident_layers(convs, written)
        path = directory / MODEL_NAME
        content = ir.to_proto(written).SerializeToString()
        with writing(path):
            path.write_bytes(content)
        entry = lowered.graph.inputs[0]
        return WrittenModel(
            files={"model": path},
            layers=account_layers(source or lowered, convs, resident, written),
            input={
                "name": entry.name,
                "shape": list(shape_of(entry)),
                "layout": _LAYOUTS.get(len(shape_of(entry)), ""),
                "dtype": "float32",
                "rotated": False,
            },
            versions={"onnxruntime": onnxruntime.__version__},
            execute=_Executor(lowered, convs, resident, written),
            store_smaller=lambda chosen, images=None: self.write(
                lowered, directory, chosen, source, images if chosen.stem == "int8" else None
            ),
        )

    def measure_unfused_scales(
        self, lowered: ir.Model, written: WrittenModel, options: WriteOptions = DEFAULT_OPTIONS
    ) -> dict[str, Any] | None:
        """See `UnfusedCost`; None where every scale is fused."""
        count = len(unfused_nodes(lowered))
        if not count:
            return None
        bare = without_unfused_scales(lowered)
        normalize(bare)
        own, other = with_own_operators(lowered), with_own_operators(bare)
        ratio = latency_ratio(own, other, library())
        return UnfusedCost(count, extra_operators(own, other), ratio).to_json()


def with_own_operators(lowered: ir.Model, images: _Array | None = None) -> ir.Model:
    """A copy of a lowered graph with the library's operators, as it is written.

    Args:
        lowered: the graph.
        images: that give the ranges of an int8 stem; None for none.
    """
    written = lowered.clone()
    written.ir_version = min(written.ir_version, IR_VERSION)
    written.graph.opset_imports[DOMAIN] = 1
    given = set(written.graph)
    if images is not None:
        int8_stem(written, images)
    binary_operators(written)
    fused_stem(written)
    channels_last(written)
    _part_nodes(written, given)
    name_outputs(written, [value.name for value in lowered.graph.outputs])
    drop_unread_outputs(written.graph)
    return written


def _part_nodes(model: ir.Model, given: set[ir.Node]) -> None:
    """Rename nodes that the passes added where the network has such a one; layers keep theirs.

    Args:
        model: as the passes leave it.
        given: the nodes before them.
    """
    names = {node.name for node in given}
    for node in model.graph:
        is_layer = is_own(node, BINARY_CONV, FLOAT_STEM) or node.op_type == "QLinearConv"
        if node in given or is_layer:
            continue
        while node.name in names:
            node.name = f"{node.name}_added"
        names.add(node.name)


class _Executor:
    """Runs the written graph on ONNX Runtime; also gives the signs that each layer reads."""

    def __init__(
        self,
        lowered: ir.Model,
        convs: list[BinaryConv],
        resident: list[ir.Node],
        written: ir.Model,
    ) -> None:
        self._content = ir.to_proto(written).SerializeToString()
        shown = written.clone()
        nodes = {node.name: node for node in shown.graph}
        packed = [nodes[node.name].inputs[0] for node in resident]
        for value in dict.fromkeys(packed):
            assert value is not None
            shown.graph.outputs.append(value)
        self._shown = ir.to_proto(shown).SerializeToString()
        self._input = str(lowered.graph.inputs[0].name)
        self._outputs = [str(lowered.graph.outputs[0].name)]
        self._packed = [str(value.name) for value in packed if value is not None]
        self._layers = [_ReadSigns(lowered, conv) for conv in convs]

    def __call__(self, inputs: _Array, *, wants_signs: bool = True) -> Execution:
        """Run the model; see `Execute`.

        Raises:
            ConversionError: ONNX Runtime cannot run a float operator of it.
        """
        layers = self._layers if wants_signs else []
        names = [*self._outputs, *(self._packed if wants_signs else [])]
        content = self._shown if wants_signs else self._content
        try:
            session = load_session(content, custom_ops_library=library())
        except RuntimeError as error:
            raise ConversionError(str(error)) from error
        outputs: list[_Array] = []
        signs = {
            layer.name: np.full((len(inputs), layer.size), np.nan, np.float32) for layer in layers
        }
        for index in range(len(inputs)):
            row = inputs[index : index + 1]
            output, *packed = session.run(names, {self._input: row})
            outputs.append(output)
            for layer, bits in zip(layers, packed, strict=True):
                layer.put(bits, signs[layer.name][index])
        return Execution(np.concatenate(outputs), signs)


class _ReadSigns:
    """Where the signs that a layer reads lie in the source graph's tensor.

    Attributes:
        name: of the source graph's layer.
        size: how many numbers are binarized there.
    """

    def __init__(self, lowered: ir.Model, conv: BinaryConv) -> None:
        self.name = source_layer(conv.node)
        self.size = math.prod(shape_of(binarized_tensor(conv)))
        read = layer_input(conv)
        places = sign_places(lowered, conv)
        if read.source is not conv.binarization.source:
            # The layer pads by itself what a Pad did: that is left out.
            top, left, _, _ = read.pads
            _, _, height, width = shape_of(read.source)
            places = places[:, :, top : top + height, left : left + width]
        self._shape = (*places.shape, *(1,) * (4 - places.ndim))
        self._places = places.reshape(-1)

    def put(self, packed: npt.NDArray[np.uint8], row: _Array) -> None:
        """Unpack [N, H, W, ⌈C / 8⌉] and put each sign in its place in `row`."""
        signs = np.moveaxis(unpack_signs(packed, self._shape[1]), -1, 1).reshape(-1)
        is_sign = self._places >= 0
        row[self._places[is_sign]] = signs[is_sign]
