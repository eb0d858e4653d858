"""What Larq Compute Engine holds at a price, counted in the lowered graph itself.

Which operators remain was found by experiment with larq-compute-engine 0.16; the tests
beside this file's name look for them in converted files.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from bibench_deploy.counted import counted
from bibench_deploy.graph.facts import (
    BinaryConv,
    binary_convs,
    only_reader,
    shape_of,
)
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.sign_places import source_layer
from bibench_deploy.targets._target import Cost
from bibench_deploy.targets.lce.residency import WORD_BITS

_LAYERS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_LAYOUT = frozenset(["Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
# Words that are three quarters full or more are not worth a word.
_EMPTY = 4 / 3
_SUMS = frozenset(["Add", "Sub"])


def costs(model: ir.Model, lowered: ir.Model) -> Iterator[Cost]:
    """What of a model that LCE holds runs slower than the same model in another form.

    Args:
        model: the model, as `load_graph` gives it.
        lowered: the same after the target's lowering.
    """
    pieces: dict[str, list[BinaryConv]] = {}
    convs = binary_convs(lowered)
    for conv in convs:
        pieces.setdefault(source_layer(conv.node), []).append(conv)
    source = {conv.facts.name: conv for conv in binary_convs(model)}
    for conv in source.values():
        yield from _costs_of_pieces(conv, pieces.get(conv.facts.name, []))
    signs = {conv.binarization.nodes[0] for conv in convs}
    for conv in convs:
        yield from _costs_of_shift(conv, source[source_layer(conv.node)])
    for node in lowered.graph:
        if node.op_type == "BatchNormalization" and node.domain == "":
            yield from _costs_of_batch_norm(node)
    for conv in convs:
        yield from _costs_of_floats(conv, signs)


def _costs_of_pieces(conv: BinaryConv, pieces: list[BinaryConv]) -> Iterator[Cost]:
    """What splitting and doubling a binary layer costs."""
    facts = conv.facts
    yield from _costs_of_words(conv)
    if facts.kind == "linear":
        yield Cost(
            "binary-linear",
            facts.name,
            "runs as a 1×1 convolution: LCE has no binary fully connected layer",
            "leave it: it is one bit all the same",
            is_small=True,
        )
    if facts.group > 1:
        yield Cost(
            "depthwise" if facts.weight_shape[1] == 1 else "groups",
            facts.name,
            f"{facts.group} groups run as {len(pieces)} binary operators, a slice before and a "
            "concatenation behind them",
            "use one group",
        )
    times = sum(_binary_macs(piece) for piece in pieces) / _binary_macs(conv)
    if times < 1.01:
        return
    if facts.zero_weights or (conv.magnitude == 0).any():
        dead = int((conv.magnitude == 0).sum())
        zeros = facts.zero_weights + dead * conv.weight[0].size
        yield Cost(
            "zero-weights",
            facts.name,
            f"{zeros} of {conv.weight.size} weights {'is' if zeros == 1 else 'are'} exactly 0, so "
            "each is run as half of +1 "
            f"and half of −1: {times:.2g} times the binary multiplications",
            "binarize weights by torch.where(w >= 0, 1.0, -1.0)",
        )
    elif any(facts.pads) and facts.exceeds_map:
        kernel, sizes = facts.weight_shape[2:], facts.input_shape[2:]
        shapes = ["×".join(map(str, shape)) for shape in (kernel, sizes)]
        yield Cost(
            "map-smaller-than-kernel",
            facts.name,
            f"a {shapes[0]} kernel on a {shapes[1]} map, where LCE's zero padding is wrong: padded "
            f"once with +1 and once with −1, {times:.2g} times the binary multiplications",
            "use a larger input, or a smaller kernel there",
        )
    elif any(facts.pads):
        yield Cost(
            "zero-padding",
            facts.name,
            f"its padding {list(facts.pads)} is no part of what LCE computes as SAME: "
            f"{times:.2g} times the binary multiplications",
            "pad by (kernel − 1) / 2 on each side, or before the sign",
        )
    else:
        yield Cost(
            "dilation",
            facts.name,
            f"strides {list(facts.strides)} with dilations {list(facts.dilations)}: every output "
            f"is computed and most are dropped, {times:.2g} times the binary multiplications",
            "use a stride or a dilation, not both",
        )


def _costs_of_words(conv: BinaryConv) -> Iterator[Cost]:
    """Words of bits that are not full."""
    facts = conv.facts
    channels = facts.weight_shape[1]
    words = -(-channels // WORD_BITS)
    times = words * WORD_BITS / channels
    if times >= _EMPTY:
        yield Cost(
            "channel-count",
            facts.name,
            f"{counted(channels, 'input channel fills', 'input channels fill')} "
            f"{counted(words, 'word')} of {WORD_BITS} bits: {times:.2g} times "
            "the bytes and the work of its bits",
            f"use a multiple of {WORD_BITS} channels",
            is_small=True,
        )


def _binary_macs(conv: BinaryConv) -> int:
    """Multiplications of one binary layer."""
    if conv.facts.kind == "linear":
        return conv.weight.size * prod(conv.facts.output_shape[1:-1])
    return conv.weight.size * prod(conv.facts.output_shape[2:])


def _costs_of_shift(conv: BinaryConv, layer: BinaryConv) -> Iterator[Cost]:
    """An addition before a sign that no batch norm took over; `layer` is the source graph's."""
    source = conv.binarization.source
    node = source.producer()
    operands = () if node is None or node.op_type not in _SUMS else node.inputs
    if all(constant_of(value) is None for value in operands):
        return
    name, work = layer.facts.name, f"an addition over {counted(prod(shape_of(source)), 'number')}"
    if layer.facts.threshold != 0 or layer.facts.has_mean_shift:
        hint = "leave it, or train without a shift (bireal, bnn)"
        yield Cost("mean-shift", name, f"{work} before its sign", hint, is_small=True)
    elif layer.binarization.middle == 0:
        message = f"0 becomes −1 here, which costs {work}: LCE makes +1 of it"
        hint = "binarize by torch.where(x >= 0, 1.0, -1.0)"
        yield Cost("sign-of-zero", name, message, hint, is_small=True)


