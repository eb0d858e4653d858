"""Run every benchmark of this folder, or those named: `python -m benchmarks [NAME…]`.

A benchmark is a file with a function `measure`, which returns the line to print.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path


def main() -> None:
    """Print one line per benchmark."""
    folder = [str(Path(__file__).parent)]
    names = [entry.name for entry in pkgutil.iter_modules(folder) if entry.name[0] != "_"]
    for name in sys.argv[1:] or names:
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "measure"):
            print(module.measure(), flush=True)


main()
