import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

from bibench_train.training import metrics
from bibench_train.training.metrics import EpochMetrics

EPOCH = EpochMetrics(
    epoch=1,
    loss=0.5,
    train_accuracy=90.0,
    test_accuracy=80.0,
    learning_rate=1e-3,
    seconds=2.5,
    seconds_per_step=0.25,
    data_wait_share=0.01,
)


def write(out: Path, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        metrics.append(out, replace(EPOCH, epoch=epoch))


def read_csv(out: Path) -> list[dict[str, float]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_both_files_say_the_same_and_each_epoch_once(tmp_path: Path) -> None:
    write(tmp_path, 3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert read_csv(tmp_path) == [json.loads(line) for line in lines]
    assert read_csv(tmp_path)[1] == asdict(EPOCH) | {"epoch": 2}


def test_what_was_written_of_an_unfinished_epoch_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, 3)
    metrics.keep(tmp_path, 2)
    assert [row["epoch"] for row in read_csv(tmp_path)] == [1, 2]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_line_cut_in_half_is_dropped_too(tmp_path: Path) -> None:
    write(tmp_path, 2)
    for name in ("metrics.csv", "metrics.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write("3,0.")
    metrics.keep(tmp_path, 2)
    assert [row["epoch"] for row in read_csv(tmp_path)] == [1, 2]
    metrics.append(tmp_path, replace(EPOCH, epoch=3))
    assert [row["epoch"] for row in read_csv(tmp_path)] == [1, 2, 3]


def test_removing_leaves_neither_file_and_needs_none(tmp_path: Path) -> None:
    metrics.remove(tmp_path)
    write(tmp_path, 1)
    metrics.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
