"""Train every algorithm on digits, and write what it reaches: `make digits-table`.

ResNet-20, default recipes, three seeds; each binarized network starts from the FP32 run of its
seed. Runs of one thread each, as many at a time as there are cores: small networks gain little from
a second thread. A run that the CSV lists already is not trained again.

Writes digits-accuracy.csv, a line for each run, and digits-accuracy.md, the table made of it.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev

from bibench_train import algorithms  # noqa: TID253 - lists names; imports no torch
from bibench_train.algorithms import FP32  # noqa: TID253 - lists names; imports no torch
from bibench_train.threads import available_cores  # noqa: TID253 - lists names; imports no torch
from bibench_train.training.atomic import write_atomically  # noqa: TID253 - lists names; imports no torch

DOCS = Path("docs")
RUNS = Path("runs/digits-table")
NAME = "digits-accuracy"
MAKE = "make digits-table"
ARCHITECTURE = "resnet20"
DATASET = "digits"
SEEDS = (0, 1, 2)
PROMISED_FP32 = 98.5
PROMISED_DIFFERENCE = 4.0


@dataclass(frozen=True, order=True)
class Row:
    """One finished run; the field names are the columns of the CSV."""

    algorithm: str
    seed: int
    correct: int
    images: int
    accuracy: float
    """Percent."""
    seconds: float
    """Of the whole training, evaluation included."""


Key = tuple[str, int]
"""Algorithm and seed."""
Rows = dict[Key, Row]


@dataclass(frozen=True)
class Options:
    """What to train, and where to put it."""

    seeds: tuple[int, ...] = SEEDS
    algorithms: tuple[str, ...] = ()
    """Empty for all; FP32 is always among them."""
    epochs: int | None = None
    """None for the default recipes."""
    out: Path = DOCS
    is_fresh: bool = False

    @property
    def runs(self) -> Path:
        """Where FP32 runs are kept for the networks that start from them."""
        return RUNS if self.out == DOCS else self.out / "runs"

    @property
    def keys(self) -> list[Key]:
        """Every run of the table."""
        chosen = self.algorithms or algorithms.names()
        return [(name, seed) for seed in self.seeds for name in (FP32, *chosen)]

    @property
    def command(self) -> str:
        """The command that gives this table."""
        words = []
        if self.seeds != SEEDS:
            words += ["--seeds", *map(str, self.seeds)]
        if self.algorithms:
            words += ["--algorithms", *self.algorithms]
        if self.epochs is not None:
            words += ["--epochs", str(self.epochs)]
        return " ".join(["python -m benchmarks.digits_table", *words]) if words else MAKE


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing and write both files after every run; 1 where a run failed."""
    options = parse(arguments)
    rows = {} if options.is_fresh else read_rows(options.out)
    if options.is_fresh:
        shutil.rmtree(options.runs, ignore_errors=True)
    try:
        failures = train_missing(options, rows)
    except KeyboardInterrupt:
        print(f"interrupted; {len(rows)} finished runs are kept", file=sys.stderr)
        return 130
    if rows:
        write(options, rows)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def parse(arguments: Sequence[str] | None) -> Options:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits_table", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--algorithms", nargs="+", choices=algorithms.names(), default=[])
    parser.add_argument("--epochs", type=int, help="of every run; needs another --out")
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR")
    parser.add_argument("--fresh", action="store_true", help="train finished runs again")
    found = parser.parse_args(arguments)
    if found.epochs is not None and found.out == DOCS:
        parser.error("--epochs is for trying out, and docs/ holds the default recipes: give --out")
    return Options(
        tuple(dict.fromkeys(found.seeds)),
        tuple(sorted(set(found.algorithms))),
        found.epochs,
        found.out,
        found.fresh,
    )


