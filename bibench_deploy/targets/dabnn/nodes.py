"""What each node of a lowered graph becomes: layers of daBNN, or a refusal.

What a binary convolution counts is turned into sums behind it: affine.py. Its signs, the
padding before them and the batch norm behind it are parts of it, and no nodes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.facts import (
    BinaryConv,
    before_padding,
    binary_convs,
    only_reader,
    shape_of,
    window_of,
)
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.near_misses import why_not_one_layer
from bibench_deploy.lowering.fold_channel_affine import channel_step
from bibench_deploy.lowering.layer_input import before_sign
from bibench_deploy.lowering.sign_places import LAYOUT
from bibench_deploy.targets.dabnn.affine import affine_of_counts
from bibench_deploy.targets.dabnn.border import border_of, sums_outside
from bibench_deploy.targets.dabnn.emitter import Emitter, Window
from bibench_deploy.targets.dabnn.schema import Operator

_Array = npt.NDArray[np.float32]
_Generic = npt.NDArray[np.generic]

#: Nodes whose layers write over what they read.
OVERWRITING = frozenset(
    ["Add", "BatchNormalization", "Clip", "Div", "LeakyRelu", "Mul", "PRelu", "Relu", "Sub"]
)
#: Nodes that only name a map otherwise.
RENAMING = frozenset(["Flatten", "Reshape", "Squeeze", "Unsqueeze"])

_LARGEST_NUMBER = float(np.finfo(np.float32).max)
# Up to here a clip's rounding, half of the bound's last bit, stays below 4e-6.
_LARGEST_BOUND = 64.0

_INSTEAD = "write it with other operators, or end the model before it"
_NO_SCORES = "end the model before it: the order of the scores is the same"
_WAYS_OUT = {
    "LogSoftmax": _NO_SCORES,
    "Pad": "pad behind the sign, by −1, and the layer takes it over",
    "Softmax": _NO_SCORES,
}


class Refused(Exception):  # noqa: N818 - it is caught in assembly.py and no error of a user's
    """A node that the engine cannot hold: the rule that says why, what was found, what to do."""

    def __init__(self, rule: str, message: str, hint: str = _INSTEAD) -> None:
        self.rule, self.message, self.hint = rule, message, hint
        super().__init__(message)


class NodeWriter:
    """Makes the layers of one node after the other.

    Args:
        lowered: the graph, as `DabnnTarget.lower` gives it.
        is_exact: whether the border of what is padded with other numbers than −1 is corrected.
        emitter: takes the layers.

    Attributes:
        borders: source graph's layer → how many numbers its border's correction has.
    """

    def __init__(self, lowered: ir.Model, is_exact: bool, emitter: Emitter) -> None:
        self._model = lowered
        self._is_exact = is_exact
        self._emitter = emitter
        self._convs = {conv.node: conv for conv in binary_convs(lowered)}
        self.borders: dict[str, int] = {}

    def parts(self) -> Iterator[ir.Node]:
        """The nodes that are parts of a layer."""
        for conv in self._convs.values():
            yield from conv.binarization.nodes
            yield from (node for node in (_padding_of(conv), _batch_norm_of(conv)) if node)
        for node in self._model.graph:
            readers = [use.node for use in node.outputs[0].uses()]
            if node.op_type == "Pad" and readers and all(map(self._pads_itself, readers)):
                yield node

    def reads(self, node: ir.Node) -> tuple[ir.Value, ...]:
        """The maps that a node reads, its parts included."""
        if node in self._convs:
            return (_input_of(self._convs[node]),)
        if self._pads_itself(node):
            return (before_padding(_first(node))[0],)
        return tuple(v for v in node.inputs if v is not None and constant_of(v) is None)

    def output(self, node: ir.Node) -> ir.Value:
        """The map that a node gives, its parts included."""
        normalization = _batch_norm_of(self._convs[node]) if node in self._convs else None
        return (normalization or node).outputs[0]

    def write(self, node: ir.Node, sources: Sequence[str]) -> str:
        """Make the layers of a node.

        Args:
            node: any, but a part of a binary layer.
            sources: the maps that `reads` gave.

        Returns:
            The map that it gives.

        Raises:
            Refused: the engine cannot hold it.
        """
        if node in self._convs:
            return self._binary_layer(self._convs[node], sources[0])
        write = None if node.domain else _WRITERS.get(node.op_type)
        if write is None:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise Refused(
                "unknown-domain" if node.domain else "unsupported-operator",
                f"operator {name} is not supported",
                _WAYS_OUT.get(node.op_type, _INSTEAD),
            )
        if any(value.uses() for value in node.outputs[1:]):
            raise Refused("operator-form", f"a {node.op_type} of several outputs")
        return write(self, node, sources)

    def _pads_itself(self, node: ir.Node) -> bool:
        """Whether a float convolution reads a Pad by a constant, which it takes over."""
        is_float = node.op_type == "Conv" and node.domain == "" and node not in self._convs
        return is_float and any(before_padding(_first(node))[1])

    def _binary_layer(self, conv: BinaryConv, source: str) -> str:
        node, facts, emitter = conv.node, conv.facts, self._emitter
        _check_layer(facts.group, facts.dilations, "binary")
        if not conv.weight.all():
            count = int((conv.weight == 0).sum())
            raise Refused(
                "zero-weights",
                f"{counted(count, 'weight is', 'weights are')} exactly 0, which daBNN reads as −1",
                "binarize weights by torch.where(w >= 0, 1.0, -1.0)",
            )
        pad = _padding_of(conv)
        if pad is not None:
            pads, pad_value = _amounts(pad)
        else:
            pads, pad_value = window_of(node).pads if node.op_type == "Conv" else (0,) * 4, 0.0
        padding = _same(pads)
        is_corrected = padding > 0 and pad_value != -1
        if is_corrected and not self._is_exact:
            raise Refused(
                "zero-padding",
                f"a binary convolution that pads with {pad_value:g}, and daBNN pads with −1",
                "train with −1 padding, or export with --padding exact (constants added at the "
                "border) or --padding minus-one (other outputs)",
            )
        kernels = self._kernels(conv.weight, source)
        window = Window((kernels.shape[1], kernels.shape[2]), facts.strides, padding)
        filters = emitter.filters(kernels, window.strides)
        counts = emitter.convolve(Operator.BinConv2D, source, filters, window)
        if is_corrected:
            border = border_of(kernels, emitter.shapes[source], window, pad_value)
            name = emitter.constant("border", border)
            counts = emitter.pointwise(Operator.Add, {"input1": counts, "input2": name})
            self.borders[emitter.node] = border.size
        scale, shift = np.ones(len(kernels)), np.zeros(len(kernels))
        if (normalization := _batch_norm_of(conv)) is not None:
            step = channel_step(normalization, node.outputs[0], len(kernels))
            assert step is not None
            scale, shift = step
        at_zero = _sign_of_zero(self.output(node))
        return emitter.affine(
            counts, *affine_of_counts(scale, shift, kernels[0].size, at_zero=at_zero)
        )

    def _float_layer(self, node: ir.Node, sources: Sequence[str]) -> str:
        reason = why_not_one_layer(self._model, node)
        if reason is not None:
            raise Refused("float-weights-on-signs", reason, "")
        weight = constant_of(node.inputs[1])
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if weight is None or len(sources) > 1:
            raise Refused("computed-parameter", "its weights or bias are computed", "fix them")
        strides, padding, filler = (1, 1), 0, 0.0
        if node.op_type == "Conv":
            found = window_of(node)
            _, outer, filler = before_padding(_first(node))
            if any(outer) and any(found.pads) and filler:
                raise Refused("asymmetric-padding", f"pads with 0 and with {filler:g}", "use one")
            pads = [one + other for one, other in zip(found.pads, outer, strict=True)]
            strides, padding = found.strides, _same(tuple(pads))
            _check_layer(node.attributes.get_int("group", 1) or 1, found.dilations, "float")
        else:
            factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
            if weight.ndim != 2 or node.attributes.get_int("transA") or factors != [1.0, 1.0]:
                raise Refused("operator-form", f"a {node.op_type} that is no linear layer")
            weight = weight if node.attributes.get_int("transB") else weight.T
        kernels = self._kernels(weight.astype(np.float32), sources[0])
        name = ""
        if bias is not None and bias.any():
            whole = np.broadcast_to(bias.reshape(-1), (len(kernels),)).astype(np.float32)
            name = self._emitter.constant("bias", whole)
        window = Window((kernels.shape[1], kernels.shape[2]), strides, padding)
        emitter, source = self._emitter, sources[0]
        stored = emitter.tensor("weight", kernels)
        output = emitter.convolve(Operator.FpConv2D, source, stored, window, name)
        if not padding or not filler:
            return output
        border = sums_outside(kernels, emitter.shapes[source], window) * np.float32(filler)
        added = emitter.constant("border", border)
        return emitter.pointwise(Operator.Add, {"input1": output, "input2": added})

    def _kernels(self, weight: _Array, source: str) -> _Array:
        """A weight [O, C, kH, kW], or [O, C·H·W] of a flattened map, as filters [O, kH, kW, C]."""
        height, width, channels = self._emitter.shapes[source]
        if weight.ndim == 2 and weight.shape[1] == height * width * channels:
            weight = weight.reshape(len(weight), channels, height, width)
        if weight.ndim != 4:
            raise Refused(
                "volume", f"weights of {counted(weight.ndim, 'dimension')}", "use convolutions 2d"
            )
        return np.ascontiguousarray(weight.transpose(0, 2, 3, 1))

    def _arithmetic(self, node: ir.Node, sources: Sequence[str]) -> str:
        """A sum of two maps, or a constant per channel that multiplies or is added to one."""
        emitter, value = self._emitter, self.reads(node)[0]
        if len(sources) == 2:
            one, other = sources
            if node.op_type != "Add" or emitter.shapes[one] != emitter.shapes[other]:
                raise Refused("unsupported-operator", f"{node.op_type} of two maps that is no sum "
                              "of maps of one size")  # fmt: skip
            return emitter.pointwise(Operator.Add, {"input1": one, "input2": other})
        if shape_of(node.outputs[0]) == shape_of(value):
            step = channel_step(node, value, shape_of(value)[1])
            if step is not None:
                scale, shift = (self._per_channel(vector, sources[0]) for vector in step)
                return emitter.affine(sources[0], scale, shift)
            constants = [array for v in node.inputs if (array := constant_of(v)) is not None]
            if node.op_type == "Add" and len(shape_of(value)) == 4:
                whole = np.broadcast_to(constants[0], shape_of(value)).transpose(0, 2, 3, 1)
                name = emitter.constant("map", whole.astype(np.float32))
                return emitter.pointwise(Operator.Add, {"input1": sources[0], "input2": name})
        raise Refused(
            "unsupported-operator",
            f"{node.op_type} with another number for each place",
            "use one constant per channel",
        )

    def _per_channel(self, vector: npt.NDArray[np.float64], source: str) -> _Array:
        """Numbers for the elements of a flattened map [C·H·W], or [C], as one per channel."""
        height, width, channels = self._emitter.shapes[source]
        maps = vector.reshape(channels, -1)
        if (maps != maps[:, :1]).any():
            raise Refused(
                "unsupported-operator",
                f"another number for each place of a flattened map of {height}×{width}",
                "use one constant per channel",
            )
        return maps[:, 0].astype(np.float32)

    def _relu(self, _: ir.Node, sources: Sequence[str]) -> str:
        return self._emitter.pointwise(Operator.Relu, {"input": sources[0]})

    def _parametric_relu(self, node: ir.Node, sources: Sequence[str]) -> str:
        channels = self._emitter.shapes[sources[0]][2]
        alpha = node.attributes.get_float("alpha", 0.01)
        slope: _Generic | None = np.array([alpha], np.float32)
        if node.op_type == "PRelu":
            slope = constant_of(node.inputs[1])
        rank = len(shape_of(node.outputs[0]))
        is_per_channel = slope is not None and (
            slope.size == 1 or slope.shape == (channels, *(1,) * (rank - 2))
            or slope.shape == (1, channels, *(1,) * (rank - 2))
        )  # fmt: skip
        if slope is None or not is_per_channel:
            raise Refused(
                "unsupported-operator",
                "a PReLU whose slopes are not one per channel",
                "use nn.PReLU(channels)",
            )
        slopes = np.broadcast_to(slope.reshape(-1), (channels,)).astype(np.float32)
        name = self._emitter.constant("slope", slopes)
        return self._emitter.pointwise(Operator.PRelu, {"input": sources[0], "slope": name})

    def _clip(self, node: ir.Node, sources: Sequence[str]) -> str:
        """A clip from ReLUs: max(x, l) = relu(x − l) + l and min(x, h) = h − relu(h − x).

        Numbers between the bounds are rounded once to the last bit of a bound.
        """
        if len(sources) > 1:
            raise Refused("computed-parameter", "a clip of computed bounds", "use constants")
        constants = [None if item is None else constant_of(item) for item in node.inputs[1:]]
        bounds = [None if array is None else float(array.item()) for array in constants]
        low, high = (*bounds, None, None)[:2]
        emitter, name = self._emitter, sources[0]
        # The map holds sign · x + offset until the next layer takes both off.
        sign, offset = 1.0, 0.0
        for bound, side in ((low, 1.0), (high, -1.0)):
            # A bound at the end of all numbers clips nothing.
            if bound is not None and side * bound > -_LARGEST_NUMBER:
                if not abs(bound) <= _LARGEST_BOUND:
                    raise Refused(
                        "unsupported-operator",
                        f"a clip at {bound:g}: daBNN has none, and one of ReLUs rounds by up to "
                        f"{abs(np.spacing(np.float32(bound))) / 2:.1g}",
                        f"leave the bound out, or use one within ±{_LARGEST_BOUND:g}",
                    )
                shift = -side * bound
                name = emitter.scale(name, side * sign, shift - side * sign * offset)
                name = emitter.pointwise(Operator.Relu, {"input": name})
                sign, offset = side, shift
        return emitter.scale(name, sign, -sign * offset)

    def _pool(self, node: ir.Node, sources: Sequence[str]) -> str:
        found = window_of(node)
        if found.dilations != (1, 1):
            raise Refused("dilation", "a dilated pooling, which daBNN has not", "use strides")
        if node.attributes.get_int("ceil_mode", 0):
            raise Refused(
                "operator-form",
                "a pooling that rounds its size up, and daBNN rounds down",
                "use ceil_mode=False",
            )
        operator = Operator.MaxPool if node.op_type == "MaxPool" else Operator.AvePool
        window = Window(found.kernel, found.strides, _same(found.pads))
        return self._emitter.pool(operator, sources[0], window)

    def _global_pool(self, node: ir.Node, sources: Sequence[str]) -> str:
        """A pooling over the whole map, whose size daBNN has to be told."""
        if node.op_type == "ReduceMean" and not _is_over_map(node):
            raise Refused("unsupported-operator", "a mean over other axes than height and width")
        height, width, _ = self._emitter.shapes[sources[0]]
        operator = Operator.MaxPool if node.op_type == "GlobalMaxPool" else Operator.AvePool
        return self._emitter.pool(operator, sources[0], Window((height, width)))

    def _concatenate(self, node: ir.Node, sources: Sequence[str]) -> str:
        axis = node.attributes.get_int("axis", 1) or 0
        is_along_channels = axis % len(shape_of(node.outputs[0])) == 1
        if len(sources) != 2 or len(node.inputs) != 2 or not is_along_channels:
            raise Refused(
                "operator-form",
                f"a Concat of {len(node.inputs)} tensors along axis {axis}; daBNN joins two along "
                "the channels",
                "join two at a time",
            )
        return self._emitter.concatenate(sources[0], sources[1])

    def _rename(self, node: ir.Node, sources: Sequence[str]) -> str:
        """A Flatten, or what else leaves every number where it is."""
        height, width, channels = self._emitter.shapes[sources[0]]
        before, after = shape_of(self.reads(node)[0]), shape_of(node.outputs[0])
        flat = (1, height * width * channels)
        if after not in (before, flat, (1, channels, height, width)):
            raise Refused(
                "unsupported-operator",
                f"{node.op_type} from {list(before)} to {list(after)}; daBNN moves no numbers",
                "flatten a map in front of a linear layer alone",
            )
        return sources[0]


_WRITERS: dict[str, Callable[[NodeWriter, ir.Node, Sequence[str]], str]] = {
    "Add": NodeWriter._arithmetic,
    "AveragePool": NodeWriter._pool,
    "BatchNormalization": NodeWriter._arithmetic,
    "Clip": NodeWriter._clip,
    "Concat": NodeWriter._concatenate,
    "Conv": NodeWriter._float_layer,
    "Div": NodeWriter._arithmetic,
    "Flatten": NodeWriter._rename,
    "Gemm": NodeWriter._float_layer,
    "GlobalAveragePool": NodeWriter._global_pool,
    "GlobalMaxPool": NodeWriter._global_pool,
    "LeakyRelu": NodeWriter._parametric_relu,
    "MatMul": NodeWriter._float_layer,
    "MaxPool": NodeWriter._pool,
    "Mul": NodeWriter._arithmetic,
    "PRelu": NodeWriter._parametric_relu,
    "ReduceMean": NodeWriter._global_pool,
    "Relu": NodeWriter._relu,
    "Reshape": NodeWriter._rename,
    "Squeeze": NodeWriter._rename,
    "Sub": NodeWriter._arithmetic,
    "Unsqueeze": NodeWriter._rename,
}


def _check_layer(group: int, dilations: tuple[int, int], kind: str) -> None:
    if group != 1:
        raise Refused(
            "groups",
            f"a {kind} convolution of {group} groups, which daBNN has not",
            "use one group",
        )
    if dilations != (1, 1):
        raise Refused(
            "dilation",
            f"a {kind} convolution of dilation {dilations[0]}, which daBNN passes over",
            "use a larger kernel or a stride",
        )


def _same(pads: tuple[int, ...]) -> int:
    """The padding of all four sides (top, left, bottom, right)."""
    if len(set(pads)) != 1:
        top, left, bottom, right = pads
        raise Refused(
            "asymmetric-padding",
            f"pads of top {top}, left {left}, bottom {bottom}, right {right}; daBNN pads all "
            "sides alike",
            "pad all sides alike",
        )
    return pads[0]


def _padding_of(conv: BinaryConv) -> ir.Node | None:
    """The Pad by ±1 in front of a layer's sign, where there is one."""
    node = before_sign(conv).producer()
    is_pad = node is not None and node.op_type == "Pad" and LAYOUT in node.metadata_props
    return node if is_pad else None


