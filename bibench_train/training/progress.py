"""Progress: what a run says while it trains. Everything goes to stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bibench_train.training.metrics import EpochMetrics


class Progress:
    """Says nothing; the base of what does. The loop calls the methods in this order."""

    def start(self, name: str, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """A run begins; `first_epoch` counts from 0 and is more where it was resumed."""

    def step(self, epoch: int, loss: float) -> None:
        """One optimizer step is done."""

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is done and its checkpoint written."""

    def stop(self) -> None:
        """The run ends, in whatever way."""


class LineProgress(Progress):
    """One plain line an epoch: for logs, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._epochs = 0

    def start(self, name: str, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Keep what each line repeats."""
        del first_epoch, steps_per_epoch
        self._name, self._epochs = name, epochs

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch."""
        self._console.print(
            f"{self._name}: epoch {metrics.epoch}/{self._epochs}  {_summary(metrics)}  "
            f"({metrics.seconds:.1f} s)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class BarProgress(Progress):
    """One bar over the whole run, with time remaining: for a terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._epochs = 0
        self._tested = ""

    def start(self, name: str, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
        """Draw the bar."""
        self._epochs = epochs
        self._task = self._bar.add_task(
            name,
            total=epochs * steps_per_epoch,
            completed=first_epoch * steps_per_epoch,
            state="",
        )
        self._bar.start()

    def step(self, epoch: int, loss: float) -> None:
        """Move the bar."""
        state = f"epoch {epoch + 1}/{self._epochs}  loss {loss:.3f}{self._tested}"
        self._bar.update(self._task, advance=1, state=state)

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        """Show the accuracy."""
        self._tested = f"  test {metrics.test_accuracy:.2f} %"
        state = f"epoch {metrics.epoch}/{self._epochs}  {_summary(metrics)}"
        self._bar.update(self._task, state=state)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def stderr_progress() -> Progress:
    """A bar where stderr is a terminal, plain lines where it is not."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(console)


def _summary(metrics: EpochMetrics) -> str:
    return (
        f"loss {metrics.loss:.3f}  train {metrics.train_accuracy:.2f} %  "
        f"test {metrics.test_accuracy:.2f} %"
    )
