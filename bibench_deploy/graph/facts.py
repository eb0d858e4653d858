"""Facts about the binary convolutions of a graph: frozen, printable, comparable.

Lint rules and targets decide from these facts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.binarization import Binarization, binary_weight, find_binarization
from bibench_deploy.graph.fold_constants import constant_of


class Granularity(str, Enum):
    """How many numbers a scaling factor holds for one layer's output."""

    NONE = "none"
    TENSOR = "tensor"
    CHANNEL = "channel"
    SPATIAL = "spatial"
    DYNAMIC = "dynamic"


@dataclass(frozen=True)
class BinaryConvFacts:
    """What is known of one layer whose inputs and weights are both binary.

    Attributes:
        name: name of the node in the .onnx file.
        kind: `conv` or `linear`.
        source: name of the tensor that is binarized.
        weight_shape: (O, I / group, kH, kW), or (O, I) for a linear layer.
        input_shape: of the binarized tensor, (N, I, H, W) or (N, …, I).
        output_shape: (N, O, H, W) or (N, …, O).
        strides: (vertical, horizontal); (1, 1) for a linear layer.
        pads: (top, left, bottom, right) in elements of the input.
        pad_value: what the padding holds when the product is taken, in terms of the signs:
            0, −1 or +1. Where an activation is 0 or 1, padding with 0 is −1.
        dilations: (vertical, horizontal).
        group: number of groups of channels.
        zero_weights: how many weights are exactly 0.
        threshold: numbers above it become +1, below it −1.
        at_threshold: what the threshold itself becomes: +1 is this project's sign, 0 what
            ONNX Sign makes of 0.
        scale: granularity of all constant and dynamic factors on the output before
            batch norm, the weights' magnitude included.
        scale_source: name of the tensor that a dynamic factor is computed into, else None.
        is_rescaled_by_activation: whether that factor is computed from the layer's own input.
        has_batch_norm: whether a BatchNormalization follows that the scale can fold into.
        has_mean_shift: whether the binarized tensor is a sum with a constant per channel that
            is not a layer's bias.
        consumers: operators that read the output, constant factors and batch norm passed.
    """

    name: str
    kind: Literal["conv", "linear"]
    source: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    pad_value: float
    dilations: tuple[int, int]
    group: int
    zero_weights: int
    threshold: float
    at_threshold: float
    scale: Granularity
    scale_source: str | None
    is_rescaled_by_activation: bool
    has_batch_norm: bool
    has_mean_shift: bool
    consumers: tuple[str, ...]

    @property
    def channel_axis(self) -> int:
        """Axis of the output channels in the output: 1, and the last one of a linear layer."""
        return 1 if self.kind == "conv" else len(self.output_shape) - 1

    @property
    def exceeds_map(self) -> bool:
        """Whether the kernel, dilation included, is larger than the map that it slides over."""
        kernel, sizes = self.weight_shape[2:], self.input_shape[2:]
        steps = self.dilations[-len(kernel) :]
        return self.kind == "conv" and any(
            (size - 1) * step + 1 > whole
            for size, step, whole in zip(kernel, steps, sizes, strict=False)
        )


@dataclass(frozen=True)
class BinaryConv:
    """One binary layer in the graph itself: what lowering passes rewrite.

    With s = +1 above the binarization's threshold and −1 below, the layer computes
    `factor · (magnitude · conv(s, weight) + offset) + bias`, padded with `facts.pad_value`.

    Attributes:
        facts: what is known of it.
        node: its Conv, Gemm or MatMul.
        binarization: how its input becomes binary.
        layout: nodes between the binarized tensor and the layer that only move its numbers
            (Reshape, Flatten, Transpose …), in topological order.
        factor: what the signs were multiplied by, computed or several constants, else None.
            Only one number per image can be taken out of the layer.
        weight: −1, +1, and 0 for a zero weight, [O, I / group, kH, kW] or [O, I].
        magnitude: of the original weights, times half the distance of the two levels, [O].
        offset: what levels that are not opposite add, [O]; zeros where they are.
    """

    facts: BinaryConvFacts
    node: ir.Node
    binarization: Binarization
    layout: tuple[ir.Node, ...]
    factor: ir.Value | None
    weight: npt.NDArray[np.float32]
    magnitude: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]

    @property
    def is_factor_movable(self) -> bool:
        """Whether `factor` multiplies the output as well: none, or one number per image."""
        return self.factor is None or prod(shape_of(self.factor)) == 1