def _input_of(conv: BinaryConv) -> ir.Value:
    """The map whose signs a layer takes."""
    pad = _padding_of(conv)
    value = before_sign(conv) if pad is None else pad.inputs[0]
    assert value is not None
    return value


def _amounts(pad: ir.Node) -> tuple[tuple[int, ...], float]:
    """(top, left, bottom, right) and the number of a Pad that a pass has made."""
    amounts, filler = constant_of(pad.inputs[1]), constant_of(pad.inputs[2])
    assert amounts is not None
    assert filler is not None
    begins, ends = np.split(amounts.astype(int), 2)
    return (*begins[-2:].tolist(), *ends[-2:].tolist()), float(filler.item())


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _batch_norm_of(conv: BinaryConv) -> ir.Node | None:
    """The batch norm of constants that alone reads a layer."""
    output = conv.node.outputs[0]
    reader = only_reader(output)
    if reader is None or reader.op_type != "BatchNormalization":
        return None
    return reader if channel_step(reader, output, len(conv.weight)) is not None else None


def _sign_of_zero(value: ir.Value) -> int:
    """Which sign a 0 of a map gets, +1 or −1; 0 where no sign reads it, or two that differ."""
    pending, found = [value], set()
    while pending:
        for use in pending.pop().uses():
            node = use.node
            if node.op_type in _SIGN_OF_ZERO and not node.domain:
                found.add(_SIGN_OF_ZERO[node.op_type])
            elif _lifts_zero(node):
                found.add(1)
            elif LAYOUT in node.metadata_props or node.op_type in _KEEPS_ZERO:
                pending += node.outputs
    return found.pop() if len(found) == 1 else 0


# The signs that passes leave, by what they make of 0.
_SIGN_OF_ZERO = {"Less": 1, "Greater": -1}
# What gives 0 for zeros, and beside them no number of the other sign.
_KEEPS_ZERO = RENAMING | {
    "AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "MaxPool", "Relu"
}  # fmt: skip


def _lifts_zero(node: ir.Node) -> bool:
    """Whether a node is the Add of the smallest float, by which a pass makes signs +1 at 0."""
    added = [array for item in node.inputs if (array := constant_of(item)) is not None]
    tiny = np.finfo(np.float32).tiny
    return node.op_type == "Add" and any(array.size and (array == tiny).all() for array in added)


def _is_over_map(node: ir.Node) -> bool:
    """Whether a ReduceMean of a map is one over height and width."""
    axes: list[int] | None = list(node.attributes.get_ints("axes") or ()) or None
    if axes is None and len(node.inputs) > 1 and (array := constant_of(node.inputs[1])) is not None:
        axes = [int(axis) for axis in array.reshape(-1)]
    source = node.inputs[0]
    rank = 0 if source is None else len(shape_of(source))
    return axes is not None and rank == 4 and sorted(axis % 4 for axis in axes) == [2, 3]
