"""`bibench export`: a source becomes a proven artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bibench_deploy.cli._inputs import default_out, find_source, say

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact


def export(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A run folder, models/<name>, an .onnx file or package.module:callable; "
            "the latest run in ./runs unless given."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="The runtime to write for.")] = "lce",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; out/<name>-<target> unless given.")
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help="For a callable: its input as N,C,H,W, such as 1,3,224,224."),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Write the FP32 twin to <out>/fp32 too.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip parity; residency is proved always.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the manifest on stdout instead of a summary.")
    ] = False,
) -> None:
    """Export a network to a runtime and prove that the result computes the same.

    Example: [bold]bibench export models/digits-resnet20-reactnet --target lce --baseline[/bold]
    """
    from bibench_deploy import targets
    from bibench_deploy.export.pipeline import export_source

    targets.load(target)  # an unknown name ends here, before anything heavy starts
    network = find_source(source, input_shape)
    artifact = export_source(
        network,
        target=target,
        out=out or default_out(network.name, target),
        baseline=baseline,
        verify=not no_verify,
        progress=say,
    )
    typer.echo(
        json.dumps(artifact.manifest, indent=2) if as_json else summary(artifact), nl=as_json
    )


def summary(artifact: Artifact) -> str:
    """What was written and what was proved, for people."""
    from bibench_deploy.artifact import TWIN_DIRECTORY, Artifact

    manifest = artifact.manifest
    verification = manifest["verification"]
    residency = verification["residency"]
    lines = [
        f"{artifact.directory}: {artifact.name} for {artifact.target}",
        f"  size       {artifact.size_bytes / 1000:,.1f} kB ({artifact.model_path.name})",
        f"  residency  {residency['resident']} of {residency['intended']} binary layers in 1 bit",
    ]
    parity = verification["parity"]
    if parity is None:
        lines.append("  parity     not checked (--no-verify)")
    else:
        for title, key in (
            ("PyTorch = ONNX", "torch_to_onnx"),
            ("ONNX = target", "onnx_to_target"),
        ):
            seen = parity[key]
            if seen is not None:
                flips = seen["flip_rate"]
                same = seen["max_abs_error_same_signs"]
                lines.append(
                    f"  parity     {title}: max error {seen['max_abs_error']:.1e}"
                    + ("" if not flips else f" ({same:.1e} on the same signs)")
                    + ("" if flips is None else f", flip rate {flips:.1e}")
                    + f", top-1 agreement {seen['top1_agreement']:.0%} on {parity['inputs']} inputs"
                )
    accuracy = verification["accuracy"]
    if accuracy is not None:
        right, images = accuracy["target_correct"], accuracy["images"]
        line = (
            f"  accuracy   {accuracy['target_percent']:.2f} % ({right} of {images} held-out images)"
        )
        same = accuracy.get("same_answers")
        lines.append(line + ("" if same is None else f", {same} answers as PyTorch's"))
    for finding in manifest["findings"]:
        lines.append(
            f"  {finding['severity']}    {finding['code']} {finding['layer']}: {finding['message']}"
        )
    if (artifact.directory / TWIN_DIRECTORY).is_dir():
        twin = Artifact.load(artifact.directory / TWIN_DIRECTORY)
        ratio = twin.size_bytes / artifact.size_bytes
        lines.append(f"  FP32 twin  {twin.size_bytes / 1000:,.1f} kB, {ratio:.1f} times as large")
    return "\n".join(lines) + "\n"