@dataclass(frozen=True)
class Window:
    """The sliding window of a Conv, MaxPool or AveragePool, in numbers.

    Attributes:
        kernel: (kH, kW).
        strides: (vertical, horizontal).
        pads: (top, left, bottom, right), `auto_pad` resolved.
        dilations: (vertical, horizontal).
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]


def window_of(node: ir.Node) -> Window:
    """The window of a node; a one-dimensional one is a row: (1, k).

    Args:
        node: a Conv, MaxPool or AveragePool whose input has a static shape.
    """
    source = node.inputs[0]
    assert source is not None
    if node.op_type == "Conv":
        assert node.inputs[1] is not None
        kernel = shape_of(node.inputs[1])[2:]
    else:
        kernel = tuple(node.attributes.get_ints("kernel_shape") or ())
    strides, dilations = _pair(node, "strides"), _pair(node, "dilations")
    row = (1, kernel[0]) if len(kernel) == 1 else (kernel[0], kernel[1])
    sizes = shape_of(source)[2:]
    size = (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
    return Window(row, strides, _pads(node, size, row, strides, dilations), dilations)


def binary_convs(model: ir.Model) -> list[BinaryConv]:
    """Find every layer that multiplies binarized inputs by binary weights, in graph order.

    Args:
        model: the model, as `load_graph` gives it.
    """
    return list(_binary_convs(model))


def state_facts(model: ir.Model) -> tuple[BinaryConvFacts, ...]:
    """The facts of every binary layer, in graph order."""
    return tuple(conv.facts for conv in _binary_convs(model))


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value; empty where it is not known."""
    if value.shape is None or not value.shape.is_static():
        return ()
    return tuple(value.shape.numpy())


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value.

    None where several do, where the graph gives it out, or where a branch of an If reads it, or
    the body of a Loop.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not value.graph:
        return None
    return uses[0].node


def before_padding(value: ir.Value) -> tuple[ir.Value, tuple[int, int, int, int], float]:
    """Step back over a Pad of height and width by a constant.

    Returns:
        What it pads, (top, left, bottom, right), and the number; the value itself, zeros and 0
        where it is no such Pad's.
    """
    none = value, (0, 0, 0, 0), 0.0
    node = value.producer()
    if (
        node is None
        or node.domain != ""
        or node.op_type != "Pad"
        or node.attributes.get_string("mode", "constant") != "constant"
        or node.inputs[0] is None
    ):
        return none
    amounts = constant_of(node.inputs[1])
    filler = _optional_constant(node, 2)
    axes = _optional_constant(node, 3)
    rank = len(shape_of(value))
    if amounts is None or rank not in (3, 4):
        return none
    padded = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    begins[list(padded)], ends[list(padded)] = np.split(amounts.astype(np.int64), 2)
    # Where it cuts, or adds channels, it is no padding of the convolution's own.
    if begins[:2].any() or ends[:2].any() or min(begins.min(), ends.min()) < 0:
        return none
    # A one-dimensional map is one row.
    (*rows, left), (*far_rows, right) = begins[2:].tolist(), ends[2:].tolist()
    pads = (sum(rows), left, sum(far_rows), right)
    return node.inputs[0], pads, 0.0 if filler is None else float(filler.item())


def _binary_convs(model: ir.Model) -> Iterator[BinaryConv]:
    for node in model.graph:
        if node.domain != "" or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        parts = _parts_of(node)
        if parts is None or node.inputs[0] is None:
            continue
        reached = _walk_back(model, node)
        if reached is not None:
            yield _describe(node, reached, parts)


