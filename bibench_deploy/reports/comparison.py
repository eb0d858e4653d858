"""What two sweeps have to say about each other: the document of `bibench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bibench_deploy.profiling.comparison import (
    Comparison,
    Identity,
    LatencyChange,
    Outcome,
    SizeChange,
)
from bibench_deploy.profiling.journal import Cell
from bibench_deploy.reports import wording
from bibench_deploy.reports.document import Document
from bibench_deploy.reports.tables import Table

_ORDER = ("slower", "larger", "inconclusive", "faster", "smaller", "no change")


def comparison_document(comparison: Comparison) -> Document:
    """Put a comparison into tables: latencies with their verdicts and reasons, then sizes."""
    return Document(
        title=_headline(comparison),
        lead=(*comparison.problems, *(f"Differs: {note}" for note in comparison.notes)),
        tables=tuple(table for table in (_latencies(comparison), _sizes(comparison)) if table.rows),
        data={
            "kind": "bibench-comparison",
            "schema_version": 1,
            "outcome": comparison.outcome.value,
            "threshold": comparison.threshold,
            "latencies": [_latency_data(change) for change in comparison.latencies],
            "sizes": [_size_data(change) for change in comparison.sizes],
            "notes": list(comparison.notes),
            "problems": list(comparison.problems),
        },
    )


def _headline(comparison: Comparison) -> str:
    found = [change.verdict for change in comparison.changes]
    counted = [f"{found.count(verdict)} {verdict}" for verdict in _ORDER if verdict in found]
    return f"{comparison.outcome.value}: {', '.join(counted)}"


def _latencies(comparison: Comparison) -> Table:
    rows = tuple(
        (
            _name(change.model),
            change.device,
            str(change.threads),
            wording.milliseconds(change.old.latency_ms.p50 if change.old else None),
            wording.milliseconds(change.new.latency_ms.p50 if change.new else None),
            wording.change(change.change),
            wording.change_interval(change.interval),
            change.verdict,
            change.reason,
        )
        for change in comparison.latencies
    )
    headers = ("Model", "Device", "Threads", "OLD p50", "NEW p50", "Change", "95 % interval")
    return Table(
        title="Latency",
        headers=(*headers, "Verdict", "Reason"),
        rows=rows,
        numeric=frozenset({2, 3, 4, 5, 6}),
        flagged=_flagged(comparison.latencies),
        notes=(wording.comparison_rule(comparison.threshold),),
    )


def _sizes(comparison: Comparison) -> Table:
    rows = tuple(
        (
            _name(change.model),
            wording.size(change.old_bytes),
            wording.size(change.new_bytes),
            wording.change(change.change),
            change.verdict,
        )
        for change in comparison.sizes
    )
    return Table(
        title="Size",
        headers=("Model", "OLD", "NEW", "Change", "Verdict"),
        rows=rows,
        numeric=frozenset({1, 2, 3}),
        flagged=_flagged(comparison.sizes),
    )


def _flagged(changes: Sequence[LatencyChange | SizeChange]) -> frozenset[int]:
    bad = (Outcome.WORSE, Outcome.INCONCLUSIVE)
    return frozenset(index for index, change in enumerate(changes) if change.outcome in bad)


def _name(model: Identity) -> str:
    return f"{model.name} (FP32 twin)" if model.role == "fp32_twin" else model.name


def _latency_data(change: LatencyChange) -> dict[str, Any]:
    return {
        **asdict(change.model),
        "device": change.device,
        "threads": change.threads,
        "old": _cell_data(change.old),
        "new": _cell_data(change.new),
        "change": change.change,
        "low": change.interval[0] if change.interval else None,
        "high": change.interval[1] if change.interval else None,
        "limit": change.limit,
        "verdict": change.verdict,
        "reason": change.reason,
    }


def _cell_data(cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {"latency_ms": asdict(cell.latency_ms), "verdict": cell.verdict, "reason": cell.reason}


def _size_data(change: SizeChange) -> dict[str, Any]:
    return {
        **asdict(change.model),
        "old_bytes": change.old_bytes,
        "new_bytes": change.new_bytes,
        "change": change.change,
        "verdict": change.verdict,
    }