def train_missing(options: Options, rows: Rows) -> list[str]:
    """Add a row for every run that has none; returns a line for each that failed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they load torch
    missing = [key for key in options.keys if key not in rows]
    waiting = {
        seed: [key for key in missing if key[1] == seed and key[0] != FP32]
        for seed in options.seeds
    }
    # Also where its row is there and its folder is not, since others start from it.
    first = [
        seed
        for seed in options.seeds
        if (FP32, seed) in missing or (waiting[seed] and not is_there(options, seed))
    ]
    failures: list[str] = []
    running: dict[Future[Row], Key] = {}
    pool = ProcessPoolExecutor(
        available_cores(), multiprocessing.get_context("spawn"), initializer=_end_silently
    )
    try:
        for seed in options.seeds:
            for key in [(FP32, seed)] if seed in first else waiting[seed]:
                running[pool.submit(train_one, options, *key)] = key
        done = 0
        total = len(running) + sum(len(waiting[seed]) for seed in first)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                done += 1
                error = future.exception()
                if error is not None:
                    failures.append(f"{key[0]} seed {key[1]}: {type(error).__name__}: {error}")
                    print(f"{done}/{total} {failures[-1]}", flush=True)
                    continue
                row = rows[key] = future.result()
                write(options, rows)
                print(f"{done}/{total} {_line(row)}", flush=True)
                if key[0] == FP32:
                    for next_key in waiting[key[1]]:
                        running[pool.submit(train_one, options, *next_key)] = next_key
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def train_one(options: Options, algorithm: str, seed: int) -> Row:
    """Train one network; its accuracy is that of what is deployed.

    Raises:
        AssertionError: The deployable network gets another number of images right than the run.
    """
    from bibench_train import datasets
    from bibench_train.harden import harden
    from bibench_train.training import evaluate, load_run, train

    dataset = datasets.load(DATASET)
    recipe = dataset.fp32_recipe if algorithm == FP32 else dataset.binary_recipe
    recipe = replace(recipe, seed=seed, epochs=options.epochs or recipe.epochs)
    out = options.runs / f"{algorithm}-seed{seed}"
    shutil.rmtree(out, ignore_errors=True)
    run = train(
        architecture=ARCHITECTURE,
        algorithm=algorithm,
        dataset=dataset,
        out=out,
        init=None if algorithm == FP32 else options.runs / f"{FP32}-seed{seed}",
        recipe=recipe,
        device="cpu",
    )
    model, info = load_run(run.run_dir)
    deployed = evaluate(harden(model), dataset)
    if deployed != info.accuracy:
        raise AssertionError(f"hardened: {deployed}, in the run: {info.accuracy}")
    if algorithm != FP32:
        shutil.rmtree(out)
    return Row(
        algorithm, seed, deployed.correct, deployed.images, deployed.percent, round(run.seconds, 1)
    )


def is_there(options: Options, seed: int) -> bool:
    """Whether the FP32 run of this seed is finished and lies in its folder."""
    from bibench_train.errors import CheckpointError
    from bibench_train.training import read_run

    try:
        info = read_run(options.runs / f"{FP32}-seed{seed}")
    except CheckpointError:
        return False
    return info.epochs_done == info.recipe.epochs == (options.epochs or info.recipe.epochs)


def read_rows(out: Path) -> Rows:
    """What the CSV in this folder lists; nothing where there is none."""
    path = out / f"{NAME}.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = [
            Row(
                line["algorithm"],
                int(line["seed"]),
                int(line["correct"]),
                int(line["images"]),
                float(line["accuracy"]),
                float(line["seconds"]),
            )
            for line in csv.DictReader(file)
        ]
    return {(row.algorithm, row.seed): row for row in rows}


def write(options: Options, rows: Rows) -> None:
    """Write both files, whole or not at all."""
    options.out.mkdir(parents=True, exist_ok=True)
    # FP32 first, then by name.
    ordered = sorted(rows.values(), key=lambda row: (row.algorithm != FP32, row))
    write_atomically(options.out / f"{NAME}.csv", to_csv(ordered).encode())
    write_atomically(options.out / f"{NAME}.md", to_markdown(options, ordered).encode())


def to_csv(rows: Iterable[Row]) -> str:
    """One line for each run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def to_markdown(options: Options, rows: Sequence[Row]) -> str:
    """The page: one line for each algorithm, mean and deviation over the seeds."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.algorithm, []).append(row)
    fp32 = {row.seed: _percent(row) for row in by_name.get(FP32, [])}
    recipes = "default recipes" if options.epochs is None else f"{options.epochs} epochs a run"
    lines = (
        "# Accuracy on digits",
        "",
        f"What each algorithm reaches with ResNet-20 on [digits](datasets.md#digits), {recipes}.",
        "Each binarized network starts from the FP32 run of its seed. The accuracy is that of the",
        "hardened network, the one that is deployed, after the last epoch: it got as many of the",
        f"{rows[0].images} held-out images right as the network that was trained.",
        "",
        "| algorithm | accuracy, % | difference to FP32, points | seeds | promise |",
        "|---|---|---|---|---|",
        *(_table_line(name, group, fp32) for name, group in by_name.items()),
        "",
        "Mean ± standard deviation over the seeds; the difference is to FP32 of the same seeds.",
        f"One image is {100 / rows[0].images:.2f} points: the figures say that an algorithm trains",
        "and survives conversion, not which one is the best.",
        "",
        f"Every run is in [{NAME}.csv]({NAME}.csv), on the CPU with one thread, torch",
        f"{version('torch')}; its seconds are those of a machine with other work to do. Written by",
        f"`{options.command}`.",
    )
    return "\n".join(lines) + "\n"


def _table_line(name: str, rows: Sequence[Row], fp32: dict[int, float]) -> str:
    accuracies = [_percent(row) for row in rows]
    spread = f" ± {stdev(accuracies):.2f}" if len(rows) > 1 else ""
    reached = mean(accuracies)
    differences = [_percent(row) - fp32[row.seed] for row in rows if row.seed in fp32]
    difference = promise = ""
    if name == FP32:
        promise = _promise(f"≥ {PROMISED_FP32} %", reached >= PROMISED_FP32)
    elif differences:
        difference = f"{mean(differences):+.2f}"
        is_kept = mean(differences) >= -PROMISED_DIFFERENCE
        promise = _promise(f"within {PROMISED_DIFFERENCE:g} points", is_kept)
    seeds = ", ".join(str(row.seed) for row in rows)
    cells = (f"`{name}`", f"{reached:.2f}{spread}", difference, seeds, promise)
    return f"| {' | '.join(cells)} |"


def _promise(text: str, is_kept: bool) -> str:
    return f"{text}: {'kept' if is_kept else '**broken**'}"


def _percent(row: Row) -> float:
    # From the counts: the column is rounded.
    return 100.0 * row.correct / row.images


def _line(row: Row) -> str:
    return (
        f"{row.algorithm} seed {row.seed}: {row.accuracy:.2f} %, {row.correct} of {row.images} "
        f"images, in {row.seconds:.0f} s"
    )


def _end_silently() -> None:
    # Ctrl-C reaches every process of a terminal; the main one says what it means.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
