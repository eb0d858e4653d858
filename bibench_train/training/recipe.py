"""The recipe: every number that decides how a run is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULERS = ("cosine", "step", "constant")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the same recipe, seed, machine and thread count give the same weights.

    The defaults are BiBench's for CIFAR-10 (its ImageNet recipe: 100 epochs, batch 256). A data set
    brings its own where these do not suit it.

    Raises:
        ValueError: A value that no run can have.
    """

    epochs: int = 200
    batch_size: int = 128
    """Images of one optimizer step, all processes together."""
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.9
    """Of SGD; Adam and AdamW have their usual 0.9 and 0.999."""
    weight_decay: float = 0.0
    """Of weight tensors; biases, batch norms and what an algorithm learns are left out."""
    scheduler: str = "cosine"
    warmup_epochs: int = 0
    """In which the learning rate grows in equal steps, before the scheduler takes over."""
    decay_epochs: tuple[int, ...] = ()
    """Of the step scheduler: after how many epochs the rate falls; empty for 1/2 and 3/4. Counted
    within each stage of an algorithm that has several."""
    decay_factor: float = 0.1
    """Of the step scheduler: what the rate is multiplied by each time."""
    label_smoothing: float = 0.0
    precision: str = "fp32"
    """ "bf16": the forward pass under autocast to bfloat16; weights and evaluation stay fp32."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size are at least 1, not {self.epochs} and {self.batch_size}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is a positive number, not {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is 0 or more and below 2^63, not {self.seed}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs is 0 or more and less than the {self.epochs} epochs, not "
                f"{self.warmup_epochs}"
            )
        if any(epoch < 1 for epoch in self.decay_epochs):
            raise ValueError(f"decay_epochs are 1 or more, not {self.decay_epochs}")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is 0 or more and below 1, not {getattr(self, name)}")
        for name in ("weight_decay", "decay_factor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is 0 or more, not {value}")
        for name, valid in (
            ("optimizer", OPTIMIZERS),
            ("scheduler", SCHEDULERS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in valid:
                raise ValueError(
                    f'{name} is one of {", ".join(valid)}, not "{getattr(self, name)}"'
                )
