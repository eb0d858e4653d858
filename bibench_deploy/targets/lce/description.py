"""What is in a .tflite file."""

from __future__ import annotations

from pathlib import Path

from bibench_deploy.graph.description import FileDescription, LayerDescription
from bibench_deploy.targets.lce.flatbuffer import TfliteModel, TfliteOperator, read_tflite
from bibench_deploy.targets.lce.residency import KERNEL

_BITS = {"float32": 32, "float16": 16, "int8": 8}
_LAYERS = frozenset(
    ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", KERNEL]
)  # fmt: skip


def describe_tflite(path: Path) -> FileDescription:
    """Describe a .tflite file.

    Raises:
        ArtifactError: it cannot be read.
    """
    model = read_tflite(path)
    counted: set[int] = set()
    layers = []
    for node in model.operators:
        constants = {i for i in node.inputs if i >= 0 and model.tensors[i].data} - counted
        counted |= constants
        size = sum(len(model.tensors[index].data) for index in constants)
        layers.append(_describe(model, node, size))
    return FileDescription(
        format="TensorFlow Lite",
        size_bytes=path.stat().st_size,
        inputs={model.tensors[index].name: model.tensors[index].shape for index in model.inputs},
        outputs={model.tensors[index].name: model.tensors[index].shape for index in model.outputs},
        layers=tuple(layers),
    )


def _describe(model: TfliteModel, node: TfliteOperator, size: int) -> LayerDescription:
    weight = None
    if node.name in _LAYERS and len(node.inputs) > 1:
        weight = model.constant(node.inputs[1])
    is_binary = node.name == KERNEL
    given = [model.tensors[index] for index in node.outputs]
    read = [model.tensors[index] for index in node.inputs if index >= 0]
    return LayerDescription(
        name=given[0].name if given else "",
        operator=node.name,
        inputs=tuple(tensor.shape for tensor in read if not tensor.data),
        outputs=tuple(tensor.shape for tensor in given),
        weight=None if weight is None else weight.shape,
        padding=node.padding,
        bits=None if weight is None else 1 if is_binary else _BITS.get(weight.dtype),
        is_binary=is_binary,
        size_bytes=size,
    )
