"""How long a training step of each algorithm takes, against FP32.

ResNet-18 (CIFAR form), batch 64, channels-last memory: forward, loss and the algorithm's penalty,
backward, a step of Adam, in the first epoch of a run. Time is processor time of one thread, so that
other programs do not count; all networks take turns, and a ratio is the median of its rounds.

Promise: at most 1.3 times FP32 for all but fda, whose learned noise is a network of its own beside
every operand, and whose gradient and noise take four sines of every weight and activation.
"""

from __future__ import annotations

import time
from statistics import median

import torch  # noqa: TID253 - this measures training
import torch.nn.functional as F  # noqa: TID253 - this measures training

from bibench_train import algorithms, architectures  # noqa: TID253 - this measures training
from bibench_train.training.loop import penalty, start_epoch  # noqa: TID253 - this measures training

BATCH = 64
ROUNDS = 5


class Training:
    """A network that is in training.

    Args:
        algorithm: Its name, or "fp32".
    """

    def __init__(self, algorithm: str) -> None:
        torch.manual_seed(0)
        self.model = architectures.build(
            "resnet18", algorithm=algorithm, num_classes=10, form="cifar"
        ).to(memory_format=torch.channels_last)
        start_epoch(self.model, 0, 200)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        images = torch.randn(BATCH, 3, 32, 32)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (BATCH,))

    def step(self) -> float:
        """One step; gives its seconds."""
        begun_at = time.process_time()
        loss = F.cross_entropy(self.model(self.images), self.labels) + penalty(self.model)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return time.process_time() - begun_at


def measure() -> str:
    """A table: one line for each algorithm."""
    torch.set_num_threads(1)
    trainings = {name: Training(name) for name in (algorithms.FP32, *algorithms.names())}
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for training in trainings.values():
        training.step()
    for _ in range(ROUNDS):
        for name, training in trainings.items():
            seconds[name].append(training.step())
    head = f"training step of ResNet-18 (CIFAR), batch {BATCH}, one thread, as a multiple of FP32"
    lines = [f"{head} (promise 1.3 for all but fda)"]
    for name, found in seconds.items():
        ratio = median(a / b for a, b in zip(found, seconds[algorithms.FP32], strict=True))
        lines.append(f"  {name:10s} {ratio:5.2f}   {median(found) * 1e3:5.0f} ms")
    return "\n".join(lines)
