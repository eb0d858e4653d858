"""What run.json says: everything about a run but its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bibench_train.errors import CheckpointError
from bibench_train.training.evaluation import Accuracy
from bibench_train.training.recipe import Recipe

RUN_FILE = "run.json"
SCHEMA_VERSION = 1
_KIND = "bibench-run"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch with the highest test accuracy, the first of equals, that can be deployed."""

    epoch: int
    """Counted from 1."""
    accuracy: Accuracy
    """Chosen by the test split itself, so a little too good for a claim."""
    checkpoint_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One run, as written to run.json; the field names are the JSON names (docs/pipeline.md)."""

    name: str
    architecture: str
    architecture_options: dict[str, Any]
    algorithm: str
    dataset: str
    num_classes: int
    input_shape: tuple[int, int, int]
    """(C, H, W)."""
    train_images: int | None = None
    """Of the training split; None in runs of earlier versions."""
    init: str | None
    """The run whose weights this one started from."""
    recipe: Recipe
    epochs_done: int = 0
    accuracy: Accuracy | None = None
    """Of the last epoch done, not of the best one: choosing by test accuracy would flatter it."""
    best: Best | None = None
    parameters: int
    """Trainable numbers, binary ones included."""
    seconds_per_step: float | None = None
    """Of the last epoch done, waiting for data included."""
    data_wait_share: float | None = None
    """Of the last epoch done: part of the training time in which no batch was ready."""
    peak_memory_mib: float | None = None
    """Since the run was started or resumed: the process on a CPU, the tensors on a GPU."""
    device: str = "cpu"
    threads: int | None = None
    """Of each process."""
    processes: int = 1
    is_compiled: bool = False
    checkpoint_sha256: str = ""
    versions: dict[str, str]

    def to_json(self) -> str:
        """The text of run.json."""
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "kind": _KIND} | asdict(self)
        if self.accuracy is not None:
            content["accuracy"] = _counts(self.accuracy)
        if self.best is not None:
            content["best"]["accuracy"] = _counts(self.best.accuracy)
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, place: str) -> RunInfo:
        """Read what `to_json` wrote; fields added by later versions are ignored.

        Args:
            text: JSON.
            place: Where it comes from, for the message.

        Raises:
            CheckpointError: Not JSON, not a run, or a field is missing or wrong.
        """
        try:
            content = json.loads(text)
            if content["kind"] != _KIND or content["schema_version"] != SCHEMA_VERSION:
                raise CheckpointError(
                    f"{place}: {content['kind']} of schema {content['schema_version']}, where "
                    f"{_KIND} of schema {SCHEMA_VERSION} was expected"
                )
            known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
            recipe = known["recipe"]
            if "decay_epochs" in recipe:
                recipe["decay_epochs"] = tuple(recipe["decay_epochs"])
            known["recipe"] = Recipe(**recipe)
            known["input_shape"] = tuple(map(int, known["input_shape"]))
            for name in ("name", "architecture", "algorithm", "dataset", "checkpoint_sha256"):
                if not isinstance(content.get(name, ""), str):
                    raise TypeError(f"{name} is {content[name]!r}, no text")
            if not 0 <= known.get("epochs_done", 0) <= known["recipe"].epochs:
                raise ValueError(f"{known['epochs_done']} epochs done of {known['recipe'].epochs}")
            if known.get("accuracy") is not None:
                known["accuracy"] = _accuracy(known["accuracy"])
            if known.get("best") is not None:
                best = known["best"]
                known["best"] = Best(**best | {"accuracy": _accuracy(best["accuracy"])})
            return cls(**known)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{place}: damaged, or not written by bibench train ({error})"
            ) from error


def _counts(accuracy: Accuracy) -> dict[str, Any]:
    return {"percent": accuracy.percent} | asdict(accuracy)


def _accuracy(counts: dict[str, Any]) -> Accuracy:
    if not 0 <= counts["correct"] <= counts["images"] or counts["images"] == 0:
        raise ValueError(f"{counts['correct']} of {counts['images']} images")
    return Accuracy(counts["correct"], counts["images"], counts["split"])


def read_run(run_dir: Path) -> RunInfo:
    """What run.json in this folder says.

    Raises:
        CheckpointError: No such folder, no run.json in it, or a damaged one.
    """
    path = run_dir / RUN_FILE
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "has no run.json" if run_dir.is_dir() else "is no folder"
        raise CheckpointError(
            f"{run_dir} {found}; a run is a folder written by bibench train, or models/<name>"
        ) from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder; a run's run.json is a file") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: damaged, it is no text") from error
    return RunInfo.from_json(text, str(path))