@dataclass(frozen=True)
class _Parts:
    """A binary weight, taken apart.

    Attributes:
        signs: −1, +1 and 0, output channels first.
        magnitude: of each output channel, [O].
        zeros: how many signs are 0.
    """

    signs: npt.NDArray[np.float32]
    magnitude: npt.NDArray[np.float32]
    zeros: int


def _parts_of(node: ir.Node) -> _Parts | None:
    """The parts of a layer's weight; None where it is not binary.

    They are kept with the constant, which no pass changes: every pass asks for them.
    """
    weight = _weight_of(node)
    if weight is None:
        return None
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    known = node.inputs[1].const_value.meta
    # A linear layer's weight may be read as it is by one node, and transposed by another.
    form = weight.shape, weight.strides
    if _PARTS not in known or known[_PARTS][0] != form:
        parts = binary_weight(weight)
        zeros = 0 if parts is None else np.count_nonzero(parts[0] == 0)
        known[_PARTS] = form, None if parts is None else _Parts(*parts, zeros)
    found: _Parts | None = known[_PARTS][1]
    return found


_PARTS = "bibench.binary_weight"


@dataclass(frozen=True)
class _Reached:
    """What lies between a layer and the binarization that it reads."""

    binarization: Binarization
    layout: tuple[ir.Node, ...]
    factor: ir.Value | None
    pads: tuple[int, int, int, int]
    pad_value: float


def _walk_back(model: ir.Model, node: ir.Node) -> _Reached | None:
    """Walk from a layer to its binarization, over padding, layout and a computed factor."""
    assert node.inputs[0] is not None
    value, outer, filler = node.inputs[0], (0, 0, 0, 0), 0.0
    if node.op_type == "Conv":
        value, outer, filler = before_padding(value)
    layout: list[ir.Node] = []
    factor: ir.Value | None = None
    while (binarization := find_binarization(model, value)) is None:
        scaled = None if factor is not None else _split_factor(model, value)
        if scaled is not None:
            value, factor = scaled
        elif (mover := value.producer()) is not None and _only_moves(mover):
            assert mover.inputs[0] is not None
            value = mover.inputs[0]
            layout.insert(0, mover)
        else:
            return None
    inner = window_of(node).pads if node.op_type == "Conv" else (0, 0, 0, 0)
    if filler != 0 and any(inner) and any(outer):
        return None  # two paddings of different value are not one
    # What the padding holds, in terms of the signs.
    middle, half = binarization.middle, binarization.half
    pad_value = ((filler if any(outer) else 0.0) - middle) / half
    pads = tuple(a + b for a, b in zip(inner, outer, strict=True))
    if not any(pads):
        pad_value = 0.0
    elif pad_value not in (-1, 0, 1) or (factor is not None and filler != 0):
        return None
    return _Reached(binarization, tuple(layout), factor, pads, pad_value)  # type: ignore[arg-type]  # four, as both added have


