"""How long ResNet-18 at 224 takes to LCE, proof included. Promise: 25 s."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._process import BIBENCH, peak_memory_mib, wall_seconds

_FACTORY = """
from bibench_train import architectures

def resnet18():
    return architectures.build("resnet18", algorithm="bnn", num_classes=1000, form="imagenet")
"""


def measure() -> str:
    """The median of three runs of the command line, and the largest single process."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "network.py").write_text(_FACTORY)
        command = [BIBENCH, "export", "network:resnet18", "--input-shape", "1,3,224,224"]
        seconds = wall_seconds(command, 3, cwd=folder)
        mebibytes = peak_memory_mib(command, cwd=folder)
    return f"ResNet-18 (224) to LCE: {seconds:.1f} s, {mebibytes:.0f} MiB (promise 25 s)"
