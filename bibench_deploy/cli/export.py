"""`bibench export`: a source becomes a proven artifact."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bibench_deploy.cli._inputs import default_out, find_source, say
from bibench_deploy.cli._layer_table import layer_table
from bibench_deploy.cli._terminal import printable, uncollected

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact

# Less is printed as 0.0 kB.
_LEAST_SAVED_KB = 0.05


@uncollected()
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
        typer.Option(
            help="For a callable: its input as N,C,H,W, N,C,L or N,C, such as 1,3,224,224."
        ),
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
    data: Annotated[
        Path | None,
        typer.Option(help="An .npz file of images and labels to answer; a run brings its own."),
    ] = None,
    allow_unfused_scales: Annotated[
        bool,
        typer.Option(
            "--allow-unfused-scales",
            help="Run scales that the engine cannot fold as float operators, at extra cost.",
        ),
    ] = False,
    input_form: Annotated[
        Literal["plain", "rotated"],
        typer.Option("--input", help="rotated: you turn the image by 180°, if the network is."),
    ] = "plain",
    fully_connected: Annotated[
        Literal["float32", "int8"],
        typer.Option(help="How weights of float fully connected layers are stored."),
    ] = "float32",
    float_storage: Annotated[
        Literal["float32", "float16"], typer.Option(help="How all other float weights are stored.")
    ] = "float32",
    stem: Annotated[
        Literal["float32", "int8"],
        typer.Option(help="How the float convolution of the image runs; int8 is not exact."),
    ] = "float32",
    padding: Annotated[
        Literal["refuse", "exact", "minus-one"],
        typer.Option(
            help="Zero padding on an engine that pads with −1: refuse it, correct the border "
            "(exact), or pad with −1 (minus-one: other outputs)."
        ),
    ] = "refuse",
    allow_mean_shift: Annotated[
        bool,
        typer.Option(
            "--allow-mean-shift",
            help="Fold constants before a sign (ReActNet) where the engine has no place for them.",
        ),
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
    from bibench_deploy.export.source import with_test_set
    from bibench_deploy.targets._target import WriteOptions

    targets.load(target)  # an unknown name ends here, before anything heavy starts
    network = find_source(source, input_shape, is_best=best)
    if data is not None:
        network = with_test_set(network, data)
    with redirect_stdout(sys.stderr):  # a module may print while it runs
        artifact = export_source(
            network,
            target=target,
            out=out or default_out(network.name, target),
            baseline=baseline,
            verify=not no_verify,
            options=WriteOptions(
                allow_unfused_scales=allow_unfused_scales,
                input=input_form,
                fully_connected=fully_connected,
                float_storage=float_storage,
                stem=stem,
                padding=padding,
                allow_mean_shift=allow_mean_shift,
            ),
            progress=say,
        )
    if as_json:
        typer.echo(json.dumps(artifact.manifest, indent=2))
        return
    typer.echo(layer_table(_printable_layers(artifact.manifest["layers"])))
    typer.echo(printable(summary(artifact)), nl=False)


def _printable_layers(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**layer, "name": printable(layer["name"])} for layer in layers]


def summary(artifact: Artifact) -> str:
    """What was written and what was proved, for people."""
    from bibench_deploy.artifact import TWIN_DIRECTORY, Artifact

    manifest = artifact.manifest
    verification = manifest["verification"]
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
    rows += [("storage", line) for line in _storage(manifest)]
    rows += [("padding", line) for line in _padding(verification)]
    rows += [("unfused", line) for line in _unfused(verification.get("unfused_scales"))]
    rows += _input(manifest)
    rows += [
        (finding["severity"], f"{finding['code']} {finding['layer']}: {finding['message']}")
        for finding in manifest["findings"]
    ]
    unproven = manifest.get("unproven", [])
    rows += [("unproven", f"{miss['node']}: {miss['reason']}") for miss in unproven]
    rows += [("note", note) for note in manifest.get("notes", [])]
    if (artifact.directory / TWIN_DIRECTORY).is_dir():
        twin = Artifact.load(artifact.directory / TWIN_DIRECTORY)
        ratio = twin.size_bytes / artifact.size_bytes
        rows.append(("FP32 twin", f"{_kilobytes(twin)}, {ratio:.1f} times as large"))
    lines = [f"{artifact.directory}: {artifact.name} for {artifact.target}"]
    return "\n".join([*lines, *(f"  {name:<10} {text}" for name, text in rows)]) + "\n"


def _storage(manifest: dict[str, Any]) -> list[str]:
    """What smaller storage saves, and what it costs."""
    storage = manifest["verification"].get("storage")
    if storage is None:
        return []
    options = manifest["options"]
    forms, lines = [], []
    if (bits := options["fully_connected"]) != "float32":
        if any(layer["actual_bits"] == 8 for layer in manifest["layers"]):
            forms.append(f"{bits} fully connected")
        else:
            lines.append(f"no float fully connected layer is large enough for {bits}")
    if options["float_storage"] != "float32":
        forms.append(f"{options['float_storage']} storage")
    if options.get("stem", "float32") == "int8":
        if any(layer["kernel"] == "QLinearConv" for layer in manifest["layers"]):
            forms.append("int8 stem")
        else:
            lines.append("no float convolution alone reads the image, so there is no int8 stem")
    if forms:
        saved = (storage["exact_size_bytes"] - storage["size_bytes"]) / 1000
        if abs(saved) < _LEAST_SAVED_KB and "int8 stem" not in forms:  # which saves time
            return [*lines, f"{' and '.join(forms)}: saves nothing here; leave it out"]
        size = f"{abs(saved):,.1f} kB {'smaller' if saved >= 0 else 'larger'}"
        lines.append(f"{' and '.join(forms)}: {size}; {_cost(manifest['verification'])}")
    return lines


def _padding(verification: dict[str, Any]) -> list[str]:
    """What becomes of zero padding that the engine has not."""
    padding = verification.get("padding")
    if padding is None:
        return []
    if padding["mode"] == "exact":
        cost = f"{padding['size_bytes'] / 1000:,.1f} kB and {padding['adds']:,} additions more"
        return [f"zeros kept by a constant at the border of {padding['layers']} layers: {cost}"]
    text = "−1 in place of zeros, so the outputs are others than the source's"
    accuracy, cost = verification["accuracy"], padding["cost"]
    before = None
    if accuracy is not None:
        before = accuracy.get("torch_correct", accuracy.get("onnx_correct"))
    if accuracy is not None and before is not None:
        percent = 100 * before / accuracy["images"]
        after = accuracy["target_percent"]
        return [f"{text}: {percent:.2f} → {after:.2f} % on {accuracy['images']} images"]
    if cost is None:
        return [f"{text}; by how much was not measured (--no-verify)"]
    return [f"{text}: {_changed_outputs(cost)}"]


def _unfused(cost: dict[str, Any] | None) -> list[str]:
    """What scales cost that run as float operators behind their layers."""
    if cost is None:
        return []
    extra = ", ".join(f"{count} {name}" for name, count in cost["extra_operators"].items())
    text = f"{cost['layers']} scales run as float operators ({extra} more)"
    return [f"{text}: {cost['latency_ratio']:.2f} times the latency without them"]


def _cost(verification: dict[str, Any]) -> str:
    cost, exact = verification["storage"]["cost"], verification["storage"]["exact_accuracy"]
    if cost is None:
        return "what it costs was not measured (--no-verify)"
    if exact is not None:
        now = verification["accuracy"]["target_percent"]
        return f"{exact['target_percent']:.2f} → {now:.2f} % on {exact['images']} images"
    return _changed_outputs(cost)


def _changed_outputs(cost: dict[str, Any]) -> str:
    """What a change that is not exact does to the answers on random inputs."""
    alike = round(cost["top1_agreement"] * cost["inputs"])
    flips = "" if cost["flip_rate"] is None else f", {100 * cost['flip_rate']:.2g} % of signs flip"
    return (
        f"{alike} of {cost['inputs']} top-1 answers on random inputs as before, outputs off by "
        f"{100 * cost['max_relative_error']:.2g} %{flips}; for its accuracy give --data FILE.npz"
    )


def _input(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    if manifest.get("options", {}).get("input") != "rotated":
        return []
    if manifest["input"]["rotated"]:
        return [("input", "turn each image by 180° before it goes in")]
    return [("input", "plain: this network has nothing to rotate")]


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
