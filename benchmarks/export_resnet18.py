"""How long ResNet-18 at 224 takes to LCE, proof included. Promise: 20 s and 3 GB."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._process import BIBENCH, peak_tree_memory_mib, wall_seconds

_FACTORY = """
from bibench_train import architectures

def resnet18():
    return architectures.build("resnet18", algorithm="bnn", num_classes=1000, form="imagenet")
"""


def measure() -> str:
    """The median of three runs of the command line; the memory of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "network.py").write_text(_FACTORY)
        command = [BIBENCH, "export", "network:resnet18", "--input-shape", "1,3,224,224"]
        seconds = wall_seconds(command, 3, cwd=folder)
        mebibytes = peak_tree_memory_mib(command, cwd=folder)
    gigabytes = mebibytes * 2**20 / 1e9
    return f"ResNet-18 (224) to LCE: {seconds:.1f} s, {gigabytes:.2f} GB (promise 20 s, 3 GB)"
