"""What every target gives: its name, what it refuses, how it lowers, writes and runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.description import FileDescription
from bibench_deploy.targets._size_by_part import SizeByPart

_Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WriteOptions:
    """What a user may choose of the file that a target writes; the defaults are exact.

    Attributes:
        allow_unfused_scales: whether a scale that the engine cannot fold runs as float
            operators behind the binary layer, instead of being refused.
        input: `rotated` leaves out the operator that turns the input by 180°, where the
            network has one; whoever calls the model turns the image.
        fully_connected: how the weights of float fully connected layers are stored; `int8`
            is four times smaller and not exact.
        float_storage: how all other float weights are stored; `float16` is twice smaller
            and not exact.
        stem: how the convolution that reads the image runs; `int8` is faster and not exact.
        padding: what becomes of padding that an engine without a zero cannot hold: `refuse` it,
            correct its border (`exact`), or pad with −1 (`minus-one`), which gives other outputs.
        allow_mean_shift: whether a constant per channel in front of a sign is held where the
            engine has no place of its own for it.
    """

    allow_unfused_scales: bool = False
    input: Literal["plain", "rotated"] = "plain"
    fully_connected: Literal["float32", "int8"] = "float32"
    float_storage: Literal["float32", "float16"] = "float32"
    stem: Literal["float32", "int8"] = "float32"
    padding: Literal["refuse", "exact", "minus-one"] = "refuse"
    allow_mean_shift: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether every number is stored and computed as it is."""
        return self.fully_connected == self.float_storage == self.stem == "float32"

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as the manifest keeps them."""
        return asdict(self)


DEFAULT_OPTIONS = WriteOptions()


@dataclass(frozen=True)
class Refusal:
    """One reason why a target cannot hold a model: what lint reports as an error.

    `str` gives it in one line, as export prints it.

    Attributes:
        rule: name of the lint rule that explains it, such as `scale-granularity`.
        node: name of the node in the .onnx file; empty where it is the graph as a whole.
        message: what was found.
        hint: what to do.

    Example:
        >>> print(Refusal("groups", "conv1", "64 groups, and LCE holds 32", "use fewer"))
        conv1: 64 groups, and LCE holds 32; use fewer
    """

    rule: str
    node: str
    message: str
    hint: str

    def __str__(self) -> str:
        return (f"{self.node}: " if self.node else "") + "; ".join(
            text for text in (self.message, self.hint) if text
        )


@dataclass(frozen=True)
class Cost:
    """What a target holds at a price: what lint reports as a warning.

    Attributes:
        rule: name of the lint rule that explains it.
        node: name of the node in the .onnx file.
        message: what is slower or larger, and by how much.
        hint: what to do.
        is_small: whether it is worth knowing and no more: information, not a warning.
    """

    rule: str
    node: str
    message: str
    hint: str
    is_small: bool = False


@dataclass(frozen=True)
class Examination:
    """What a target says of a model: what it cannot hold, and what it holds at a price."""

    refusals: list[Refusal]
    costs: list[Cost]


@dataclass(frozen=True)
class Execution:
    """What a written model computed for a batch of inputs, in PyTorch's layout.

    Attributes:
        outputs: [N, …].
        signs: name of the source graph's binary layer → the ±1 that its binarized tensor
            became, [N, elements in order]; NaN at places that the layer does not read. Empty
            where the engine does not show them.
    """

    outputs: _Array
    signs: dict[str, _Array]


class Execute(Protocol):
    """Runs a written model on inputs [N, C, H, W] or [N, C], one at a time."""

    def __call__(self, inputs: _Array, *, wants_signs: bool = True) -> Execution:
        """Run it; without `wants_signs` there are none."""
        ...


class StoreSmaller(Protocol):
    """Writes a model file anew, in fewer bits."""

    def __call__(self, options: WriteOptions, images: _Array | None = None, /) -> WrittenModel:
        """Write it; `images` [N, …] give the ranges of numbers that become bytes."""
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
        store_smaller: rewrites the model file with the storage that options ask for, and
            gives the model as it is then; None where the target has no such option.
        padding: what exact padding costs where the engine has none, as the manifest lists it.
        output: shape, layout and dtype of the model's own output, as the manifest lists them;
            None where it is the source's.
    """

    files: dict[str, Path]
    layers: list[dict[str, Any]]
    input: dict[str, Any]
    versions: dict[str, str]
    execute: Execute
    store_smaller: StoreSmaller | None = None
    padding: dict[str, Any] | None = None
    output: dict[str, Any] | None = None


