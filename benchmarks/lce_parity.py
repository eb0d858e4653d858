"""Hold PyTorch, ONNX Runtime and LCE against each other, for every algorithm and architecture.

`python -m benchmarks.lce_parity` writes a line for each case to docs/lce-parity.csv and skips
those that are there; 40 seeded inputs each. ResNets at 32, 33 and 65 are in the CIFAR form, at
224 in the ImageNet form where there is one. Promise: no unexplained flip. XNOR-Net and
XNOR-Net++ take part with their unfused scales. One process, one thread: about two hours.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_train import algorithms  # noqa: TID253 - lists names; imports no torch
from bibench_train.training.atomic import write_atomically  # noqa: TID253 - imports no torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir
    import torch

    from bibench_deploy.targets._target import Target, WriteOptions, Writer
    from bibench_deploy.verify.parity import Comparison, Parity

OUT = Path("docs/lce-parity.csv")
SIZES = {"resnet18": (32, 33, 65, 224), "resnet34": (32, 33, 65, 224),
         "resnet20": (32, 33, 65, 224), "vgg_small": (32,)}  # fmt: skip
IMAGENET = ("resnet18", "resnet34")
INPUTS = 40
SEED = 1
EPOCHS = 200


@dataclass(frozen=True, order=True)
class Row:
    """One case; the field names are the columns of the CSV."""

    algorithm: str
    architecture: str
    size: int
    inputs: int
    signs: int
    """How many were compared, PyTorch with ONNX Runtime and that with LCE together."""
    flips: int
    unexplained: int
    max_error: float
    """Largest difference of an output on the same signs."""
    top1_agreement: float
    """Share of inputs on which LCE's top answer is ONNX Runtime's."""
    seconds: float
    failure: str = ""
    """Why the case was not finished, else empty."""


Key = tuple[str, str, int]
"""Algorithm, architecture and size."""
Rows = dict[Key, Row]


@dataclass(frozen=True)
class Options:
    """Which cases, and where their lines go."""

    algorithms: tuple[str, ...]
    architectures: tuple[str, ...]
    sizes: tuple[int, ...]
    inputs: int
    out: Path

    @property
    def keys(self) -> list[Key]:
        """The cases, the quick ones first."""
        chosen = [
            (algorithm, architecture, size)
            for architecture in self.architectures
            for size in SIZES[architecture]
            if size in self.sizes
            for algorithm in self.algorithms
        ]
        return sorted(chosen, key=lambda key: key[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that are missing; 1 where a promise is broken."""
    options = parse(arguments)
    rows = read_rows(options.out)
    missing = [key for key in options.keys if key not in rows or rows[key].failure]
    if missing:
        from bibench_deploy.targets.lce import TARGET

        with TARGET.open_writer() as writer:
            for number, key in enumerate(missing, start=1):
                rows[key] = run_case(key, options.inputs, writer)
                write_rows(options.out, rows.values())
                print(f"{number}/{len(missing)} {line(rows[key])}", flush=True)
    chosen = [rows[key] for key in options.keys]
    print(summary(chosen))
    return 0 if all(is_kept(row) for row in chosen) else 1


