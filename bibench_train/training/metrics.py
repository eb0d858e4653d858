"""What a run writes down after every epoch: metrics.csv, and the same as metrics.jsonl."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bibench_train.training.atomic import write_atomically

CSV_FILE = "metrics.csv"
JSONL_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.csv; the field names are its columns."""

    epoch: int
    """Counted from 1."""
    loss: float
    """Mean over the epoch's images, penalties included."""
    train_accuracy: float
    """Percent of the augmented training images, while the weights were still moving."""
    test_accuracy: float
    """Percent."""
    learning_rate: float
    """At the epoch's first step."""
    seconds: float
    """Training and evaluation."""
    seconds_per_step: float
    """Training alone, waiting for data included."""
    data_wait_share: float
    """Part of the training time, from 0 to 1, in which no batch was ready."""


def append(out: Path, metrics: EpochMetrics) -> None:
    """Add one epoch to both files."""
    row = asdict(metrics)
    with (out / CSV_FILE).open("a", newline="") as file:
        if file.tell() == 0:
            file.write(_csv_line([field.name for field in fields(EpochMetrics)]))
        file.write(_csv_line(list(row.values())))
    with (out / JSONL_FILE).open("a") as file:
        file.write(json.dumps(row) + "\n")


def keep(out: Path, epochs: int) -> None:
    """Drop what was written of epochs that a killed run never finished."""
    for name, lines_kept in ((CSV_FILE, epochs + 1), (JSONL_FILE, epochs)):
        path = out / name
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            write_atomically(path, b"".join(lines[:lines_kept]))


def remove(out: Path) -> None:
    """Remove both files, where they are."""
    for name in (CSV_FILE, JSONL_FILE):
        (out / name).unlink(missing_ok=True)


def _csv_line(values: list[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