_MOVING = frozenset(["Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])


def _only_moves(node: ir.Node) -> bool:
    return (
        node.domain == ""
        and node.op_type in _MOVING
        and node.inputs[0] is not None
        and all(constant_of(value) is not None for value in node.inputs[1:])
    )


def _weight_of(node: ir.Node) -> npt.NDArray[np.float32] | None:
    """The constant weight with output channels first, or None."""
    array = constant_of(node.inputs[1])
    if array is None or array.dtype != np.float32 or array.ndim < 2:
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant_of(node.inputs[2]) is None:
        return None  # the bias is computed: no pass could move it
    weight: npt.NDArray[np.float32] = array.astype(np.float32, copy=False)
    if node.op_type == "Conv":
        return weight
    has_factors = any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta"))
    if weight.ndim != 2 or node.attributes.get_int("transA") or has_factors:
        return None
    return weight if node.attributes.get_int("transB") else weight.T


def _optional_constant(node: ir.Node, index: int) -> npt.NDArray[np.generic] | None:
    return constant_of(node.inputs[index]) if len(node.inputs) > index else None


def _split_factor(model: ir.Model, value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Split K · signs into signs and K, computed or several constants.

    One constant is a part of the binarization, as its levels.
    """
    node = value.producer()
    if node is None or node.op_type != "Mul" or node.domain != "":
        return None
    for index in (0, 1):
        signs, factor = node.inputs[index], node.inputs[1 - index]
        if signs is None or factor is None:
            continue
        if find_binarization(model, signs) is not None:
            return signs, factor
    return None


def _describe(
    node: ir.Node,
    reached: _Reached,
    parts: _Parts,
) -> BinaryConv:
    binarization, signs, magnitude = reached.binarization, parts.signs, parts.magnitude
    kind: Literal["conv", "linear"] = "conv" if node.op_type == "Conv" else "linear"
    source, output = binarization.source, node.outputs[0]
    window = window_of(node) if kind == "conv" else Window((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    # Activations that fall as the number rises: −W on rising ones is the same.
    weight = signs if binarization.half > 0 else -signs
    scale = (magnitude * np.float32(abs(binarization.half))).astype(np.float32)
    offset = np.zeros(len(signs), np.float32)
    if binarization.middle != 0:
        sums = signs.reshape(len(signs), -1).sum(axis=1)
        offset = (np.float32(binarization.middle) * magnitude * sums).astype(np.float32)
    axis = 1 if kind == "conv" else len(shape_of(output)) - 1
    granularity, factor, end = _scales_after(output, axis)
    if reached.factor is not None:
        granularity, factor = Granularity.DYNAMIC, reached.factor
    granularity = _coarser(granularity, _granularity_of_magnitude(scale))
    reader = only_reader(end)
    if reader is not None and reader.op_type == "Add" and _constant_operand(reader) is not None:
        end, reader = reader.outputs[0], only_reader(reader.outputs[0])
    has_batch_norm = reader is not None and reader.op_type == "BatchNormalization" and axis == 1
    if has_batch_norm and reader is not None:
        end = reader.outputs[0]
    facts = BinaryConvFacts(
        name=node.name or output.name or "",
        kind=kind,
        source=source.name or "",
        weight_shape=weight.shape,
        input_shape=shape_of(reached.layout[-1].outputs[0] if reached.layout else source),
        output_shape=shape_of(output),
        strides=window.strides,
        pads=reached.pads,
        pad_value=reached.pad_value,
        dilations=window.dilations,
        group=node.attributes.get_int("group", 1),
        zero_weights=parts.zeros,
        threshold=binarization.threshold,
        at_threshold=(binarization.at_threshold - binarization.middle) / binarization.half,
        scale=granularity,
        scale_source=None if factor is None else factor.name,
        is_rescaled_by_activation=factor is not None and _is_computed_from(factor, source),
        has_batch_norm=has_batch_norm,
        has_mean_shift=_is_shifted(source),
        consumers=tuple(use.node.op_type for use in end.uses()),
    )
    return BinaryConv(
        facts, node, binarization, reached.layout, reached.factor, weight, scale, offset
    )


def _pads(
    node: ir.Node,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> tuple[int, int, int, int]:
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        pads = node.attributes.get_ints("pads") or (0, 0, 0, 0)
        return (pads[0], pads[1], pads[2], pads[3]) if len(pads) == 4 else (0, pads[0], 0, pads[1])
    if auto_pad == "VALID":
        return (0, 0, 0, 0)
    near, far = [], []
    for axis in (0, 1):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        windows = -(-size[axis] // strides[axis])
        total = max((windows - 1) * strides[axis] + reach - size[axis], 0)
        less, more = total // 2, total - total // 2
        near.append(less if auto_pad == "SAME_UPPER" else more)
        far.append(more if auto_pad == "SAME_UPPER" else less)
    return (near[0], near[1], far[0], far[1])


def _pair(node: ir.Node, attribute: str) -> tuple[int, int]:
    values = node.attributes.get_ints(attribute) or (1, 1)
    return (values[0], values[1]) if len(values) == 2 else (1, values[0])


def _scales_after(
    value: ir.Value, channel_axis: int
) -> tuple[Granularity, ir.Value | None, ir.Value]:
    """Follow the factors on a convolution's output up to batch norm or a branch.

    Returns:
        The granularity of all factors, the computed factor if there is one, and the value
        after the last constant factor.
    """
    granularity = Granularity.NONE
    while (reader := only_reader(value)) is not None and reader.op_type in ("Mul", "Div"):
        if reader.op_type == "Div" and reader.inputs[0] is not value:
            break
        constant = _constant_operand(reader)
        if constant is None:
            other = next((item for item in reader.inputs if item is not value), None)
            return Granularity.DYNAMIC, other, value
        granularity = _coarser(
            granularity, _granularity_of_factor(constant, shape_of(value), channel_axis)
        )
        value = reader.outputs[0]
    return granularity, None, value


def _constant_operand(node: ir.Node) -> npt.NDArray[np.generic] | None:
    arrays = [array for value in node.inputs if (array := constant_of(value)) is not None]
    return arrays[0] if len(arrays) == 1 else None


def _granularity_of_factor(
    constant: npt.NDArray[np.generic], output_shape: tuple[int, ...], channel_axis: int
) -> Granularity:
    """How many different numbers a constant factor holds for an output."""
    first = constant.flat[0] if constant.size else 1
    if (constant == first).all():
        return Granularity.NONE if first == 1 else Granularity.TENSOR
    rank = len(output_shape)
    aligned = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    others = tuple(axis for axis in range(rank) if axis != channel_axis)
    varies_elsewhere = (aligned != aligned.max(axis=others, keepdims=True)).any()
    return Granularity.SPATIAL if varies_elsewhere else Granularity.CHANNEL


def _granularity_of_magnitude(magnitude: npt.NDArray[np.float32]) -> Granularity:
    if (magnitude == magnitude[0]).all():
        return Granularity.NONE if magnitude[0] == 1 else Granularity.TENSOR
    return Granularity.CHANNEL


def _coarser(one: Granularity, other: Granularity) -> Granularity:
    """The granularity of a product of two factors."""
    order = list(Granularity)
    return max(one, other, key=order.index)


def _is_computed_from(factor: ir.Value, source: ir.Value) -> bool:
    """Whether `source`, or what it is a shifted or clipped form of, leads to `factor`."""
    origins = {source}
    producer = source.producer()
    while producer is not None and producer.op_type in ("Add", "Clip", "Sub"):
        computed = [
            item for item in producer.inputs if item is not None and constant_of(item) is None
        ]
        if len(computed) != 1:
            break
        origins.add(computed[0])
        producer = computed[0].producer()
    pending, seen = [factor], set()
    while pending:
        value = pending.pop()
        if value in origins:
            return True
        node = value.producer()
        if node is not None and node not in seen:
            seen.add(node)
            pending.extend(item for item in node.inputs if item is not None)
    return False


def _is_shifted(source: ir.Value) -> bool:
    node = source.producer()
    if node is None or node.op_type not in ("Add", "Sub"):
        return False
    constant = _constant_operand(node)
    return constant is not None and bool(constant.any()) and not _is_bias(node)


def _is_bias(add: ir.Node) -> bool:
    """Whether an Add of constants ends a layer, as its bias or a batch norm written out."""
    node: ir.Node | None = add
    while node is not None and node.op_type in ("Add", "Sub", "Mul", "Div"):
        values = [value for value in node.inputs if constant_of(value) is None]
        node = values[0].producer() if len(values) == 1 and values[0] is not None else None
    return node is not None and node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
