"""What is in a model file of the target native: layers, shapes, bits, and where its bytes go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from bibench_deploy.errors import ArtifactError
from bibench_deploy.graph.description import FileDescription, LayerDescription, padding_text
from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.load import quiet
from bibench_deploy.targets._size_by_part import SizeByPart
from bibench_deploy.targets.native.operators import BINARY_CONV, DOMAIN, FLOAT_STEM, is_own

_WEIGHTED = ("Conv", "Gemm", "MatMul")
# Where a QLinearConv has its weight.
_INT8_WEIGHT = 3


def is_native_file(path: Path) -> bool:
    """Whether a file is an ONNX model with operators of the library; False for no ONNX model."""
    try:
        return any(entry.domain == DOMAIN for entry in _read(path).opset_import)
    except ArtifactError:
        return False


def describe_native(path: Path) -> FileDescription:
    """Describe a model file of this target, as it is.

    Raises:
        ArtifactError: it cannot be read.
    """
    with _reading(path) as model:
        counted: set[ir.Value] = set()
        layers = []
        for node in model.graph:
            own = {v for v in node.inputs if v is not None and v.const_value is not None} - counted
            counted |= own
            layers.append(_describe(node, sum(_bytes_of(value) for value in own)))
        inputs = [value for value in model.graph.inputs if not value.is_initializer()]
        return FileDescription(
            format=f"ONNX, opset {model.opset_imports.get('', 0)}, with operators of {DOMAIN}",
            size_bytes=path.stat().st_size,
            inputs={str(value.name): shape_of(value) for value in inputs},
            outputs={str(value.name): shape_of(value) for value in model.graph.outputs},
            layers=tuple(layers),
        )


def size_by_part(path: Path) -> SizeByPart:
    """Count the bytes of a model file; channels fill their last byte with padding."""
    binary = padding = 0
    with _reading(path) as model:
        for node in model.graph:
            packed = constant_of(node.inputs[1]) if is_own(node, BINARY_CONV) else None
            if packed is None:
                continue
            channels = _channels_per_group(node)
            stored, used = packed.nbytes, packed.size // packed.shape[-1] * channels // 8
            binary, padding = binary + used, padding + stored - used
        constants = sum(_bytes_of(value) for value in model.graph.initializers.values())
    floats = constants - binary - padding
    return SizeByPart(binary, floats, padding, path.stat().st_size - constants)


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # protobuf's own classes, whatever is wrong with the file
        raise ArtifactError(f"{path}: not an ONNX model") from error


@contextmanager
def _reading(path: Path) -> Iterator[ir.Model]:
    """The model as the file has it, without what `load_graph` makes of one.

    Raises:
        ArtifactError: the file is no model, or a damaged one.
    """
    try:
        with quiet():
            yield ir.from_proto(_read(path))
    except ArtifactError:
        raise
    except Exception as error:  # whatever a damaged file breaks in its reader, it is the file
        raise ArtifactError(f"{path}: a damaged ONNX model; export it again") from error


def _describe(node: ir.Node, size: int) -> LayerDescription:
    is_binary = is_own(node, BINARY_CONV)
    is_int8 = node.op_type == "QLinearConv" and len(node.inputs) > _INT8_WEIGHT
    is_layer = is_binary or is_int8 or is_own(node, FLOAT_STEM) or node.op_type in _WEIGHTED
    place = _INT8_WEIGHT if is_int8 else 1
    array = constant_of(node.inputs[place]) if is_layer and len(node.inputs) > place else None
    weight = None if array is None else array.shape
    if is_binary and weight is not None:
        outputs, height, width, _ = weight
        weight = (outputs, height, width, _channels_per_group(node))
    pads = tuple(node.attributes.get_ints("pads") or ())
    pad_value = node.attributes.get_int("pad_value", 0) if is_binary else None
    return LayerDescription(
        name=str(node.name or ""),  # bytes where it is no UTF-8
        operator=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        inputs=tuple(shape_of(v) for v in node.inputs if v is not None and constant_of(v) is None),
        outputs=tuple(shape_of(value) for value in node.outputs if value.name),
        weight=weight,
        padding=padding_text(pads, None if pad_value is None else float(pad_value)),
        bits=None if array is None else 1 if is_binary else 8 * array.dtype.itemsize,
        is_binary=is_binary,
        size_bytes=size,
    )


def _channels_per_group(node: ir.Node) -> int:
    return node.attributes.get_int("input_channels", 0) // node.attributes.get_int("group", 1)


def _bytes_of(value: ir.Value) -> int:
    array = constant_of(value)
    return 0 if array is None else int(array.nbytes)