def parse(arguments: Sequence[str] | None) -> Options:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lce_parity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = algorithms.names()
    parser.add_argument("--algorithms", nargs="+", choices=names, default=names)
    parser.add_argument("--architectures", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--sizes", nargs="+", type=int, default=sorted({*sum(SIZES.values(), ())}))
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--out", type=Path, default=OUT)
    found = parser.parse_args(arguments)
    return Options(
        tuple(found.algorithms), tuple(found.architectures), tuple(found.sizes),
        found.inputs, found.out,
    )  # fmt: skip


def run_case(key: Key, inputs: int, writer: Writer) -> Row:
    """Export one network for LCE and compare all inputs."""
    from bibench_deploy.errors import DeployError

    begun_at = time.perf_counter()
    row = Row(*key, 0, 0, 0, 0, 0.0, 1.0, 0.0)
    try:
        row = _compared(row, inputs, writer)
    except DeployError as error:
        failure = " ".join(str(error).split())
        row = replace(row, unexplained=unexplained_in(failure), failure=failure)
    return replace(row, seconds=round(time.perf_counter() - begun_at, 1))


def _compared(row: Row, inputs: int, writer: Writer) -> Row:
    from bibench_deploy import targets
    from bibench_deploy.targets._target import WriteOptions

    options = WriteOptions(allow_unfused_scales=True)
    with tempfile.TemporaryDirectory() as folder:
        key = (row.algorithm, row.architecture, row.size)
        exported = export_once(key, inputs, Path(folder) / "model.onnx")
        by_lce = exported.compare_with(targets.load("lce"), writer, Path(folder), options)
    by_torch = exported.by_torch
    layers = (*by_torch.layers, *by_lce.layers)
    errors = [parity.max_abs_error_same_signs or 0.0 for parity in (by_torch, by_lce)]
    return replace(
        row,
        inputs=inputs,
        signs=sum(layer.signs for layer in layers),
        flips=sum(layer.flips for layer in layers),
        max_error=max(errors),
        top1_agreement=by_lce.top1_agreement,
    )


@dataclass(frozen=True)
class Exported:
    """A network that was written as ONNX, to be compared with any number of targets.

    Attributes:
        graph: what was written.
        images: the inputs, [N, 3, size, size].
        comparison: of the graph on these inputs.
        by_torch: how PyTorch compares with the graph.
    """

    graph: ir.Model
    images: npt.NDArray[np.float32]
    comparison: Comparison
    by_torch: Parity

    def compare_with(
        self, target: Target, writer: Writer, folder: Path, options: WriteOptions
    ) -> Parity:
        """Write the graph for a target into a folder, and compare what that computes.

        Raises:
            DeployError: the target cannot write it, or computes something else.
        """
        from bibench_deploy.graph.facts import binary_convs
        from bibench_deploy.verify.parity import Observation

        written = writer.write(target.lower(self.graph), folder, options, self.graph)
        seen = written.execute(self.images)
        signs = tuple(seen.signs[conv.facts.name] for conv in binary_convs(self.graph))
        return self.comparison.with_engine(Observation(seen.outputs, signs), target.title)


def export_once(key: Key, inputs: int, path: Path) -> Exported:
    """Write a finished network to an .onnx file, and compare PyTorch with it.

    Raises:
        ParityError: PyTorch computes something else than the file.
    """
    from bibench_deploy.export.pipeline import write_onnx
    from bibench_deploy.export.source import from_module
    from bibench_deploy.graph.load import load_graph
    from bibench_deploy.verify.parity import Comparison, seeded_inputs

    shape = (1, 3, key[2], key[2])
    reference = write_onnx(from_module(finished_network(*key), shape, "network"), path)
    assert reference is not None
    graph, images = load_graph(path), seeded_inputs(shape, inputs, SEED)
    comparison = Comparison(graph, images)
    by_torch = comparison.with_engine(reference.observe(graph, images), "PyTorch")
    return Exported(graph, images, comparison, by_torch)


def finished_network(algorithm: str, architecture: str, size: int) -> torch.nn.Module:
    """A network at the end of its schedule, with statistics as training leaves them."""
    import torch

    from bibench_train import architectures
    from bibench_train.layers import binary_layers

    torch.manual_seed(SEED)
    options: dict[str, object] = {}
    if architecture in IMAGENET:
        is_large = size == 224
        options = {"form": "imagenet", "num_classes": 1000} if is_large else {"form": "cifar"}
    model = architectures.build(
        architecture, algorithm=algorithm, image_size=(size, size), **options
    )
    for _, layer in binary_layers(model):
        layer.binarizer.start_epoch(EPOCHS - 1, EPOCHS)
        for parameter in layer.binarizer.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = None  # the mean over all batches, not a moving one
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, size, size))
    return model


def unexplained_in(failure: str) -> int:
    """How many unexplained flips an error of parity names; 0 where it is another one.

    Example:
        >>> unexplained_in("LCE takes 12 of 4096 signs otherwise than the ONNX graph")
        12
    """
    found = re.search(r"takes (\d+) of \d+ signs", failure)
    return int(found[1]) if found else 0


def is_kept(row: Row) -> bool:
    """Whether the promise is kept."""
    return not row.failure and row.unexplained == 0


def line(row: Row) -> str:
    """One case in one line."""
    text = (
        f"{row.algorithm} {row.architecture} {row.size}: {row.flips} of {row.signs} signs flip, "
        f"{row.unexplained} unexplained, max error {row.max_error:.1e}, top-1 "
        f"{100 * row.top1_agreement:.1f} %, {row.seconds:.0f} s"
    )
    return f"{text}; {row.failure}" if row.failure else text


def summary(rows: Sequence[Row]) -> str:
    """All cases in one line."""
    broken = [f"{row.algorithm} {row.architecture} {row.size}" for row in rows if not is_kept(row)]
    signs, flips = sum(row.signs for row in rows), sum(row.flips for row in rows)
    return (
        f"{len(rows)} cases, {flips} of {signs} signs flip by rounding, "
        f"{sum(row.unexplained for row in rows)} unexplained: "
        f"{'broken for ' + ', '.join(broken) if broken else 'kept'}"
    )


def read_rows(path: Path) -> Rows:
    """The lines of an earlier run; none where there is no file."""
    if not path.exists():
        return {}
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="") as file:
        rows = [
            Row(**{field.name: kinds[str(field.type)](entry[field.name]) for field in fields(Row)})
            for entry in csv.DictReader(file)
        ]
    return {(row.algorithm, row.architecture, row.size): row for row in rows}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the CSV, sorted; a file that is there is replaced at once."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in sorted(rows))
    write_atomically(path, text.getvalue().encode())


if __name__ == "__main__":
    sys.exit(main())
