"""What every target gives: its name, what it refuses, how it lowers, writes and runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Execution:
    """What a written model computed for a batch of inputs, in PyTorch's layout.

    Attributes:
        outputs: [N, …].
        signs: for each binary layer in graph order, the ±1 that it read, [N, C, H, W] or
            [N, C]; NaN at places that the layer does not read.
    """

    outputs: _Array
    signs: tuple[_Array, ...]


class Execute(Protocol):
    """Runs a written model on inputs [N, C, H, W] or [N, C], one at a time."""

    def __call__(self, inputs: _Array, *, wants_signs: bool = True) -> Execution:
        """Run it; without `wants_signs` the tuple of signs is empty."""
        ...


@dataclass(frozen=True)
class WrittenModel:
    """Files that a target wrote, and the proof that binary layers stayed binary.

    Attributes:
        files: role → path; the role `model` is what a device runs.
        layers: one entry per convolution and fully connected layer, as the manifest lists them.
        input: shape, layout and dtype of the model's own input, as the manifest lists them.
        versions: package → version of what took part.
        execute: runs the written model.
    """

    files: dict[str, Path]
    layers: list[dict[str, Any]]
    input: dict[str, Any]
    versions: dict[str, str]
    execute: Execute


class Writer(Protocol):
    """Writes lowered graphs; it may hold a process that is worth keeping for several."""

    def write(self, lowered: ir.Model, directory: Path) -> WrittenModel:
        """Write the target's files for a lowered graph into `directory`, which exists.

        Raises:
            ConversionError: the engine's converter failed, or a binary layer became float.
        """
        ...


class Target(Protocol):
    """A runtime that bibench can write for; `targets/<name>/__init__.py` holds one as TARGET."""

    name: str
    title: str
    #: Granularities of scale that fold into the engine's binary convolution.
    held_scales: frozenset[Any]

    def refusals(self, model: ir.Model) -> list[str]:
        """Every reason why the target cannot hold a model; empty where it can."""
        ...

    def lower(self, model: ir.Model) -> ir.Model:
        """A copy of the model in the form that this target writes."""
        ...

    def open_writer(self) -> AbstractContextManager[Writer]:
        """Get ready to write; entered before the graph is there, so that it can warm up."""
        ...