def _costs_of_batch_norm(node: ir.Node) -> Iterator[Cost]:
    """A batch norm that is no part of a layer: a multiplication and an addition."""
    source = node.inputs[0]
    assert source is not None
    before = source.producer()
    if before is not None and before.op_type in _LAYERS and only_reader(source) is node:
        return
    if before is not None and before.op_type in ("MaxPool", *_LAYOUT):
        what = "a max pooling" if before.op_type == "MaxPool" else f"a {before.op_type}"
        hint = f"put the batch norm directly behind the layer, before {before.name}"
    elif before is None or source.is_graph_input():
        what, hint = "the input", "normalise images before they go in"
    else:
        what = f"{before.op_type} {before.name}"
        hint = "put it directly behind a convolution, or leave it out"
    yield Cost(
        "batch-norm-not-folded",
        node.name or "",
        f"a batch norm behind {what} folds into no layer: a multiplication and an addition over "
        f"{counted(prod(shape_of(source)), 'number')}",
        hint,
        is_small=before is not None and before.op_type not in ("MaxPool", *_LAYOUT),
    )


def _costs_of_floats(conv: BinaryConv, signs: set[ir.Node]) -> Iterator[Cost]:
    """A binary layer that writes floats although signs alone read it."""
    value = conv.node.outputs[0]
    reader = only_reader(value)
    if reader is not None and reader.op_type == "BatchNormalization":
        value = reader.outputs[0]
    readers = {use.node for use in value.uses()}
    if readers and readers <= signs and any(conv.facts.pads) and conv.facts.pad_value == 0:
        yield Cost(
            "float-output",
            source_layer(conv.node),
            f"writes {4 * prod(shape_of(value)):,} bytes of floats that become signs again: LCE "
            "writes bits only where the padding is +1 or none",
            "pad with ones before the sign, F.pad(x, (1, 1, 1, 1), value=1.0), and train so",
            is_small=True,
        )
