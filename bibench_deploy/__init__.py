"""Take a binarized network from PyTorch or ONNX to a measured result on a device.

import bibench_deploy as bibench

artifact = bibench.export_model(model, torch.zeros(1, 3, 32, 32), target="lce", out="out/mine")
small = bibench.WriteOptions(float_storage="float16")  # for export_model(…, options=small)
result = bibench.lint_model("model.onnx", target="lce")
run = bibench.profile_artifact(artifact.directory, threads=(1, 2))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from bibench_deploy.artifact import Artifact
    from bibench_deploy.lint.runner import LintResult
    from bibench_deploy.profiling.session import ProfileRun
    from bibench_deploy.targets._target import WriteOptions

__all__ = ["WriteOptions", "export_model", "lint_model", "profile_artifact"]


def __getattr__(name: str) -> Any:
    # Late, because it stands beside classes that need numpy.
    if name == "WriteOptions":
        from bibench_deploy.targets._target import WriteOptions

        return WriteOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def export_model(
    model: torch.nn.Module,
    example_input: torch.Tensor,
    *,
    target: str = "lce",
    out: Path | str,
    name: str | None = None,
    baseline: bool = False,
    verify: bool = True,
    options: WriteOptions | None = None,
) -> Artifact:
    """Export a PyTorch module to a target, and prove that the result computes the same.

    Args:
        model: any module whose binarization is recognised; bibench's own layers are
            hardened first.
        example_input: [1, C, H, W], [1, C, L] or [1, C], float32; only its shape counts.
        target: name of the target.
        out: folder of the artifact; an artifact that is there is replaced, if nothing else is.
        name: what the artifact is called; the class name unless given.
        baseline: whether to write the FP32 twin to `out`/fp32 too.
        verify: whether to prove parity; residency is proved always.
        options: what to choose of the file, such as `WriteOptions(float_storage="float16")`;
            the exact, plain one unless given.

    Raises:
        LoweringError: the target cannot hold the model; names every layer in the way.
        ConversionError: the engine's converter failed, or a binary layer became float.
        ParityError: the result does not compute what the module computes.
    """
    from bibench_deploy.export.pipeline import export_source
    from bibench_deploy.export.source import from_module
    from bibench_deploy.targets._target import DEFAULT_OPTIONS

    source = from_module(model, tuple(example_input.shape), name or type(model).__name__)
    return export_source(
        source,
        target=target,
        out=Path(out),
        baseline=baseline,
        verify=verify,
        options=options or DEFAULT_OPTIONS,
    )


def lint_model(
    model: Path | str | torch.nn.Module,
    example_input: torch.Tensor | None = None,
    *,
    target: str = "lce",
    options: WriteOptions | None = None,
) -> LintResult:
    """Check whether a network can be deployed.

    Args:
        model: an .onnx file, for which neither torch nor TensorFlow is imported; or a module.
        example_input: of a module, as for `export_model`; only its shape counts.
        target: name of the target.
        options: what would be chosen at the export, such as
            `WriteOptions(allow_unfused_scales=True)`.

    Returns:
        What was found, for every rule. Settings of pyproject.toml are the command line's.

    Raises:
        GraphError: the file cannot be read as an ONNX model.
        SourceError: torch cannot export the module.
    """
    from bibench_deploy import targets
    from bibench_deploy.lint.runner import lint_file
    from bibench_deploy.targets._target import DEFAULT_OPTIONS

    chosen = [targets.load(target)], options or DEFAULT_OPTIONS
    if isinstance(model, (str, Path)):
        return lint_file(Path(model), *chosen)[0]

    import tempfile

    from bibench_deploy.export.pipeline import write_onnx
    from bibench_deploy.export.source import from_module
    from bibench_deploy.lint.soft_weights import soft_weights
    from bibench_train.errors import NotBinaryError

    if example_input is None:
        raise TypeError("lint_model needs example_input for a module: its shape")
    source = from_module(model, tuple(example_input.shape), type(model).__name__)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            write_onnx(source, path)
        except NotBinaryError as error:
            return soft_weights(chosen[0][0], str(error))
        return lint_file(path, *chosen)[0]


def profile_artifact(
    directory: Path | str,
    *,
    device: str = "local",
    threads: Sequence[int] = (1, 2),
    preset: str = "quick",
    out: Path | None = None,
) -> ProfileRun:
    """Measure an exported folder, and its FP32 twin if it holds one, on a device.

    Raises:
        ArtifactError: the folder is no artifact, or its files are not those exported.
        DeviceError: the device cannot be reached, or a run on it failed.
    """
    from bibench_deploy.profiling.session import profile_artifacts

    return profile_artifacts([Path(directory)], device, threads, preset, out)
