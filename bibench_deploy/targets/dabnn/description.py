"""What is in a .dab file."""

from __future__ import annotations

from pathlib import Path

from bibench_deploy.graph.description import FileDescription, LayerDescription, padding_text
from bibench_deploy.targets.dabnn.flatbuffer import read_dab
from bibench_deploy.targets.dabnn.schema import VERSION, DabLayer, Operator

_Shape = tuple[int, ...]


def describe_dab(path: Path) -> FileDescription:
    """Describe a .dab file; the sizes of maps follow from the layers before them.

    Raises:
        ArtifactError: it cannot be read.
    """
    model = read_dab(path)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    shapes: dict[str, _Shape] = {model.input_name: model.input_shape}
    counted: set[str] = set()
    layers = []
    for layer in model.layers:
        own = {name for name in layer.inputs if name in tensors} - counted
        counted |= own
        weight = tensors.get(layer.text("weight"))
        computed = tuple(shapes.get(name, ()) for name in layer.inputs if name not in tensors)
        output = _output_shape(layer, computed, () if weight is None else weight.shape)
        shapes.update(dict.fromkeys(layer.outputs, output))
        is_binary = layer.operator is Operator.BinConv2D
        layers.append(
            LayerDescription(
                name=layer.name or layer.outputs[0],
                operator=layer.operator.name,
                inputs=computed,
                outputs=(output,) * len(layer.outputs),
                weight=None if weight is None else weight.shape,
                padding=padding_text(layer.numbers("pads"), -1.0 if is_binary else None),
                bits=None if weight is None else 1 if weight.is_binary else 32,
                is_binary=is_binary,
                size_bytes=sum(tensors[name].data.nbytes for name in own),
            )
        )
    return FileDescription(
        format=f"daBNN, version {VERSION}",
        size_bytes=path.stat().st_size,
        inputs={model.input_name: model.input_shape},
        outputs={model.output_name: shapes[model.output_name]},
        layers=tuple(layers),
    )


def _output_shape(layer: DabLayer, inputs: tuple[_Shape, ...], weight: _Shape) -> _Shape:
    """[1, H, W, C] of what a layer gives; empty where it cannot be told."""
    if not inputs or len(inputs[0]) != 4:
        return ()
    batch, *size, channels = inputs[0]
    if layer.operator is Operator.Concat:
        return (batch, *size, sum(shape[-1] for shape in inputs if shape))
    if layer.operator is Operator.FC:
        return (batch, 1, 1, weight[0]) if weight else ()
    kernel: tuple[int, ...] = layer.numbers("kernel_shape")
    if layer.operator in (Operator.BinConv2D, Operator.FpConv2D):
        if len(weight) != 4:
            return ()
        channels, kernel = weight[0], weight[1:3]
    if not kernel:
        return inputs[0]
    pads, strides = layer.numbers("pads"), layer.numbers("strides")
    if len(pads) < 2 or len(strides) < 2 or len(kernel) < 2 or not all(strides):
        return ()
    places = (
        (side + 2 * pad - window) // stride + 1
        for side, pad, window, stride in zip(size, pads, kernel, strides, strict=False)
    )
    return (batch, *places, channels)
