"""How fast a journal of 100,000 blocks becomes a report. Promise: 3 s and 500 MB."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks._process import BIBENCH, peak_memory_mib, wall_seconds
from bibench_deploy.profiling.journal import Block, CellKey, summarize_cell

ARTIFACTS, THREADS, BLOCKS = 125, 8, 100
# The fewest of a block in the presets.
SAMPLES = 20


def measure() -> str:
    """The median of three reports as text, start-up included, and the peak of one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.jsonl"
        write_journal(path)
        command = [BIBENCH, "report", str(path)]
        seconds, peak_mib = wall_seconds(command, 3), peak_memory_mib(command)
    megabytes = peak_mib * 2**20 / 1e6
    return (
        f"report of {ARTIFACTS * THREADS * BLOCKS:,} blocks: {seconds:.1f} s (promise 3 s), "
        f"{megabytes:.0f} MB (promise 500 MB)"
    )


def write_journal(path: Path) -> None:
    """Write a finished sweep of 1000 cells of 100 blocks, as `bibench profile` would."""
    keys = [
        CellKey(f"{number:012x}", "board", threads)
        for number in range(ARTIFACTS)
        for threads in range(1, THREADS + 1)
    ]
    with path.open("w", encoding="utf-8") as file:

        def write(kind: str, fields: dict[str, object]) -> None:
            file.write(json.dumps({"kind": kind, **fields}, separators=(",", ":")) + "\n")

        planned = [{**asdict(key), "blocks": BLOCKS} for key in keys]
        write("header", {
            "schema_version": 1, "run": "long", "bibench_version": "0.1.0", "command": ["bibench"],
            "preset": "standard", "seed": 0, "started_at": "2026-01-01T00:00:00Z",
            "environment": {"machine": "aarch64"}, "planned": planned,
        })  # fmt: skip
        for number in range(ARTIFACTS):
            write("artifact", _artifact(number))
        for round_ in range(BLOCKS):
            for key in keys:
                fields = asdict(_block(key, round_))
                write("block", {**fields.pop("key"), **fields})
        for key in keys:
            cell = summarize_cell([_block(key, round_) for round_ in range(BLOCKS)])
            fields = asdict(cell)
            write("cell", {**fields.pop("key"), **fields})


def _artifact(number: int) -> dict[str, object]:
    digest = f"{number:012x}".ljust(64, "0")
    return {
        "artifact": f"{number:012x}", "path": "out/net", "twin": None,
        "manifest": {
            "name": f"net{number}", "target": "lce", "role": "model", "source": {},
            "input": {"shape": [1, 32, 32, 3], "layout": "NHWC"}, "model_sha256": digest,
            "size_bytes": 61_312, "layers": [], "verification": {}, "findings": [],
        },
    }  # fmt: skip


def _block(key: CellKey, number: int) -> Block:
    samples = tuple(2.5 + ((number * 7 + index * 13) % 100) / 1234 for index in range(SAMPLES))
    runtime = {
        "name": "larq-compute-engine", "version": "0.16.0", "sha256": "ab" * 32,
        "binary_kernel": "indirect", "float_kernel": "xnnpack", "python": "3.11.7",
        "numpy": "1.26.4",
    }  # fmt: skip
    return Block(key, number, runtime, samples, 30, True, 0.01, 12.5, 52.5, None)
