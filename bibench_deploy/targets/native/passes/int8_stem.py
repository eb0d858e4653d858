"""Run the convolution that reads the image in 8 bits, by ONNX Runtime's own operators.

Requires: a lowered graph, before its binary layers become the library's operators.
Ensures: the float convolution of the graph's input is a QLinearConv between a QuantizeLinear and a
DequantizeLinear; a ReLU or clip and a max pooling behind it are in 8 bits too. This is not exact:
numbers become 255 steps between the smallest and the largest that some images gave.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import only_reader
from bibench_deploy.graph.fold_constants import constant_of, evaluate
from bibench_deploy.graph.initializer import add_initializer

_Array = npt.NDArray[np.float32]
# Kernels for x86 without VNNI add two products in 16 bits, where 8 bits of weight could overflow:
# https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (reduce_range).
_LARGEST_WEIGHT = 63


def int8_stem(model: ir.Model, images: _Array) -> bool:
    """Apply the pass to `model`, in place.

    Args:
        model: the graph.
        images: [N, …], at least one, whose numbers give the ranges.

    Returns:
        Whether there was such a convolution.
    """
    conv = _stem(model)
    if conv is None:
        return False
    source, weight = conv.inputs[0], constant_of(conv.inputs[1])
    assert source is not None
    assert weight is not None
    given = constant_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
    end, nodes = conv.outputs[0], []
    bound = only_reader(end)
    if bound is not None and bound.op_type in ("Relu", "Clip") and bound.domain == "":
        # Bytes end where its numbers end.
        nodes.append(bound)
        end = bound.outputs[0]
    pool = only_reader(end)
    if pool is not None and pool.op_type == "MaxPool" and pool.domain == "":
        nodes.append(pool)
    results = [
        evaluate(model, [conv, *nodes[:1]], [source], [end], [image[None]])[0] for image in images
    ]
    taken = _Steps.of(images)
    made = _Steps.of(np.concatenate(results))
    _replace(model, conv, weight, given, [pool] if pool in nodes else [], end, taken, made)
    return True


@dataclass(frozen=True)
class _Steps:
    """How numbers become bytes: number = scale · (byte − zero)."""

    scale: np.float32
    zero: np.uint8

    @classmethod
    def of(cls, numbers: npt.NDArray[np.generic]) -> _Steps:
        """The steps between the least and the largest of some numbers; 0 is one of them."""
        low = min(float(numbers.min()), 0.0)
        high = max(float(numbers.max()), 0.0)
        scale = (high - low) / 255 or 1.0
        return cls(np.float32(scale), np.uint8(round(-low / scale)))


def _stem(model: ir.Model) -> ir.Node | None:
    (first,) = [value for value in model.graph.inputs if not value.is_initializer()]
    readers = [use.node for use in first.uses()]
    if len(readers) != 1 or readers[0].op_type != "Conv" or readers[0].domain != "":
        return None
    weight = constant_of(readers[0].inputs[1])
    return readers[0] if weight is not None and weight.ndim == 4 else None


def _replace(
    model: ir.Model,
    conv: ir.Node,
    weight: npt.NDArray[np.generic],
    bias: npt.NDArray[np.generic] | None,
    pools: list[ir.Node],
    end: ir.Value,
    taken: _Steps,
    made: _Steps,
) -> None:
    graph, name = model.graph, conv.name or "stem"

    def constant(what: str, array: npt.NDArray[np.generic] | np.generic) -> ir.Value:
        return add_initializer(graph, f"{name}_{what}", np.asarray(array))

    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / _LARGEST_WEIGHT
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    shape = (-1, *(1,) * (weight.ndim - 1))
    integers = np.rint(weight / scales.reshape(shape)).astype(np.int8)
    biases = np.zeros(len(weight)) if bias is None else bias
    steps = biases.astype(np.float64) / (taken.scale.astype(np.float64) * scales)
    taken_steps = [constant("taken_scale", taken.scale), constant("taken_zero", taken.zero)]
    made_steps = [constant("made_scale", made.scale), constant("made_zero", made.zero)]
    weights = [
        constant("weights", integers),
        constant("weight_scales", scales),
        constant("weight_zeros", np.zeros(len(weight), np.int8)),
    ]
    whole = constant("biases", np.clip(np.rint(steps), -(2**31), 2**31 - 1).astype(np.int32))
    quantized = ir.node("QuantizeLinear", [conv.inputs[0], *taken_steps], name=f"{name}_bytes")
    product = ir.node(
        "QLinearConv",
        [quantized.outputs[0], *taken_steps, *weights, *made_steps, whole],
        dict(conv.attributes),
        name=name,
    )
    chain = [quantized, product]
    last = end
    for pool in pools:
        chain.append(
            ir.node(
                "MaxPool", [chain[-1].outputs[0]], dict(pool.attributes), name=f"{pool.name}_bytes"
            )
        )
        last = pool.outputs[0]
    numbers = ir.node(
        "DequantizeLinear", [chain[-1].outputs[0], *made_steps], name=f"{name}_numbers"
    )
    for node in chain:
        node.outputs[0].name, node.outputs[0].dtype = f"{node.name}_out", ir.DataType.UINT8
    product.outputs[0].shape, chain[-1].outputs[0].shape = end.shape, last.shape
    quantized.outputs[0].shape = conv.inputs[0].shape if conv.inputs[0] is not None else None
    output = numbers.outputs[0]
    output.name, output.dtype, output.shape = f"{numbers.name}_out", ir.DataType.FLOAT, last.shape
    for node in [*chain, numbers]:
        graph.append(node)
    last.replace_all_uses_with(output, replace_graph_outputs=True)
    RemoveUnusedNodesPass()(model)
    graph.sort()
