"""Prove that every layer meant to be binary is a binary layer in the converted file.

LCE's converter falls back to float without a word. A layer counts as resident only where
the file holds an LceBconv2d whose bit-packed filter is exactly the layer's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import ConversionError
from bibench_deploy.graph.facts import BinaryConv
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.channel_order import map_of_row
from bibench_deploy.targets.lce.flatbuffer import TfliteModel, TfliteOperator

KERNEL = "LceBconv2d"
# Operators that only a failed conversion leaves behind.
_FALLBACKS = ("LceDequantize", "SIGN")
WORD_BITS = 32


@dataclass(frozen=True)
class ResidentLayer:
    """A binary layer, and the operator that runs it.

    Attributes:
        name: of the layer in the .onnx file.
        operator: in the converted file.
    """

    name: str
    operator: TfliteOperator

    @property
    def packed_input(self) -> int:
        """Index of the bit-packed tensor that the operator reads."""
        return self.operator.inputs[0]


def prove_residency(
    convs: list[BinaryConv], converted: TfliteModel, is_rotated: bool
) -> list[ResidentLayer]:
    """Match each binary layer to its LceBconv2d by the bits of its filter.

    Args:
        convs: the binary layers of the lowered graph, in graph order.
        converted: the file that LCE's converter wrote.
        is_rotated: whether kernels were turned by 180°.

    Returns:
        One entry per layer, in the same order. Layers of equal filters on equal signs may
        share an operator.

    Raises:
        ConversionError: a layer became float; names each such layer.
    """
    candidates = [node for node in converted.operators if node.name == KERNEL]
    fitting = [_operators_of(conv, candidates, converted, is_rotated) for conv in convs]
    found: dict[int, TfliteOperator] = {}
    # Small layers may have equal filters: there the name that the converter kept decides.
    for by_name in (True, False):
        for index, conv in enumerate(convs):
            matches = [] if index in found else [x for x in fitting[index] if x in candidates]
            called = [node for node in matches if _is_named_after(node, conv, converted)]
            if chosen := (called if by_name else matches)[:1]:
                found[index] = chosen[0]
                candidates.remove(chosen[0])
    # The converter computes once what two layers compute alike.
    for index, conv in enumerate(convs):
        twins = [other for other in found if other != index and _computes_same(convs[other], conv)]
        if index not in found and twins:
            found[index] = found[twins[0]]
    resident = [
        ResidentLayer(conv.facts.name, found[index])
        for index, conv in enumerate(convs)
        if index in found
    ]
    lost = [conv.facts.name for index, conv in enumerate(convs) if index not in found]
    leftovers = sorted({node.name for node in converted.operators} & set(_FALLBACKS))
    if lost or leftovers:
        named = ", ".join(lost) or "none by name"
        raise ConversionError(
            f"LCE's converter left {len(lost)} of {len(convs)} binary layers in float ({named}"
            f"{'; it also left ' + ', '.join(leftovers) if leftovers else ''}); "
            "report the model, since bibench should have refused it"
        )
    return resident


def _computes_same(one: BinaryConv, other: BinaryConv) -> bool:
    """Whether two layers give the same numbers: filters, windows and signs are equal."""
    if not np.array_equal(one.weight, other.weight):
        return False
    pending: list[tuple[ir.Value | None, ir.Value | None]] = []
    pending.append((one.node.outputs[0], other.node.outputs[0]))
    seen: set[tuple[ir.Value, ir.Value]] = set()
    while pending:
        first, second = pending.pop()
        if first is second:
            continue
        if first is None or second is None:
            return False
        if (first, second) in seen:
            continue
        seen.add((first, second))
        arrays = constant_of(first), constant_of(second)
        if arrays[0] is not None and arrays[1] is not None:
            if arrays[0].dtype != arrays[1].dtype or not np.array_equal(arrays[0], arrays[1]):
                return False
            continue
        nodes = first.producer(), second.producer()
        if nodes[0] is None or nodes[1] is None or first.index() != second.index():
            return False
        if _operation(nodes[0]) != _operation(nodes[1]):
            return False
        pending.extend(zip(nodes[0].inputs, nodes[1].inputs, strict=True))
    return True


def _operation(node: ir.Node) -> tuple[object, ...]:
    """What a node does, whatever it reads."""
    attributes = sorted((name, str(item.value)) for name, item in node.attributes.items())
    return node.domain, node.op_type, len(node.inputs), attributes


def _operators_of(
    conv: BinaryConv, candidates: list[TfliteOperator], converted: TfliteModel, is_rotated: bool
) -> list[TfliteOperator]:
    """The operators whose filter is a layer's.

    Where an operator gives bits, LCE has made a threshold of the batch norm behind it; where
    a factor of that is negative, it has turned the filter's signs of that channel.
    """
    weight = conv.weight
    if (map_shape := flattened_map(conv)) is not None:
        weight = to_nhwc(weight, map_shape, is_rotated)
    own, turned = (
        np.frombuffer(pack_filter(signs, is_rotated), np.uint8).reshape(len(weight), -1)
        for signs in (weight, -weight)
    )
    fitting = []
    for node in candidates:
        data = np.frombuffer(converted.tensors[node.inputs[1]].data, np.uint8)
        if data.size != own.size:
            continue
        channels = data.reshape(own.shape)
        is_own = (channels == own).all(axis=1)
        if converted.tensors[node.outputs[0]].dtype == "int32":
            is_own |= (channels == turned).all(axis=1)
        if is_own.all():
            fitting.append(node)
    return fitting


def keras_name(name: str | None) -> str:
    """A node's name as Keras accepts it, and as it is found again in the converted file."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name or "layer").lstrip("_.") or "layer"


