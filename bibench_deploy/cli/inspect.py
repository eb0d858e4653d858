"""`bibench inspect`: what is in a model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bibench_deploy.cli._layer_table import columns, cut
from bibench_deploy.cli._terminal import printable

if TYPE_CHECKING:
    from bibench_deploy.graph.description import FileDescription, LayerDescription

_TITLES = ("layer", "operator", "input", "output", "weights", "padding", "bits", "bytes")
# Columns of text are flush left, those of numbers flush right.
_FLUSH_LEFT = 6
_LONGEST_NAME = 40


def inspect(
    file: Annotated[
        Path, typer.Argument(help="A .dab, .tflite or .onnx file, or a folder of bibench export.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all of it on stdout as JSON.")
    ] = False,
) -> None:
    """Show the layers, shapes, padding, bits and sizes of a model file.

    Example: [bold]bibench inspect out/resnet18-dabnn/model.dab[/bold]
    """
    described = _describe(file)
    if as_json:
        typer.echo(json.dumps(described.to_json(), indent=2))
    else:
        typer.echo(printable(_text(file, described)), nl=False)


def _describe(file: Path) -> FileDescription:
    from bibench_deploy import targets
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.errors import ArtifactError

    if not file.exists():
        raise ArtifactError(f"{file}: no such file or folder; name a model file, or an export")
    if file.is_dir():
        file = Artifact.load(file).model_path
    every = [targets.load(name) for name in targets.names()]
    readers = [target for target in every if target.suffix == file.suffix.lower() != ""]
    if not readers:
        kinds = ", ".join(sorted({target.suffix for target in every if target.suffix}))
        raise ArtifactError(f"{file}: no model file that bibench reads; name one of {kinds}")
    return next(target for target in readers if target.wrote(file)).describe(file)


def _text(file: Path, described: FileDescription) -> str:
    rows = [_TITLES, *(_row(layer) for layer in described.layers)]
    totals = described.to_json()
    sizes = f"{totals['binary_bytes']:,} bytes binary, {totals['float_bytes']:,} other"
    tensors = [
        f"{kind} {name} {_size(shape)}"
        for kind, values in (("input", described.inputs), ("output", described.outputs))
        for name, shape in values.items()
    ]
    lines = [
        f"{file}: {described.format}, {described.size_bytes:,} bytes",
        *(f"  {text}" for text in tensors),
        f"  {len(described.layers)} layers, {totals['binary_layers']} of them binary: {sizes}",
    ]
    return "\n".join(lines) + "\n\n" + columns(rows, _FLUSH_LEFT)


def _row(layer: LayerDescription) -> tuple[str, ...]:
    return (
        cut(layer.name, _LONGEST_NAME),
        layer.operator,
        " ".join(_size(shape) for shape in layer.inputs),
        " ".join(_size(shape) for shape in layer.outputs),
        "" if layer.weight is None else _size(layer.weight),
        layer.padding,
        _bits(layer.bits, layer.is_binary),
        f"{layer.size_bytes:,}" if layer.size_bytes else "",
    )


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(number) for number in shape) or "?"


def _bits(bits: int | None, is_binary: bool) -> str:
    if bits is None:
        return ""
    return f"{bits} for ±1" if is_binary and bits != 1 else str(bits)
