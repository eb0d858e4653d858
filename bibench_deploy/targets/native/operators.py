"""The operators of the library, as nodes of a graph.

Maps between them are NHWC. Signs are packed along the channels, ⌈C / 8⌉ bytes for each place,
lowest bit first; 1 is −1. An input or output that a node has not is left out.

  - `Binarize`: numbers [N, C, H, W] (or [N, H, W, C] with `channels_last`) → signs?, the numbers
    as [N, H, W, C]?
  - `BinaryConv`: signs, weights [O, kH, kW, ⌈I / group / 8⌉], scale [O], bias [O], residual?,
    slope [O]?, shift [O]?, sign_offset [O]? → numbers?, signs?. The numbers are
    clip(prelu(scale · dot + bias + residual, slope) + shift); the signs are those of the numbers
    plus `sign_offset`. Attributes: `strides`, `pads`, `dilations`, `group` as of Conv,
    `input_channels`, `pad_value` (−1, 0 or 1), `low` and `high` of the clip.
  - `FloatStem`: image [N, I, H, W], weights [O, I, kH, kW], bias [O], sign_offset [O]?
    → numbers?, signs?. A convolution, max pooling (`pool_kernel`, `pool_strides`, `pool_pads`) and
    a clip; signs as of BinaryConv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

DOMAIN = "bibench"
BINARIZE, BINARY_CONV, FLOAT_STEM = "Binarize", "BinaryConv", "FloatStem"
# Where an operator's outputs are.
NUMBERS_OF, SIGNS_OF = (
    {BINARIZE: 1, BINARY_CONV: 0, FLOAT_STEM: 0},
    {BINARIZE: 0, BINARY_CONV: 1, FLOAT_STEM: 1},
)
RESIDUAL = 4

_Array = npt.NDArray[np.float32]


def pack_signs(signs: _Array) -> npt.NDArray[np.uint8]:
    """Pack ±1 along the last axis: [..., C] → [..., ⌈C / 8⌉].

    Example:
        >>> pack_signs(np.array([1, -1, -1, 1, 1, 1, 1, 1, -1], np.float32))
        array([6, 1], dtype=uint8)
    """
    return np.packbits(signs < 0, axis=-1, bitorder="little")


def unpack_signs(packed: npt.NDArray[np.generic], channels: int) -> _Array:
    """The ±1 that were packed along the last axis: uint8 [..., ⌈C / 8⌉] → [..., C]."""
    bits = np.unpackbits(
        packed.astype(np.uint8, copy=False), axis=-1, count=channels, bitorder="little"
    )
    return (1 - 2 * bits.astype(np.float32)).astype(np.float32)


def is_own(node: ir.Node | None, *kinds: str) -> bool:
    """Whether a node is one of these operators of the library."""
    return node is not None and node.domain == DOMAIN and node.op_type in kinds


def own_node(
    kind: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    shape: Sequence[int],
    attributes: Mapping[str, int | float | Sequence[int]],
) -> ir.Node:
    """A node of the library with both of its outputs, the numbers and their signs.

    Args:
        kind: of operator.
        inputs: None for one that is left out.
        name: of the node.
        shape: of its numbers, NHWC.
        attributes: by name.
    """
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    node = ir.node(kind, inputs, attributes, domain=DOMAIN, name=name, num_outputs=2)
    numbers, signs = node.outputs[NUMBERS_OF[kind]], node.outputs[SIGNS_OF[kind]]
    numbers.name, signs.name = f"{name}_numbers", f"{name}_packed"
    numbers.shape, numbers.dtype = ir.Shape(shape), ir.DataType.FLOAT
    signs.shape = ir.Shape([*shape[:-1], -(-shape[-1] // 8)])
    signs.dtype = ir.DataType.UINT8
    return node


def drop_unread_outputs(graph: ir.Graph) -> None:
    """Leave out the outputs of the library's nodes that nothing reads: they are not computed."""
    for node in graph:
        if node.domain != DOMAIN:
            continue
        for value in node.outputs:
            if not value.uses() and not value.is_graph_output():
                value.name, value.shape = "", None
