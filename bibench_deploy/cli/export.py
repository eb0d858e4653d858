"""`bibench export`: a source becomes a proven artifact."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_deploy.cli._inputs import default_out, find_source, say
from bibench_deploy.cli._terminal import printable

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
    best: Annotated[
        bool,
        typer.Option("--best", help="Of a run, the epoch with the best test accuracy."),
    ] = False,
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
    network = find_source(source, input_shape, is_best=best)
    with redirect_stdout(sys.stderr):  # a module may print while it runs
        artifact = export_source(
            network,
            target=target,
            out=out or default_out(network.name, target),
            baseline=baseline,
            verify=not no_verify,
            progress=say,
        )
    typer.echo(
        json.dumps(artifact.manifest, indent=2) if as_json else printable(summary(artifact)),
        nl=as_json,
    )


def summary(artifact: Artifact) -> str:
    """What was written and what was proved, for people."""
    from bibench_deploy.artifact import TWIN_DIRECTORY, Artifact

    verification = artifact.manifest["verification"]
    residency, parity = verification["residency"], verification["parity"]
    rows = [("size", f"{_kilobytes(artifact)} ({artifact.model_path.name})")]
    if residency["intended"]:
        counts = f"{residency['resident']} of {residency['intended']}"
        rows.append(("residency", f"{counts} binary layers in 1 bit"))
    if parity is None:
        rows.append(("parity", "not checked (--no-verify)"))
    else:
        pairs = (("PyTorch = ONNX", "torch_to_onnx"), ("ONNX = target", "onnx_to_target"))
        rows += [
            ("parity", f"{title}: {_agreement(parity[key], parity['inputs'])}")
            for title, key in pairs
            if parity[key] is not None
        ]
    if (accuracy := verification["accuracy"]) is not None:
        rows.append(("accuracy", _answers(accuracy)))
    rows += [
        (finding["severity"], f"{finding['code']} {finding['layer']}: {finding['message']}")
        for finding in artifact.manifest["findings"]
    ]
    if (artifact.directory / TWIN_DIRECTORY).is_dir():
        twin = Artifact.load(artifact.directory / TWIN_DIRECTORY)
        ratio = twin.size_bytes / artifact.size_bytes
        rows.append(("FP32 twin", f"{_kilobytes(twin)}, {ratio:.1f} times as large"))
    lines = [f"{artifact.directory}: {artifact.name} for {artifact.target}"]
    return "\n".join([*lines, *(f"  {name:<10} {text}" for name, text in rows)]) + "\n"


def _kilobytes(artifact: Artifact) -> str:
    return f"{artifact.size_bytes / 1000:,.1f} kB"


def _agreement(seen: dict[str, Any], inputs: int) -> str:
    alike = round(seen["top1_agreement"] * inputs)
    text = f"{alike} of {inputs} top-1 answers alike, max error {seen['max_abs_error']:.1e}"
    if seen["flip_rate"] is None:
        return text
    if not seen["flip_rate"]:
        return f"{text}, no sign flips"
    # Every flip here is explained: an unexplained one fails the export.
    same = seen["max_abs_error_same_signs"]
    return f"{text} ({same:.1e} on equal signs), {seen['flip_rate']:.1e} of signs within rounding"


def _answers(accuracy: dict[str, Any]) -> str:
    right, images = accuracy["target_correct"], accuracy["images"]
    text = f"{accuracy['target_percent']:.2f} %, {right} of {images} held-out images"
    same = accuracy.get("same_answers")
    return text if same is None else f"{text}; {same} answers as PyTorch's"
