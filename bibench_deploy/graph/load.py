"""Read an .onnx file into a checked graph whose shapes are known and constants folded.

Every reader of graphs (facts, lint, lowering) starts here, so that all of them see the
same form: no constant sub-graphs, no Identity, no Dropout, a fixed batch of 1.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.fold_constants import constant_of, fold_constants

OLDEST_OPSET = 11
# Numbers of one input: a photograph of 16 megapixels has 48 million.
LARGEST_INPUT = 2**27
# A protobuf message ends at 2 GiB; a larger model keeps its weights in external data.
LARGEST_FILE_BYTES = 2**31 - 1


def load_graph(path: Path) -> ir.Model:
    """Read, check and normalise an ONNX model.

    Args:
        path: an .onnx file, opset 11 or newer, one input of four or two dimensions.

    Returns:
        The model with static shapes, batch 1, constants folded into initializers, and
        without Identity and Dropout nodes. It computes what the file computes.

    Raises:
        GraphError: the file is missing, is not ONNX, fails the checker, is older than
            opset 11, or has a shape that is not static apart from the batch.
    """
    try:
        model = ir.serde.deserialize_model(read_onnx(path))
    except GraphError:
        raise
    except Exception as error:  # whatever a hostile file breaks in the reader, it is the file
        raise GraphError(f"{path}: cannot be read: {_first_line(error)}") from error
    _fix_batch(model, path)
    for node in model.graph:
        node.name = node.name or node.outputs[0].name  # messages and manifests name nodes
    try:
        normalize(model)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error
    return model


def normalize(model: ir.Model) -> None:
    """Fold constants and drop nodes that do nothing, in place; keeps what is computed."""
    while True:
        common_passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)
        is_changed = fold_constants(model)
        _drop_dropout(model)
        _drop_zero_bias(model)
        _drop_zero_sum(model)
        common_passes.IdentityEliminationPass()(model)
        common_passes.RemoveUnusedNodesPass()(model)
        if not is_changed:
            return


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an .onnx file as it is; weights in files beside it come inside.

    Raises:
        GraphError: as `load_graph`, shapes apart.
    """
    if not path.is_file():
        raise GraphError(f"{path}: no such file; name an .onnx file")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise GraphError(f"{path}: larger than 2 GiB, which no protobuf holds")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError has no importable public home
        raise GraphError(f"{path}: not an ONNX file ({error})") from error
    opset = next(
        (entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0
    )
    if not proto.graph.node:
        raise GraphError(f"{path}: not an ONNX model: it holds no node")
    if opset < OLDEST_OPSET:
        raise GraphError(
            f"{path}: opset {opset} is older than {OLDEST_OPSET}; export it with a newer one"
        )
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"{path}: fails the ONNX checker: {_first_line(error)}") from error
    try:
        # Weights beside the file, as torch.onnx.export keeps them, come inside.
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # a data file that is missing, short, or outside the folder
        raise GraphError(
            f"{path}: its external data cannot be read: {_first_line(error)}"
        ) from error
    return proto


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _fix_batch(model: ir.Model, path: Path) -> None:
    """Set a dynamic or other batch size to 1, the only one that the engines run."""
    graph = model.graph
    for value in graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or len(value.shape) == 0:
            raise GraphError(f'{path}: input "{value.name}" has no shape; export it with one')
        dynamic = [str(size) for size in list(value.shape)[1:] if not isinstance(size, int)]
        if dynamic:
            raise GraphError(
                f'{path}: input "{value.name}" has dynamic sizes ({", ".join(dynamic)}); '
                "export the model with fixed sizes"
            )
        sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
        if min(sizes, default=1) < 1 or math.prod(sizes) > LARGEST_INPUT:
            raise GraphError(
                f'{path}: input "{value.name}" has sizes {sizes}, beyond what can be run; '
                "export the model for real images"
            )
        if value.dtype != ir.DataType.FLOAT:
            raise GraphError(
                f'{path}: input "{value.name}" is {value.dtype}; export the model in float32'
            )
        if value.shape[0] != 1:
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
            for other in [*graph.outputs, *(out for node in graph for out in node.outputs)]:
                other.shape = None  # stale: it still names the old batch


def _drop_dropout(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type == "Dropout" and node.domain == "" and node.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
            if len(node.outputs) == 1 or not node.outputs[1].uses():
                model.graph.remove(node, safe=True)


def _drop_zero_sum(model: ir.Model) -> None:
    """Remove the addition of zeros that change no shape: an untrained shift, say."""
    for node in list(model.graph):
        if node.op_type != "Add" or node.domain != "":
            continue
        for index in (0, 1):
            constant, other = constant_of(node.inputs[index]), node.inputs[1 - index]
            is_neutral = constant is not None and not constant.any()
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
