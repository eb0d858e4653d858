"""The target `lce`: lowers, converts in a child process, proves residency, runs the result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from bibench_deploy.artifact import writing
from bibench_deploy.errors import MissingExtraError
from bibench_deploy.graph.description import FileDescription
from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of
from bibench_deploy.graph.load import normalize
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.centre_thresholds import centre_thresholds
from bibench_deploy.lowering.channel_shuffle import channel_shuffle
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.fold_pad import fold_pad
from bibench_deploy.lowering.fold_shifts import fold_shifts
from bibench_deploy.lowering.pointwise_convolution import pointwise_convolution
from bibench_deploy.lowering.separate_dilated_layers import separate_dilated_layers
from bibench_deploy.lowering.sign_places import place_signs, sign_places
from bibench_deploy.lowering.split_groups import split_groups
from bibench_deploy.lowering.strided_dilation import strided_dilation
from bibench_deploy.lowering.two_dimensional import two_dimensional
from bibench_deploy.lowering.unfused_scales import (
    unfused_nodes,
    unfused_scales,
    without_unfused_scales,
)
from bibench_deploy.targets._size_by_part import SizeByPart
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
from bibench_deploy.targets.lce.capabilities import HELD_SCALES, refusals
from bibench_deploy.targets.lce.channel_order import is_sequence
from bibench_deploy.targets.lce.conversion import KERAS_NAME, TFLITE_NAME, ConversionProcess
from bibench_deploy.targets.lce.costs import costs
from bibench_deploy.targets.lce.description import describe_tflite
from bibench_deploy.targets.lce.flatbuffer import TfliteModel, read_tflite, with_outputs
from bibench_deploy.targets.lce.layers import account_layers, packed_bytes
from bibench_deploy.targets.lce.padding import fit_padding, plan_padding
from bibench_deploy.targets.lce.residency import (
    ResidentLayer,
    flattened_map,
    from_nhwc,
    prove_residency,
    unpack_signs,
)
from bibench_deploy.targets.lce.run_model import load_interpreter
from bibench_deploy.targets.lce.size_by_part import size_by_part
from bibench_deploy.targets.lce.unfused_cost import UnfusedCost, extra_operators, latency_ratio

_Array = npt.NDArray[np.float32]


class LceTarget(Target):
    """Larq Compute Engine 0.16 and newer."""

    name = "lce"
    title = "Larq Compute Engine"
    held_scales = HELD_SCALES
    options = frozenset({"allow_unfused_scales", "input", "fully_connected", "float_storage"})
    suffix = ".tflite"

    def refusals(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> list[Refusal]:
        """See `capabilities.refusals`."""
        return refusals(self, model, self.lower(model), options)

    def examine(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> Examination:
        """The refusals; and where there are none, see `costs.costs`."""
        lowered = self.lower(model)
        refused = refusals(self, model, lowered, options)
        return Examination(refused, [] if refused else list(costs(model, lowered)))

    def packed_bytes(self, shape: Sequence[int], strides: Sequence[int]) -> int:
        """See `layers.packed_bytes`."""
        return packed_bytes(shape)

    def describe(self, path: Path) -> FileDescription:
        """See `describe_tflite`."""
        return describe_tflite(path)

    def lower(self, model: ir.Model) -> ir.Model:
        """A copy in canonical form, scales folded into the batch norm behind each layer."""
        lowered = model.clone()
        two_dimensional(lowered)
        pointwise_convolution(lowered)
        fold_pad(lowered)
        canonical_binarization(lowered, is_widest=True)
        channel_shuffle(lowered)
        unfused_scales(lowered)
        fold_channel_affine(lowered)
        drop_clip_before_sign(lowered)
        fold_shifts(lowered)
        centre_thresholds(lowered)
        split_groups(lowered)
        strided_dilation(lowered)
        normalize(lowered)
        fit_padding(lowered)
        separate_dilated_layers(lowered)
        NameFixPass()(lowered)
        return lowered

    def size_by_part(self, path: Path) -> SizeByPart:
        """See `size_by_part.size_by_part`."""
        return size_by_part(path)

    @contextmanager
    def open_writer(self) -> Iterator[Writer]:
        """Start the process that converts; it imports TensorFlow meanwhile."""
        with ConversionProcess() as process:
            yield _LceWriter(process)


class _LceWriter:
    def __init__(self, process: ConversionProcess) -> None:
        self._process = process

    def write(
        self,
        lowered: ir.Model,
        directory: Path,
        options: WriteOptions = DEFAULT_OPTIONS,
        source: ir.Model | None = None,
    ) -> WrittenModel:
        """Write model.keras and model.tflite, and prove that binary layers are binary there."""
        path = directory / "lowered.onnx"
        with writing(path):
            ir.save(lowered, path)
        turns_input = options.input == "plain"
        reply = self._process.convert(path, directory, turns_input=turns_input)
        path.unlink()
        return self._written(lowered, source or lowered, directory, options, reply)

    def measure_unfused_scales(
        self, lowered: ir.Model, written: WrittenModel, options: WriteOptions = DEFAULT_OPTIONS
    ) -> dict[str, Any] | None:
        """See `unfused_cost.UnfusedCost`; None where every scale is fused."""
        count = len(unfused_nodes(lowered))
        if not count:
            return None
        bare = without_unfused_scales(lowered)
        normalize(bare)
        model = written.files["model"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bare.onnx"
            ir.save(bare, path)
            turns_input = options.input == "plain"
            self._process.convert(path, Path(folder), turns_input=turns_input)
            other = Path(folder) / TFLITE_NAME
            cost = UnfusedCost(
                layers=count,
                extra_operators=extra_operators(read_tflite(model), read_tflite(other)),
                latency_ratio=latency_ratio(model.read_bytes(), other.read_bytes()),
            )
        return cost.to_json()

    def _written(
        self,
        lowered: ir.Model,
        source: ir.Model,
        directory: Path,
        options: WriteOptions,
        reply: dict[str, Any],
    ) -> WrittenModel:
        """What is in the file now, with the proof of residency."""
        tflite = directory / TFLITE_NAME
        converted = read_tflite(tflite)
        entry, end = (converted.tensors[ends[0]] for ends in (converted.inputs, converted.outputs))
        is_map = len(entry.shape) == 4
        is_rotated = bool(reply["is_rotated"])
        reads_rotated = is_rotated and is_map and options.input == "rotated"
        convs = binary_convs(lowered)
        resident = prove_residency(convs, converted, is_rotated)

        def store_smaller(chosen: WriteOptions, _: _Array | None = None) -> WrittenModel:
            self._process.store_smaller(tflite, chosen.fully_connected, chosen.float_storage)
            return self._written(lowered, source, directory, chosen, reply)

        return WrittenModel(
            files={"model": tflite, "keras": directory / KERAS_NAME},
            layers=account_layers(source, lowered, resident, converted),
            input={
                "name": lowered.graph.inputs[0].name,
                "shape": list(entry.shape),
                "layout": _layout(lowered.graph.inputs[0]),
                "dtype": entry.dtype,
                "rotated": reads_rotated,
            },
            versions=reply["versions"],
            execute=_Executor(
                tflite.read_bytes(),
                converted,
                convs,
                resident,
                _cuts(lowered, convs),
                [sign_places(lowered, conv) for conv in convs],
                is_rotated,
                reads_rotated,
                _has_channels_last(lowered.graph.inputs[0]),
                _has_channels_last(lowered.graph.outputs[0]),
            ),
            store_smaller=store_smaller,
            output={
                "shape": list(end.shape),
                "layout": _layout(lowered.graph.outputs[0]),
                "dtype": end.dtype,
            },
        )


class _Executor:
    """Runs a .tflite through LCE's interpreter; also gives the signs of each binary layer."""

    def __init__(
        self,
        content: bytes,
        converted: TfliteModel,
        convs: list[BinaryConv],
        resident: list[ResidentLayer],
        cuts: list[tuple[slice, slice]],
        places: list[npt.NDArray[np.int64]],
        is_rotated: bool,
        reads_rotated: bool,
        reads_channels_last: bool,
        gives_channels_last: bool,
    ) -> None:
        self._content = content
        self._places = places
        self._signs = [*converted.outputs[:1], *(layer.packed_input for layer in resident)]
        self._convs = convs
        self._cuts = cuts
        self._is_rotated = is_rotated
        self._reads_rotated = reads_rotated
        self._reads_channels_last = reads_channels_last
        self._gives_channels_last = gives_channels_last

    def __call__(self, inputs: _Array, *, wants_signs: bool = True) -> Execution:
        """Run the model; see `Execute`."""
        content = with_outputs(self._content, self._signs) if wants_signs else self._content
        convs, cuts, places = (
            (self._convs, self._cuts, self._places) if wants_signs else ([], [], [])
        )
        try:
            # Plain kernels: XNNPACK announces itself on stderr, and parity needs no speed.
            interpreter = load_interpreter(content, use_xnnpack=False)
        except ImportError as error:
            raise MissingExtraError("running a model", "larq_compute_engine", "profile") from error
        outputs: list[_Array] = []
        pieces: list[list[_Array]] = [[] for _ in convs]
        for row in inputs:
            image = np.moveaxis(row, 0, -1) if self._reads_channels_last else row
            image = image[::-1, ::-1] if self._reads_rotated else image
            output, *packed = interpreter.predict([np.ascontiguousarray(image[None])])
            outputs.append(np.moveaxis(output, -1, 1) if self._gives_channels_last else output)
            for piece, conv, cut, words in zip(pieces, convs, cuts, packed, strict=True):
                piece.append(self._whole(conv, cut, words))
        signs = place_signs(convs, places, map(np.stack, pieces))
        return Execution(np.concatenate(outputs), signs)

    def _whole(
        self, conv: BinaryConv, cut: tuple[slice, slice], words: npt.NDArray[np.int32]
    ) -> _Array:
        """The signs that a layer read, in the shape of its input; NaN where it read none."""
        maps = unpack_signs(words, conv.facts.weight_shape[1], is_rotated=False)
        shape = conv.facts.input_shape
        if len(shape) != 4:
            row = maps.reshape(shape)
            flattened = flattened_map(conv)
            return row if flattened is None else from_nhwc(row, flattened, self._is_rotated)
        whole = np.full(shape, np.nan, np.float32)
        whole[:, :, cut[0], cut[1]] = maps
        return whole[:, :, ::-1, ::-1] if self._is_rotated else whole


def _cuts(lowered: ir.Model, convs: list[BinaryConv]) -> list[tuple[slice, slice]]:
    """What is left of each binary layer's input before it is binarized."""
    plan = plan_padding(lowered)
    whole = (slice(None), slice(None))
    return [plan.read_part(conv.node) if conv.node in plan.layers else whole for conv in convs]


def _has_channels_last(value: ir.Value) -> bool:
    return len(shape_of(value)) == 4 or is_sequence(value)


def _layout(value: ir.Value) -> str:
    """The axes of the model's input or output, channels last where Keras has them there.

    Nothing is known of an output of three axes that are as in PyTorch: they may be tokens.
    """
    rank = len(shape_of(value))
    if rank == 3 and not is_sequence(value):
        return "NCL" if value.is_graph_input() else ""
    return {2: "NC", 3: "NLC", 4: "NHWC"}.get(rank, "")
