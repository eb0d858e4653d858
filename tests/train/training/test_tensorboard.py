import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import MissingPackageError
from bibench_train.training import Progress, train
from bibench_train.training.metrics import EpochMetrics
from bibench_train.training.tensorboard import TensorBoard


class Seen(Progress):
    """Keeps the metrics; interrupts the run once `epochs` of them are there."""

    def __init__(self, epochs: int = 100) -> None:
        self.epochs = epochs
        self.metrics: list[EpochMetrics] = []

    def step(self, epoch: int, loss: float) -> None:
        if len(self.metrics) == self.epochs:
            raise KeyboardInterrupt

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        self.metrics.append(metrics)


def scalars(run_dir: Path) -> EventAccumulator:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return events


def test_every_figure_of_every_epoch_is_there_once_a_resumed_run_included(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    first, second = Seen(epochs=1), Seen()
    with pytest.raises(KeyboardInterrupt):
        train(algorithm="bnn", dataset=tiny, out=out, progress=first, has_tensorboard=True)
    train(
        algorithm="bnn",
        dataset=tiny,
        out=out,
        progress=second,
        has_tensorboard=True,
        is_resumed=True,
    )
    events = scalars(out)
    expected = [asdict(metrics) for metrics in first.metrics + second.metrics]
    assert len(expected) == 3
    assert set(events.Tags()["scalars"]) == set(expected[0]) - {"epoch"}
    for name in events.Tags()["scalars"]:
        found = events.Scalars(name)
        assert [event.step for event in found] == [1, 2, 3]
        assert [event.value for event in found] == pytest.approx([e[name] for e in expected])


def test_none_is_written_unasked(tiny: ImagesInMemory, tmp_path: Path) -> None:
    train(algorithm="bnn", dataset=tiny, out=tmp_path / "a")
    assert not (tmp_path / "a" / "tensorboard").exists()


def test_without_the_package_one_line_names_the_extra_and_nothing_is_written(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"pip install \"\.\[tensorboard\]\""):
        train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", has_tensorboard=True)
    assert not (tmp_path / "a").exists()


def test_tensorflow_stays_out() -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from bibench_train.training.tensorboard import TensorBoard; "
        "TensorBoard(Path('x')); print('tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_closing_without_an_epoch_leaves_nothing(tmp_path: Path) -> None:
    TensorBoard(tmp_path).close()
    assert list(tmp_path.iterdir()) == []
