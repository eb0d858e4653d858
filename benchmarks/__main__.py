"""Run every benchmark of this folder, or those named: `python -m benchmarks [NAME…]`."""

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
        print(importlib.import_module(f"benchmarks.{name}").measure(), flush=True)


main()