def _is_named_after(operator: TfliteOperator, conv: BinaryConv, converted: TfliteModel) -> bool:
    """Whether what an operator reads or gives is called like a layer: `model/NAME/…;model/…`."""
    names = [converted.tensors[index].name for index in (operator.inputs[0], *operator.outputs)]
    return any(keras_name(conv.node.name) in re.split("[/;]", name) for name in names)


def flattened_map(conv: BinaryConv) -> tuple[int, int, int] | None:
    """(C, H, W) of the map that a linear layer reads flattened, or None where it reads none."""
    return map_of_row(conv.binarization.source) if conv.weight.ndim == 2 else None


def to_nhwc(
    columns: npt.NDArray[Any], map_shape: tuple[int, int, int], is_rotated: bool
) -> npt.NDArray[Any]:
    """Rows [N, C·H·W] of flattened maps, in the order in which NHWC flattens the same maps."""
    maps = columns.reshape(-1, *map_shape)
    turned = maps[:, :, ::-1, ::-1] if is_rotated else maps
    return np.ascontiguousarray(turned.transpose(0, 2, 3, 1).reshape(columns.shape))


def from_nhwc(
    columns: npt.NDArray[Any], map_shape: tuple[int, int, int], is_rotated: bool
) -> npt.NDArray[Any]:
    """The reverse of `to_nhwc`."""
    channels, height, width = map_shape
    maps = columns.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    turned = maps[:, :, ::-1, ::-1] if is_rotated else maps
    return np.ascontiguousarray(turned.reshape(columns.shape))


def pack_filter(weight: npt.NDArray[np.float32], is_rotated: bool) -> bytes:
    """A ±1 weight as LCE stores it.

    Format (found by experiment): [O, kH, kW, words], each word 32 input channels, lowest
    bit first, bit 1 for −1, unused bits 0, little-endian.

    Args:
        weight: [O, I, kH, kW] or [O, I].
        is_rotated: whether kernels were turned by 180°.
    """
    maps = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
    if is_rotated:
        maps = maps[:, :, ::-1, ::-1]
    bits = maps.transpose(0, 2, 3, 1) < 0
    spare = -bits.shape[-1] % WORD_BITS
    padded = np.pad(bits, [(0, 0)] * 3 + [(0, spare)])
    return np.packbits(padded, axis=-1, bitorder="little").tobytes()


def unpack_signs(
    words: npt.NDArray[np.int32], channels: int, is_rotated: bool
) -> npt.NDArray[np.float32]:
    """Bit-packed activations as ±1 in PyTorch's layout.

    Args:
        words: int32 [N, H, W, words].
        channels: how many of the bits are channels.
        is_rotated: whether maps are turned by 180°.

    Returns:
        float32 [N, C, H, W].
    """
    octets = np.ascontiguousarray(words.astype("<i4")).view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels]
    signs = np.where(bits, np.float32(-1), np.float32(1)).transpose(0, 3, 1, 2)
    return signs[:, :, ::-1, ::-1] if is_rotated else signs