class Writer(Protocol):
    """Writes lowered graphs; it may hold a process that is worth keeping for several."""

    def write(
        self,
        lowered: ir.Model,
        directory: Path,
        options: WriteOptions = DEFAULT_OPTIONS,
        source: ir.Model | None = None,
    ) -> WrittenModel:
        """Write the target's files for a lowered graph into `directory`, which exists.

        The model file is exact, whatever `options` says of storage.

        Args:
            lowered: the graph.
            directory: where the files go.
            options: what the user chose.
            source: the graph before lowering, whose layers are listed; `lowered` unless given.

        Raises:
            ConversionError: the engine's converter failed, or a binary layer became float.
        """
        ...

    def measure_unfused_scales(
        self,
        lowered: ir.Model,  # noqa: ARG002 - who has such scales overrides this
        written: WrittenModel,  # noqa: ARG002 - who has such a thing overrides this
        options: WriteOptions = DEFAULT_OPTIONS,  # noqa: ARG002 - who has such a thing overrides this
    ) -> dict[str, Any] | None:
        """What scales cost that the engine does not fuse; None where it fuses all of them.

        Args:
            lowered: the graph that was written.
            written: what `write` gave for it; before its weights are stored in fewer bits.
            options: what the user chose.
        """
        return None


class Target(Protocol):
    """A runtime that bibench can write for; `targets/<name>/__init__.py` holds one as TARGET."""

    name: str
    title: str
    #: Granularities of scale that fold into the engine's binary convolution.
    held_scales: frozenset[Any]
    #: Fields of `WriteOptions` that mean something here; others must keep their defaults.
    options: frozenset[str]
    #: What exactly 0 becomes where a model says neither +1 nor −1; 0 where it stays what it is.
    sign_of_zero: int = 1
    #: How the names of its model files end, for `bibench inspect`.
    suffix: str = ""
    #: Whether a constant per channel in front of a sign is held without being asked for.
    holds_mean_shift: bool = True
    #: Name of the source graph's file, where the target's own model file is not called that.
    onnx_name: str = "model.onnx"

    def refusals(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> list[Refusal]:
        """Every reason why the target cannot hold a model; empty where it can.

        Export refuses these and lint reports these, so that the two cannot disagree.
        """
        ...

    def examine(self, model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> Examination:
        """The refusals, and what else a user should know before the export."""
        return Examination(self.refusals(model, options), [])

    def packed_bytes(
        self,
        shape: Sequence[int],  # noqa: ARG002 - who has binary layers overrides this
        strides: Sequence[int],  # noqa: ARG002 - who has such a thing overrides this
    ) -> int | None:
        """What the weights of a binary layer take in one bit; None where nothing is one bit.

        Args:
            shape: of the weights, [O, I, kH, kW], [O, I, k] or [O, I].
            strides: one for each axis of the kernel.

        Returns:
            Bytes, those that only fill up words included.
        """
        return None

    def wrote(self, path: Path) -> bool:  # noqa: ARG002 - who shares a suffix overrides this
        """Whether a file that ends in `suffix` is of its own kind; False if it cannot be read."""
        return True

    def describe(self, path: Path) -> FileDescription:
        """What is in one of its model files, a file that ends in `suffix`.

        Raises:
            ArtifactError: it cannot be read.
        """
        raise NotImplementedError

    def changed(
        self,
        model: ir.Model,  # noqa: ARG002 - who has such an option overrides this
        options: WriteOptions,  # noqa: ARG002 - who has such a thing overrides this
    ) -> ir.Model | None:
        """The network that the file will compute in place of `model`, if another was asked for."""
        return None

    def lower(self, model: ir.Model) -> ir.Model:
        """A copy of the model in the form that this target writes."""
        ...

    def size_by_part(self, path: Path) -> SizeByPart | None:  # noqa: ARG002 - who has such a thing overrides this
        """Where the bytes of a written model file go; None where that cannot be told.

        Args:
            path: of the file that plays the role `model`.
        """
        return None

    def open_writer(self) -> AbstractContextManager[Writer]:
        """Get ready to write; entered before the graph is there, so that it can warm up."""
        ...
