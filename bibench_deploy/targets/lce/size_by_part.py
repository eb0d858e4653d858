"""Where the bytes of a .tflite file go."""

from __future__ import annotations

from math import prod
from pathlib import Path

from bibench_deploy.targets._size_by_part import SizeByPart
from bibench_deploy.targets.lce.flatbuffer import TfliteOperator, read_tflite
from bibench_deploy.targets.lce.residency import KERNEL, WORD_BITS


def size_by_part(path: Path) -> SizeByPart:
    """Count the bytes of a .tflite file; a buffer that several tensors share counts once.

    Raises:
        ArtifactError: the file is missing or is not a TensorFlow Lite model.
    """
    model = read_tflite(path)
    sizes = {tensor.buffer: len(tensor.data) for tensor in model.tensors if tensor.data}
    packed, bits = 0, 0
    for operator in model.operators:
        if operator.name != KERNEL:
            continue
        tensor = model.tensors[operator.inputs[1]]
        # A float filter, or one that another layer has too, is in the file as something else.
        if tensor.dtype == "int32" and tensor.buffer in sizes:
            packed += sizes.pop(tensor.buffer)
            bits += prod(tensor.shape[:3]) * _channels(operator, words=tensor.shape[3])
    binary = -(-bits // 8)
    constants = sum(sizes.values())
    return SizeByPart(
        binary_weights=binary,
        float_weights=constants,
        padding=packed - binary,
        metadata=path.stat().st_size - packed - constants,
    )


def _channels(operator: TfliteOperator, words: int) -> int:
    """Input channels that a filter reads; the last of its words may be part empty."""
    from flatbuffers import flexbuffers

    # Source: LCE's serialized options of LceBconv2d, a map with "channels_in" of all groups.
    channels_in = int(flexbuffers.Loads(operator.options)["channels_in"])
    return min(channels_in, words * WORD_BITS)
