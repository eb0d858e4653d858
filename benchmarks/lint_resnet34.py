"""How fast and how large `bibench lint` of a ResNet-34 .onnx is. Promise: 1.5 s, 400 MB."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._process import BIBENCH, peak_memory_mib, wall_seconds


def write_resnet34(path: Path) -> None:
    """ResNet-34 for 224 × 224 images, binarized by reactnet, as .onnx: 87 MB."""
    from bibench_deploy.export.pipeline import write_onnx
    from bibench_deploy.export.source import from_module
    from bibench_train import architectures

    model = architectures.build("resnet34", algorithm="reactnet", num_classes=1000, form="imagenet")
    write_onnx(from_module(model, (1, 3, 224, 224), "resnet34"), path)


def measure() -> str:
    """The median of five runs, and the largest resident set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet34.onnx"
        write_resnet34(path)
        command = [BIBENCH, "lint", str(path), "--target", "lce"]
        seconds, mebibytes = wall_seconds(command, 5), peak_memory_mib(command)
    megabytes = mebibytes * 1.048576
    return f"bibench lint ResNet-34: {seconds:.2f} s, {megabytes:.0f} MB (promise 1.5 s, 400 MB)"
