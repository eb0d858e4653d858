"""Train the small networks that are shipped, and write their cards: `make models`.

Each folder gets checkpoint.safetensors, run.json and model.toml. What a run needs to be resumed is
not shipped. The same machine, thread count and torch give the same files again.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tomlkit

from bibench_train import threads  # noqa: TID253 - light, and to be called before torch is loaded

if TYPE_CHECKING:
    from bibench_train.training import RunInfo

MODELS = Path("models")
ARCHITECTURE = "resnet20"
DATASET = "digits"
CHECKPOINT = "checkpoint.safetensors"
RUN = "run.json"


def main() -> None:
    """Train FP32 first, then each binarized network from it."""
    threads.wait_briefly()
    from bibench_train.training import stderr_progress, train

    if not (MODELS / Path(__file__).name).is_file():
        raise SystemExit("run this in the repository root: make models")
    fp32 = MODELS / f"{DATASET}-{ARCHITECTURE}-fp32"
    for algorithm in ("fp32", "bnn", "reactnet"):
        model = MODELS / f"{DATASET}-{ARCHITECTURE}-{algorithm}"
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                architecture=ARCHITECTURE,
                algorithm=algorithm,
                dataset=DATASET,
                out=Path(folder) / model.name,
                init=None if algorithm == "fp32" else fp32,
                progress=stderr_progress(),
            )
            model.mkdir(exist_ok=True)
            shutil.copyfile(run.run_dir / CHECKPOINT, model / CHECKPOINT)
            # The best epoch's weights stay behind.
            (model / RUN).write_text(replace(run.info, best=None).to_json())
        (model / "model.toml").write_text(card(run.info, model))
        print(f"{model}: {run.accuracy:.2f} % in {run.seconds:.0f} s")


def card(info: RunInfo, model: Path) -> str:
    """The text of model.toml."""
    assert info.accuracy is not None
    content = {
        "name": info.name,
        "architecture": info.architecture,
        "algorithm": info.algorithm,
        "parameters": info.parameters,
        "licence": "Apache-2.0",
        "made_with": "make models",
        "seed": info.recipe.seed,
        "accuracy": {
            "percent": info.accuracy.percent,
            "correct": info.accuracy.correct,
            "images": info.accuracy.images,
            "on": "the held-out split of digits, by image: its writers occur in training too",
        },
        "data": {
            "name": info.dataset,
            "source": "E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
            "UCI Machine Learning Repository",
            "link": "https://doi.org/10.24432/C50P49",
            "licence": "CC BY 4.0",
            "changes": "upscaled from 8x8 to 32x32 pixels, three equal channels",
        },
        "checkpoint": {
            "file": CHECKPOINT,
            "sha256": info.checkpoint_sha256,
            "size_bytes": (model / CHECKPOINT).stat().st_size,
        },
    }
    return tomlkit.dumps(content)


if __name__ == "__main__":
    main()
