"""Read an .onnx file into a checked graph whose shapes are known and constants folded.

Every reader of graphs (facts, lint, lowering) starts here, so that all of them see the
same form: no constant sub-graphs, no Identity, no Dropout, a fixed batch of 1.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from bibench_deploy.errors import GraphError, UnfitGraphError
from bibench_deploy.graph.ceil_mode import drop_idle_windows
from bibench_deploy.graph.check_shapes import check_shapes
from bibench_deploy.graph.comparisons import compare_with_zero
from bibench_deploy.graph.fold_constants import constant_of, fold_constants
from bibench_deploy.graph.masked_writes import replace_masked_writes
from bibench_deploy.graph.padded_signs import pad_after_sign
from bibench_deploy.graph.qonnx import DOMAINS as QONNX_DOMAINS
from bibench_deploy.graph.qonnx import replace_qonnx
from bibench_deploy.graph.split_sequences import replace_split_sequences

OLDEST_OPSET = 11
# Numbers of one input: a photograph of 16 megapixels has 48 million.
LARGEST_INPUT = 2**27
# A protobuf message ends at 2 GiB; a larger model keeps its weights in external data.
LARGEST_FILE_BYTES = 2**31 - 1
_NOTES = "bibench.notes"


def load_graph(path: Path) -> ir.Model:
    """Read, check and normalise an ONNX model.

    Args:
        path: an .onnx file, opset 11 or newer, one input of four, three or two dimensions.

    Returns:
        The model with static shapes, batch 1, constants folded into initializers, local
        functions and QONNX's quantizers written out in standard operators, each node and
        value with a name of its own, and without nodes that do nothing and foreign metadata.
        It computes what the file computes, for finite numbers. What was changed on the way
        and matters to a user is in `notes`.

    Raises:
        UnfitGraphError: the file is sound, and is older than opset 11 or newer than all that
            are known, or has a shape that is not static apart from the batch.
        GraphError: the file is missing, is not ONNX, fails the checker, has a shape that is
            beyond what can be run, or gives a constant.
    """
    try:
        with quiet():
            model = ir.serde.deserialize_model(read_onnx(path))
        common_passes.ClearMetadataAndDocStringPass()(model)
        model.metadata_props.clear()
        _read_constants(model)
        _make_constants_of_defaults(model)
        _fix_batch(model)
        for node in model.graph:
            node.name = node.name or node.outputs[0].name  # messages and manifests name nodes
        _forget_shapes(model)
        _check_with_batch(model)
    except UnfitGraphError as error:
        raise error.at(f"{path}: ") from error
    except GraphError as error:
        text = str(error)
        raise GraphError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except Exception as error:  # whatever a hostile file breaks in the reader, it is the file
        raise GraphError(
            f"{path}: cannot be read ({_first_line(error)}); export the model again"
        ) from error
    return model


def _check_with_batch(model: ir.Model) -> None:
    names = [value.name for value in model.graph.outputs]
    try:
        normalize(model)
        check_shapes(model)
        _check_outputs(model, names)
    except UnfitGraphError:
        raise  # it is so whatever the batch
    except GraphError as error:
        batch = "; ".join(notes(model))
        if not batch:
            raise
        raise GraphError(f"{error} ({batch}: export it for a batch of 1)") from error


def _check_outputs(model: ir.Model, names: list[str | None]) -> None:
    """Refuse a graph that computes nothing; a constant beside an output is for targets to judge."""
    if names and all(constant_of(value) is not None for value in model.graph.outputs):
        raise GraphError(
            f'output "{names[0]}" does not depend on the input; '
            "export a model that computes it from what it is fed"
        )


def notes(model: ir.Model) -> tuple[str, ...]:
    """What `load_graph` changed that a user should know of, one sentence each."""
    return tuple(model.metadata_props.get(_NOTES, "").splitlines())


def normalize(model: ir.Model) -> None:
    """Fold constants and drop nodes that do nothing, in place; keeps what is computed."""
    names = [value.name for value in model.graph.outputs]
    while True:
        common_passes.NameFixPass()(model)  # shapes are found by name
        with quiet():
            _infer_shapes(model)
        if drop_idle_windows(model.graph):
            continue
        is_changed = fold_constants(model)
        is_changed = replace_split_sequences(model) or is_changed
        is_changed = replace_masked_writes(model) or is_changed
        is_changed = compare_with_zero(model) or is_changed
        is_changed = pad_after_sign(model) or is_changed
        _drop_dropout(model)
        _drop_zero_bias(model)
        _drop_neutral(model)
        common_passes.IdentityEliminationPass()(model)
        common_passes.RemoveUnusedNodesPass()(model)
        if not is_changed:
            name_outputs(model, names)
            return


def name_outputs(model: ir.Model, names: list[str | None]) -> None:
    """Give the outputs back their names, which rewriting takes; no other value keeps one of them.

    What is given twice has an Identity; an input or a constant that is given keeps its own name.

    Args:
        model: the graph.
        names: of its outputs, in order.
    """
    outputs = model.graph.outputs
    for index, (value, name) in enumerate(zip(list(outputs), names, strict=True)):
        if value in outputs[:index]:
            same = ir.node("Identity", [value], name=name)
            model.graph.append(same)
            outputs[index] = same.outputs[0]
            outputs[index].shape, outputs[index].type = value.shape, value.type
        if outputs[index].producer() is not None:
            outputs[index].name = name
    common_passes.NameFixPass()(model)


def _infer_shapes(model: ir.Model) -> None:
    is_changed = True
    while is_changed:
        common_passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)
        is_changed = False
        for node in model.graph:
            # ONNX infers no shape for this one, and for nothing behind it.
            if node.op_type == "GroupNormalization" and node.domain == "":
                source, output = node.inputs[0], node.outputs[0]
                if source is not None and source.shape is not None and output.shape is None:
                    output.shape, output.type = source.shape, source.type
                    is_changed = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what onnx-ir logs of a damaged file off the screen: it ends in one line of ours."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an .onnx file; it computes the same after it.

    Weights in files beside it come inside, local functions and QONNX's quantizers are
    written out in standard operators: ONNX Runtime then runs it.

    Raises:
        GraphError: as `load_graph`, shapes apart.
    """
    if path.is_dir():
        raise GraphError(f"{path}: a folder, not a file; name the .onnx file in it")
    if not path.is_file():
        raise GraphError(f"{path}: no such file; name an .onnx file")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise GraphError(f"{path}: larger than 2 GiB, which no protobuf holds")
    try:
        content = path.read_bytes()
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError has no importable public home
        raise GraphError(f"{path}: not an ONNX file ({error})") from error
    opset = next(
        (entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0
    )
    if not proto.graph.node:
        raise GraphError(f"{path}: not an ONNX model: it holds no node")
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise UnfitGraphError(
            "untested-opset",
            f"opset {opset} is newer than all that are known here, up to {newest}",
            "export the model with opset_version=21 or less",
            f"{path}: ",
        )
    if opset < OLDEST_OPSET:
        raise UnfitGraphError(
            "old-opset",
            f"opset {opset} is older than {OLDEST_OPSET}",
            "export it with a newer one",
            f"{path}: ",
        )
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            if _lacks_shape(value):
                raise GraphError(
                    f'{path}: {kind} "{value.name}" has no shape; '
                    "export the model with the shapes of its inputs and outputs"
                )
    try:
        # Of a path the checker reads the file again; only data beside the file needs that.
        onnx.checker.check_model(str(path) if _external_bytes(proto) else content)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(
            f"{path}: fails the ONNX checker: {_first_line(error)}; export the model again"
        ) from error
    del content
    if (size := _external_bytes(proto)) > LARGEST_FILE_BYTES:
        raise UnfitGraphError(
            "file-size",
            f"its weights are {size / 2**30:.1f} GiB, and no engine's file holds more than 2",
            "make the layers that stay in float smaller",
            f"{path}: ",
        )
    try:
        # Weights beside the file, as torch.onnx.export keeps them, come inside.
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # a data file that is missing, short, or outside the folder
        raise GraphError(
            f"{path}: its external data cannot be read: {_first_line(error)}"
        ) from error
    if not proto.functions and not any(node.domain in QONNX_DOMAINS for node in proto.graph.node):
        return proto
    try:
        return _in_standard_operators(proto)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error
    except Exception as error:  # whatever a hostile file breaks in the reader, it is the file
        raise GraphError(
            f"{path}: cannot be read ({_first_line(error)}); export the model again"
        ) from error


def _external_bytes(proto: onnx.ModelProto) -> int:
    """How much of the weights lies in other files, by what the file says of their sizes."""
    external = onnx.TensorProto.EXTERNAL
    return sum(
        math.prod(tensor.dims) * _size_of(tensor.data_type)
        for tensor in proto.graph.initializer
        if tensor.data_location == external
    )


def _size_of(data_type: int) -> int:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:  # a type that there is none of: the checker has a word for it
        return 1


def _lacks_shape(value: onnx.ValueInfoProto) -> bool:
    """Whether the checker would refuse the value for it, without a word on which value."""
    if value.type.WhichOneof("value") is None:
        return True
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")


def _in_standard_operators(proto: onnx.ModelProto) -> onnx.ModelProto:
    with quiet():
        model = ir.serde.deserialize_model(proto)
    _make_constants_of_defaults(model)
    common_passes.InlinePass()(model)
    replace_qonnx(model)
    common_passes.NameFixPass()(model)
    return ir.serde.serialize_model(model)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _make_constants_of_defaults(model: ir.Model) -> None:
    """Take weights off the list of inputs, where old exporters and Brevitas put them too."""
    common_passes.RemoveInitializersFromInputsPass()(model)
    # Before version 4 of the format they had to be there.
    model.ir_version = max(model.ir_version, 4)


def _read_constants(model: ir.Model) -> None:
    """Decode every constant once: a damaged one ends here, and nobody decodes it again."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            continue
        try:
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
        except Exception as error:  # whatever does not fit: bytes, sizes, types
            raise GraphError(
                f'constant "{value.name}" is damaged: its bytes do not fill its shape '
                f"{list(tensor.shape)}; export the model again"
            ) from error


def _fix_batch(model: ir.Model) -> None:
    """Set a dynamic or other batch size to 1, the only one that the engines run."""
    graph = model.graph
    for value in graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or len(value.shape) == 0:
            raise GraphError(f'input "{value.name}" has no shape; export it with one')
        dynamic = [str(size) for size in list(value.shape)[1:] if not isinstance(size, int)]
        if dynamic:
            raise UnfitGraphError(
                "dynamic-shape",
                f'input "{value.name}" has dynamic sizes ({", ".join(dynamic)})',
                "export the model with fixed sizes",
            )
        sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
        if min(sizes, default=1) < 1 or math.prod(sizes) > LARGEST_INPUT:
            raise GraphError(
                f'input "{value.name}" has sizes {sizes}, beyond what can be run; '
                "export the model for real images"
            )
        if value.dtype != ir.DataType.FLOAT:
            raise UnfitGraphError(
                "tensor-type",
                f'input "{value.name}" is {value.dtype}',
                "export the model in float32",
            )
        is_image = value is graph.inputs[0] or not isinstance(value.shape[0], int)
        if value.shape[0] != 1 and is_image:
            text = f'input "{value.name}": its batch of {value.shape[0]} became 1'
            model.metadata_props[_NOTES] = "\n".join([*notes(model), text])
            value.shape = ir.Shape([1, *list(value.shape)[1:]])


def _forget_shapes(model: ir.Model) -> None:
    """Drop the shapes that the file tells of: they may name another batch, or be wrong."""
    for node in model.graph:
        for value in node.outputs:
            if node.domain == "":
                value.shape = None


def _drop_dropout(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type == "Dropout" and node.domain == "" and node.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
            if len(node.outputs) == 1 or not node.outputs[1].uses():
                model.graph.remove(node, safe=True)


# Operator: the number that changes nothing, and the operands where it does not.
_NEUTRAL = {"Add": (0, (0, 1)), "Sub": (0, (1,)), "Mul": (1, (0, 1)), "Div": (1, (1,))}


def _drop_neutral(model: ir.Model) -> None:
    """Remove x + 0, x − 0, x · 1 and x / 1 that change no shape: an untrained shift, say."""
    for node in list(model.graph):
        if node.op_type not in _NEUTRAL or node.domain != "":
            continue
        number, operands = _NEUTRAL[node.op_type]
        for index in operands:
            constant, other = constant_of(node.inputs[index]), node.inputs[1 - index]
            is_neutral = constant is not None and bool((constant == number).all())
            if is_neutral and other is not None and other.shape == node.outputs[0].shape:
                node.outputs[0].replace_all_uses_with(other, replace_graph_outputs=True)
                model.graph.remove(node, safe=True)
                break


def _drop_zero_bias(model: ir.Model) -> None:
    """Remove a convolution's bias of zeros: torch writes one for every Conv without a bias."""
    for node in model.graph:
        if node.op_type == "Conv" and len(node.inputs) == 3 and node.inputs[2] is not None:
            bias = constant_of(node.inputs[2])
            if bias is not None and not bias.any():
                node.resize_inputs(2)
