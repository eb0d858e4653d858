"""`bibench demo`: the whole path on real images, for somebody who has just arrived."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bibench_deploy.cli._inputs import say
from bibench_deploy.cli._sweep_progress import progress_shown
from bibench_deploy.cli.export import summary

if TYPE_CHECKING:
    from bibench_deploy.export.source import Source

ARCHITECTURE = "resnet20"
ALGORITHM = "reactnet"
DATASET = "digits"
# Tells a folder that an earlier demo made from one that holds somebody's files.
MARK = ".bibench-demo"


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder to write; an earlier demo there is replaced.")
    ] = Path("demo"),
    threads: Annotated[
        str, typer.Option(help="Thread counts to measure with, such as 1,2.")
    ] = "1,2",
) -> None:
    """Train, export, prove, lint, profile and report on handwritten digits, in minutes.

    Writes demo/report.html and demo/report.json. Example: [bold]bibench demo[/bold]
    """
    from bibench_train import threads as torch_threads

    torch_threads.wait_briefly()  # before anything imports torch
    from bibench_deploy.cli.profile import parse_threads
    from bibench_deploy.export.pipeline import export_source
    from bibench_deploy.export.source import resolve_source
    from bibench_deploy.profiling.session import profile_artifacts
    from bibench_deploy.reports import build_report, write_report
    from bibench_train.training import stderr_progress, train

    begun_at = time.perf_counter()
    thread_counts = parse_threads(threads)
    _make_room(out)
    runs = {name: out / "runs" / f"{ARCHITECTURE}-{name}-{DATASET}" for name in ("fp32", ALGORITHM)}

    _step(1, f"train {ARCHITECTURE} on {DATASET} in FP32")
    train(architecture=ARCHITECTURE, algorithm="fp32", dataset=DATASET,
          out=runs["fp32"], progress=stderr_progress())  # fmt: skip
    _step(2, f"binarize it by {ALGORITHM}, from that checkpoint")
    train(architecture=ARCHITECTURE, algorithm=ALGORITHM, dataset=DATASET,
          init=runs["fp32"], out=runs[ALGORITHM], progress=stderr_progress())  # fmt: skip

    _step(3, "lint, export, and prove every file equal to PyTorch")
    engines = _engines()
    sources = [*(resolve_source(str(run)) for run in runs.values()), untrained_resnet18()]
    exports = []
    for source in sources:
        is_binary = source.facts["algorithm"] != "fp32"
        for target in engines if is_binary else engines[:1]:
            artifact = export_source(
                source,
                target=target,
                out=out / "out" / f"{source.name}-{target}",
                baseline=is_binary,
                progress=partial(_say_phase, source.name),
            )
            exports.append(artifact)
            say(summary(artifact).rstrip())

    counts = ",".join(str(count) for count in thread_counts)
    _step(4, f"profile on this machine with threads {counts}")
    with progress_shown() as show:
        run = profile_artifacts(
            [artifact.directory for artifact in exports],
            threads=thread_counts,
            out=out / "results" / "demo.jsonl",
            progress=partial(show, "local"),
            command=["bibench", "demo"],
        )

    _step(5, "report")
    report = build_report([run.path])
    for name in ("html", "json", "md"):
        write_report(report, out / f"report.{name}", name)
    minutes, seconds = divmod(round(time.perf_counter() - begun_at), 60)
    say(f"done in {minutes} min {seconds} s; open {out / 'report.html'}")


def _engines() -> list[str]:
    """The targets to show: `native` too, where its library was built."""
    from bibench_deploy.errors import MissingLibraryError
    from bibench_deploy.targets.native.shared_library import find_library

    try:
        find_library()
    except MissingLibraryError as error:
        say(f"{error}. The demo goes on without it")
        return ["lce"]
    return ["lce", "native"]


def untrained_resnet18() -> Source:
    """ResNet-18 at 224 × 224 with random weights: large enough for 1-bit to show on x86.

    Batch norm gets the statistics of random inputs, and small random shifts. With fresh
    batch norm every sum that is exactly zero lies on the threshold of the next sign, which
    no trained network does.
    """
    import torch

    from bibench_deploy.export.source import Source
    from bibench_train import architectures

    name, size = "resnet18", 224
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = architectures.build(name, algorithm=ALGORITHM, num_classes=1000, form="imagenet")
        norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        for norm in norms:
            torch.nn.init.normal_(norm.bias, std=0.1)
            norm.momentum = None  # the plain mean of all batches
        model.train()
        for _ in range(2):
            model(torch.randn(2, 3, size, size))
    facts = {
        "kind": "callable",
        "name": f"{name}-{ALGORITHM}",
        "architecture": name,
        "algorithm": ALGORITHM,
        "dataset": None,
        "accuracy": None,
        "trained": False,
    }
    return Source(
        "callable", f"{name}-{ALGORITHM}-untrained", facts, model=model, input_shape=(3, size, size)
    )


def _say_phase(name: str, phase: str) -> None:
    say(f"  {name}: {phase}")


def _step(number: int, what: str) -> None:
    say(f"\n[{number}/5] {what}")


def _make_room(out: Path) -> None:
    """Take away an earlier demo, and nothing else."""
    from bibench_deploy.errors import SourceError

    if out.exists():
        if not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
            raise SourceError(f"{out} exists and no demo made it; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARK).touch()
