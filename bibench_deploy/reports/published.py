"""What the paper published, recomputed: the document of `bibench report --paper`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from bibench_deploy.reports import wording
from bibench_deploy.reports.document import Document
from bibench_deploy.reports.tables import Table, hardware_headers, hardware_row, printed_row
from bibench_deploy.tracks.hardware import (
    Pair,
    published_chips,
    published_pairs,
    published_scores,
    score,
)


def published_hardware_track() -> Document:
    """The hardware track of the paper: its 174 rows, each ratio in them, and Equation 9."""
    pairs = published_pairs()
    chips = published_chips()
    scores = score(pairs)
    means = score(replace(pair, device=f"mean of its {len(chips)} chips") for pair in pairs)
    threads = sorted({n for pair in pairs for n in pair.binary})
    printed = [row for row in published_scores().values() if row.overall is not None]
    rows = [
        hardware_row(wording.RECOMPUTED, chips.get(own.device, own.device), own, threads)
        for own in (*scores, *means)
    ]
    rows += [printed_row(row, len(threads)) for row in printed]
    track = Table(
        title="Hardware track (BiBench, Equation 9)",
        headers=hardware_headers(threads),
        rows=tuple(rows),
        numeric=frozenset(range(4, 8 + len(threads))),
        notes=(wording.HARDWARE_CONVENTION, wording.NO_PUBLISHED_SIZES),
    )
    cells = Table(
        title="Every published latency",
        headers=("Chip", "Engine", "Algorithm", "Network", "Threads", "FP32", "Binarized", "Ratio"),
        rows=tuple(_cell_rows(pairs, chips)),
        numeric=frozenset(range(4, 8)),
    )
    return Document(
        title="The hardware track of BiBench, as published",
        lead=(wording.PAPER_SOURCE,),
        tables=(track, cells),
        data={
            "kind": "bibench-published-hardware-track",
            "schema_version": 1,
            "source": wording.PAPER_SOURCE,
            "scores": [own.to_json() for own in scores],
            "means": [own.to_json() for own in means],
            "printed": [asdict(row) for row in printed],
            "cells": [
                {
                    "device": pair.device,
                    "engine": pair.engine,
                    "algorithm": pair.algorithm,
                    "architecture": pair.model,
                    "threads": speedup.threads,
                    "fp32_ms": pair.fp32[speedup.threads].ms,
                    "binary_ms": pair.binary[speedup.threads].ms,
                    "speedup": speedup.ratio,
                }
                for pair in pairs
                for speedup in pair.speedups
            ],
        },
    )


def _cell_rows(pairs: tuple[Pair, ...], chips: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for pair in pairs:
        for speedup in pair.speedups:
            yield (
                chips[pair.device],
                wording.engine(pair.engine),
                pair.algorithm or wording.NOT_KNOWN,
                pair.model,
                str(speedup.threads),
                f"{pair.fp32[speedup.threads].ms} ms",
                f"{pair.binary[speedup.threads].ms} ms",
                wording.ratio(speedup.ratio),
            )
