import io

import pytest
from rich.console import Console

from bibench_train.training.metrics import EpochMetrics
from bibench_train.training.progress import (
    BarProgress,
    LineProgress,
    Progress,
    stderr_progress,
)

METRICS = EpochMetrics(
    epoch=2,
    loss=0.1234,
    train_accuracy=97.5,
    test_accuracy=96.25,
    learning_rate=0.002,
    seconds=1.25,
    seconds_per_step=0.04,
    data_wait_share=0.01,
)


def show(progress: Progress) -> None:
    progress.start("resnet20-bnn-digits", 1, 2, 10)
    progress.step(1, 0.5)
    progress.finish_epoch(METRICS)
    progress.stop()


def test_without_a_terminal_an_epoch_is_one_plain_line() -> None:
    text = io.StringIO()
    show(LineProgress(Console(file=text, width=20)))
    assert text.getvalue() == (
        "resnet20-bnn-digits: epoch 2/2  loss 0.123  train 97.50 %  test 96.25 %  (1.2 s)\n"
    )


def test_on_a_terminal_a_bar_shows_epoch_and_accuracy() -> None:
    text = io.StringIO()
    show(BarProgress(Console(file=text, force_terminal=True, width=120)))
    assert "resnet20-bnn-digits" in text.getvalue()
    assert "96.25 %" in text.getvalue()


def test_progress_goes_to_stderr_plain_where_it_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = stderr_progress()
    assert isinstance(progress, LineProgress)
    show(progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 2/2" in captured.err


def test_the_base_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show(Progress())
    assert capsys.readouterr() == ("", "")
