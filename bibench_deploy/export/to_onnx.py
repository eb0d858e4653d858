"""Write a PyTorch module as an .onnx file whose numbers are the module's own."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.artifact import writing
from bibench_deploy.errors import MissingExtraError, SourceError
from bibench_deploy.export.weight_writes import run_and_watch

if TYPE_CHECKING:
    import torch


def export_onnx(
    model: torch.nn.Module, example_input: torch.Tensor, path: Path
) -> torch.export.ExportedProgram:
    """Export a module for inference on inputs of one shape.

    Args:
        model: the module; it is exported in eval mode and left as it was.
        example_input: [1, C, H, W], [1, C, L] or [1, C], float32.
        path: the .onnx file to write.

    Returns:
        What torch traced and then wrote: values in the file keep the names of its nodes.

    Raises:
        SourceError: torch cannot export the module, or its output is not one float32 tensor.
        MissingExtraError: torch or onnxscript is not installed.
    """
    try:
        import onnx_ir as ir
        import onnxruntime  # noqa: F401 - as for the next one
        import onnxscript  # noqa: F401 - torch.onnx.export asks for it late and at length
        import torch
    except ImportError as error:
        raise MissingExtraError("export from PyTorch", str(error.name), "train") from error

    was_training = model.training
    model.eval()
    try:
        with _quiet(), torch.no_grad():
            _check_float32(model)
            output, written = run_and_watch(model, example_input)
            if written:
                raise SourceError(
                    f"{type(model).__name__} changes its own weight {written[0]} while it runs, "
                    "which cannot be exported; compute the binary weight as a tensor of its own: "
                    "conv2d(x, torch.where(self.weight >= 0, 1.0, -1.0), …)"
                )
            _check_output(model, output)
            # The optimiser of torch.onnx rewrites numbers (it deletes small additions, and
            # folds batch norm into ±1 weights), so it stays off.
            with contextlib.redirect_stderr(io.StringIO()):  # there it prints traces that failed
                program: Any = torch.onnx.export(
                    model,
                    (example_input,),
                    dynamo=True,
                    optimize=False,
                    external_data=False,
                    verbose=False,
                    input_names=["input"],
                    output_names=["output"],
                )
    except SourceError:
        raise
    except Exception as error:  # torch raises whatever the module's own code raises
        raise SourceError(f"{type(model).__name__} cannot be exported: {_reason(error)}") from error
    finally:
        model.train(was_training)
    exported: ir.Model = program.model
    _rename_constants(exported)
    _name_by_module(exported)
    _strip_metadata(exported)
    # ONNX Runtime before 1.20 reads files up to this version.
    exported.ir_version = min(exported.ir_version, 10)
    with writing(path):
        ir.save(exported, path)
    traced: torch.export.ExportedProgram = program.exported_program
    return traced


def _check_float32(model: torch.nn.Module) -> None:
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.element_size() != 4:
            raise SourceError(
                f"{type(model).__name__} has weights in {_dtype(tensor)} ({name}); "
                "convert it by .float() first"
            )


def _check_output(model: torch.nn.Module, output: Any) -> None:
    import torch

    name = type(model).__name__
    if not isinstance(output, torch.Tensor):
        # Tuples, dictionaries, data classes: which of the tensors is wanted is not ours to say.
        raise SourceError(
            f"{name} gives a {type(output).__name__}; export a module that gives one tensor: "
            "wrap it in one whose forward returns the tensor you want"
        )
    if output.dtype != torch.float32:
        raise SourceError(
            f"{name} gives {_dtype(output)} numbers; export a module that gives float32, "
            "such as scores in place of classes, or magnitudes in place of complex numbers"
        )


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _reason(error: BaseException) -> str:
    """What went wrong, and the way out where it is a common mistake."""
    chain = error
    while chain.__cause__ is not None:
        chain = chain.__cause__
    if "DataDependent" in type(chain).__name__:
        return (
            "its forward takes a branch that depends on the input's numbers; "
            "compute both sides and choose by torch.where"
        )
    return _cause(error)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first: torch wraps it in advice on its own exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# Operators that hold a module's weights, and so stand for the module itself.
_LAYERS = frozenset(["BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu"])


def _name_by_module(model: Any) -> None:
    """Name nodes by the module that they come from, `layer1.0.conv1`, as users know them."""
    taken: set[str] = set()
    for node in model.graph:
        try:
            *modules, leaf = ast.literal_eval(
                node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
            )
        except (SyntaxError, ValueError):
            continue  # another version of torch says it otherwise, or not at all
        path = str(modules[-1]) if modules else ""
        if not path:
            continue
        name = path if node.op_type in _LAYERS else f"{path}.{leaf}"
        unique, number = name, 1
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique)
        node.name = unique


def _rename_constants(model: Any) -> None:
    """Give names of their own to weights called as a value that is computed: a buffer `mean`.

    Computed values keep theirs, by which they are found in what torch traced.
    """
    graphs = [model.graph, *model.graph.subgraphs()]
    computed = {value.name for graph in graphs for value in graph.inputs}
    computed |= {value.name for graph in graphs for node in graph for value in node.outputs}
    taken = computed.union(*(graph.initializers for graph in graphs))
    for graph in graphs:
        for value in list(graph.initializers.values()):
            if value.name not in computed:
                continue
            unique = value.name
            while unique in taken:
                unique += ".constant"  # no name in a traced program has a dot
            taken.add(unique)
            value.name = unique


def _strip_metadata(model: Any) -> None:
    """Remove names of source files and lines of code, which torch keeps in every node."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on itself, its deprecations and torchvision from the user."""
    loggers = [logging.getLogger("torch"), logging.getLogger("torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
