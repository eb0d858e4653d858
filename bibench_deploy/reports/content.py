"""What a report shows, computed once from results files; every format only writes it down.

All arithmetic of a report is here, and it is ratios. Speed-up and size ratio are
FP32 over binary, so more than 1 means that the binarized model is the faster or
the smaller one. A model is compared with its FP32 twin twice: at the same thread
count, and with each of the two at its own fastest thread count. The mean over
models takes the second, since nobody deploys a model at a thread count that slows
it down.

A noisy cell is kept and shown, but it never stands for a result on its own: the
fastest thread count is looked for among stable cells first, and a ratio with a
noisy side is itself marked noisy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

from bibench_deploy.errors import ResultsError
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.profiling.journal import Cell, CellKey, Results, read_results
from bibench_deploy.profiling.operators import OperatorTime
from bibench_deploy.targets._size_by_part import SizeByPart
from bibench_deploy.tracks.hardware import (
    Pair,
    PublishedScore,
    Score,
    Speedup,
    Timing,
    published_as,
    published_pairs,
    published_scores,
    score,
)

# So many blocks show how a device does under lasting load.
SERIES_BLOCKS = 20
UNTRAINED = "untrained weights: latency and size only"

_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


def is_stable(cell: Cell) -> bool:
    """Whether a measurement may be relied on; noisy is never a pass."""
    return cell.verdict == "stable"


@dataclass(frozen=True)
class Residency:
    """How many of the layers meant to be 1-bit are 1-bit in the artifact, and in which kernel."""

    intended: int
    resident: int
    kernel: str | None
    is_all_convolutions: bool


@dataclass(frozen=True)
class Agreement:
    """How close the outputs of two engines are on the same inputs; None where not known.

    Attributes:
        max_abs_error: largest difference of the outputs, each engine with its own signs.
        top1_agreement: fraction of the inputs whose largest output is at the same place.
        max_abs_error_same_signs: what is left of the error when both take the same signs.
        flip_rate: fraction of binary activations whose sign differs.
        unexplained_flips: of those, the ones that rounding near zero cannot explain.
    """

    max_abs_error: float | None
    top1_agreement: float | None
    max_abs_error_same_signs: float | None = None
    flip_rate: float | None = None
    unexplained_flips: int | None = None

    @property
    def is_agreed(self) -> bool:
        """Whether the top-1 answers are the same and no flip is left unexplained."""
        return self.top1_agreement == 1.0 and not self.unexplained_flips


@dataclass(frozen=True)
class Parity:
    """PyTorch against ONNX Runtime, and ONNX Runtime against the target."""

    inputs: int | None
    seed: int | None
    torch_to_onnx: Agreement | None
    onnx_to_target: Agreement | None

    @property
    def steps(self) -> tuple[Agreement, ...]:
        """The comparisons that were made."""
        return tuple(step for step in (self.torch_to_onnx, self.onnx_to_target) if step)

    @property
    def max_abs_error(self) -> float | None:
        """The larger of the two steps."""
        return max(
            (s.max_abs_error for s in self.steps if s.max_abs_error is not None), default=None
        )

    @property
    def top1_agreement(self) -> float | None:
        """The lower of the two steps, as a fraction of the inputs."""
        known = (s.top1_agreement for s in self.steps if s.top1_agreement is not None)
        return min(known, default=None)

    @property
    def max_abs_error_same_signs(self) -> float | None:
        """Of the target, with its signs fed to the ONNX graph: rounding alone."""
        return self.onnx_to_target.max_abs_error_same_signs if self.onnx_to_target else None

    @property
    def flip_rate(self) -> float | None:
        """Fraction of binary activations whose sign differs on the target."""
        return self.onnx_to_target.flip_rate if self.onnx_to_target else None

    @property
    def unexplained_flips(self) -> int | None:
        """Sign flips that rounding near zero cannot explain."""
        return self.onnx_to_target.unexplained_flips if self.onnx_to_target else None

    @property
    def is_agreed(self) -> bool:
        """Whether every step gave the same top-1 answers and no flip is left unexplained."""
        return all(step.is_agreed for step in self.steps)


@dataclass(frozen=True)
class HeldOut:
    """How the exported model answers the held-out images of its data set.

    Attributes:
        images: how many there are.
        percent: of them that the target answers rightly.
        same_answers: of them that the target answers as PyTorch does; None where the
            source is no PyTorch model.
    """

    images: int
    percent: float
    same_answers: int | None


@dataclass(frozen=True)
class Model:
    """One artifact with everything that was measured and proved about it.

    Attributes:
        artifact: its short id in the results file.
        label: short name, unique in its family.
        title: name that is unique in the report.
        is_twin: whether it is only there to be compared with.
        is_binarized: whether it holds layers meant to be 1-bit.
        is_trained: None where the source cannot say, as with an .onnx file.
        is_changed: whether it was exported to compute something else than its source does.
        is_untrained: whether it, or the model that it is the twin of, is known to be untrained.
        accuracy: percent, of the run that it was exported from; None when untrained.
        images: how many held-out images the accuracy is over.
        held_out: how the exported file itself answers them; None where they were not at hand.
        fp32_accuracy: percent of the trained FP32 model in the same family, if there is one.
        twin: short id of its FP32 twin.
        size_ratio: bytes of the twin over its own bytes.
        storage: where the bytes of its file go; None where the target cannot tell.
        storage_in_theory: one bit for each binary weight of its layers, 32 for every other.
        series: block medians in ms, in the order in which they ran, of each cell that has at
            least SERIES_BLOCKS.
        operators: where its time goes, of each cell that was profiled by operator.
        pairs: its times beside those of the twin; one for each device that timed both.
        published: of these devices, what BiBench prints for this architecture and algorithm
            with this engine; times alone.
    """

    artifact: str
    name: str
    label: str
    title: str
    target: str
    architecture: str | None
    algorithm: str | None
    dataset: str | None
    is_twin: bool
    is_binarized: bool
    is_trained: bool | None
    is_changed: bool
    is_untrained: bool
    accuracy: float | None
    images: int | None
    held_out: HeldOut | None
    fp32_accuracy: float | None
    twin: str | None
    input_shape: tuple[int, ...]
    size_bytes: int
    model_sha256: str
    size_ratio: float | None
    twin_size_bytes: int | None
    storage: SizeByPart | None
    storage_in_theory: SizeByPart | None
    residency: Residency
    parity: Parity | None
    findings: tuple[Finding, ...]
    cells: tuple[Cell, ...]
    series: Mapping[CellKey, tuple[float, ...]]
    operators: Mapping[CellKey, tuple[OperatorTime, ...]]
    pairs: tuple[Pair, ...]
    published: tuple[Pair, ...]

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        """Against the twin at the same thread count."""
        return tuple(chain.from_iterable(pair.speedups for pair in self.pairs))

    @property
    def fastest(self) -> tuple[Speedup, ...]:
        """Against the twin, each at its own fastest thread count; one for each device."""
        return tuple(pair.fastest for pair in self.pairs if pair.fastest)

    def cell(self, device: str, threads: int) -> Cell | None:
        """The measurement on a device at a thread count, if it was made."""
        wanted = (device, threads)
        return next(
            (cell for cell in self.cells if (cell.key.device, cell.key.threads) == wanted), None
        )

    def speedup(self, device: str, threads: int) -> Speedup | None:
        """The speed-up on a device with the twin at the same thread count, if known."""
        wanted = (device, threads)
        return next((s for s in self.speedups if (s.device, s.threads) == wanted), None)

    def fastest_on(self, device: str) -> Speedup | None:
        """The speed-up on a device with each side at its own fastest thread count, if known."""
        return next((s for s in self.fastest if s.device == device), None)


@dataclass(frozen=True)
class Family:
    """Models of one architecture and one input size: they may share an axis."""

    name: str
    input_size: str
    models: tuple[Model, ...]

    @property
    def title(self) -> str:
        """Name and input size, for headings."""
        return f"{self.name}, {self.input_size}" if self.input_size else self.name

    @property
    def is_untrained(self) -> bool:
        """Whether every model to be judged in it has untrained weights."""
        judged = [model for model in self.models if not model.is_twin]
        return bool(judged) and all(model.is_untrained for model in judged)


@dataclass(frozen=True)
class Run:
    """Where and how one results file was measured."""

    name: str
    command: tuple[str, ...]
    preset: str
    started_at: str
    bibench_version: str
    environment: Mapping[str, Any]
    cpus: tuple[int, ...] | None = None
    is_pinned: bool = False

    @property
    def is_x86(self) -> bool:
        """Whether it ran on a host instead of an ARM board."""
        return str(self.environment.get("machine", "")).lower() in _X86


@dataclass(frozen=True)
class MeanSpeedup:
    """Mean over models of the speed-up, each model at its own fastest thread count."""

    device: str
    ratio: float
    models: int
    is_noisy: bool


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        runs: one for each results file, the earliest first.
        families: those with trained models first.
        mean_size_ratio: over the models with a twin; None if no model has one.
        mean_speedups: one for each device on which a model and its twin were measured.
        scores: the hardware track, for each device, engine and algorithm; emulated devices
            have none.
        published: the same from the paper's rows of these chips, by the same convention.
        printed: what the paper prints for these algorithms over all of its devices.
        problems: one text for each thing that keeps a results file from being whole.
    """

    runs: tuple[Run, ...]
    families: tuple[Family, ...]
    mean_size_ratio: float | None
    mean_speedups: tuple[MeanSpeedup, ...]
    scores: tuple[Score, ...]
    published: tuple[Score, ...]
    printed: tuple[PublishedScore, ...]
    problems: tuple[str, ...]

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model of every family, FP32 twins included."""
        return tuple(chain.from_iterable(family.models for family in self.families))

    @property
    def binarized(self) -> tuple[Model, ...]:
        """The models a report is about."""
        return tuple(m for m in self.models if m.is_binarized and not m.is_twin)

    @property
    def trained(self) -> tuple[Model, ...]:
        """The models with an accuracy, in the order of the families."""
        return tuple(model for model in self.models if model.accuracy is not None)

    @property
    def headline(self) -> Model:
        """The model that the summary is about: the most accurate binarized one."""
        candidates = self.binarized or tuple(m for m in self.models if not m.is_twin)
        return max(candidates or self.models, key=lambda model: model.accuracy or 0.0)

    @property
    def accuracy(self) -> dict[str, float]:
        """Percent by algorithm; by model where several share an algorithm."""
        names = [model.algorithm or model.title for model in self.trained]
        named = list(zip(names, self.trained, strict=True))
        return {
            name if len({m.accuracy for n, m in named if n == name}) == 1 else model.title: (
                model.accuracy
            )
            for name, model in named
            if model.accuracy is not None
        }

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices, in the order they were first measured."""
        return tuple(dict.fromkeys(c.key.device for model in self.models for c in model.cells))

    @property
    def threads(self) -> tuple[int, ...]:
        """Every thread count that was measured, ascending."""
        return tuple(sorted({c.key.threads for model in self.models for c in model.cells}))

    @property
    def is_host_check(self) -> bool:
        """Whether anything was measured on x86, where latency says nothing about a board."""
        return any(run.is_x86 for run in self.runs)


def build_report(result_paths: Sequence[Path]) -> Report:
    """Read results files and compute what a report of them shows.

    Where several files measured the same artifact on the same device, the run that
    started last counts, with all of its thread counts.

    Raises:
        ValueError: no results file was given.
        ResultsError: a file is missing or damaged, holds no artifact, or has a manifest
            that lacks what docs/pipeline.md promises.
    """
    if not result_paths:
        raise ValueError("build_report needs at least one results file")
    results = sorted((read_results(path) for path in result_paths), key=_started_at)
    entries: dict[str, _Entry] = {}
    for file in results:
        _add_file(file, entries)
    if not entries:
        names = ", ".join(str(path) for path in result_paths)
        raise ResultsError(f"{names}: holds no artifact; run bibench profile to measure one")
    try:
        families = _families(entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        names = ", ".join(str(path) for path in result_paths)
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ResultsError(
            f"{names}: a manifest is not as docs/pipeline.md describes it ({what}); "
            "was it exported by another version of bibench?"
        ) from error
    models = [model for family in families for model in family.models]
    ratios = [model.size_ratio for model in models if model.size_ratio is not None]
    emulated = {
        key.device
        for file in results
        if file.header.environment.get("is_emulated")
        for key in file.cells
    }
    scores = score(pair for model in models for pair in model.pairs if pair.device not in emulated)
    problems = [problem for file in results for problem in file.problems]
    problems += [
        f"{device} is emulated: its latencies say nothing of any hardware, so the hardware "
        "track leaves it out"
        for device in sorted(emulated)
    ]
    return Report(
        runs=tuple(_run(file) for file in results),
        families=families,
        mean_size_ratio=fmean(ratios) if ratios else None,
        mean_speedups=tuple(_mean_speedups(models)),
        scores=scores,
        published=_published_scores(scores, models),
        printed=tuple(_printed_scores(scores)),
        problems=tuple(problems),
    )


@dataclass
class _Entry:
    """An artifact while the files are read: its manifest and the cells kept for it."""

    artifact: str
    manifest: Mapping[str, Any]
    twin: str | None
    cells: list[Cell]
    series: dict[CellKey, tuple[float, ...]]
    operators: dict[CellKey, tuple[OperatorTime, ...]]


def _started_at(results: Results) -> str:
    # All in UTC and of one form, so they sort as text.
    return results.header.started_at


def _add_file(results: Results, entries: dict[str, _Entry]) -> None:
    for measured in results.artifacts.values():
        before = entries.get(measured.id)
        entries[measured.id] = _Entry(
            artifact=measured.id,
            manifest=measured.manifest,
            twin=measured.twin or (before.twin if before else None),
            cells=before.cells if before else [],
            series=before.series if before else {},
            operators=before.operators if before else {},
        )
    series: dict[CellKey, list[float]] = {}
    for block in results.blocks:
        series.setdefault(block.key, []).append(block.middle_ms)
    for artifact, device in dict.fromkeys((key.artifact, key.device) for key in results.cells):
        entry = entries[artifact]
        earlier = [cell for cell in entry.cells if cell.key.device != device]
        measured_here = [
            cell
            for key, cell in results.cells.items()
            if (key.artifact, key.device) == (artifact, device)
        ]
        entry.cells = earlier + sorted(measured_here, key=lambda cell: cell.key.threads)
        long = [c.key for c in measured_here if len(series[c.key]) >= SERIES_BLOCKS]
        elsewhere = {key: kept for key, kept in entry.series.items() if key.device != device}
        entry.series = elsewhere | {key: tuple(series[key]) for key in long}
        profiled = {key: kept for key, kept in entry.operators.items() if key.device != device}
        entry.operators = profiled | {
            key: found
            for key, found in results.operators.items()
            if (key.artifact, key.device) == (artifact, device)
        }


def _run(results: Results) -> Run:
    header = results.header
    return Run(
        name=header.run,
        command=header.command,
        preset=header.preset,
        started_at=header.started_at,
        bibench_version=header.bibench_version,
        environment=dict(header.environment),
        cpus=header.cpus,
        is_pinned=header.is_pinned,
    )


def _families(entries: Mapping[str, _Entry]) -> tuple[Family, ...]:
    owners = {entry.twin: entry for entry in entries.values() if entry.twin}
    grouped: dict[tuple[str, str], list[_Entry]] = {}
    for entry in entries.values():
        # The twin of an .onnx file has no architecture either: it stands with its model.
        manifest = _judged(entry, owners).manifest
        name = manifest["source"].get("architecture") or manifest["name"]
        grouped.setdefault((name, _input_size(manifest["input"])), []).append(entry)
    names = [name for name, _ in grouped]
    families = []
    for (name, input_size), members in grouped.items():
        labels = _labels(members, owners)
        prefix = name if names.count(name) == 1 else f"{name} {input_size}"
        models = tuple(
            _model(
                entry,
                label=labels[entry.artifact],
                # A model that is called by its file has no algorithm to add to the name.
                title=prefix
                if labels[entry.artifact] == name
                else f"{prefix} {labels[entry.artifact]}",
                twin=entries[entry.twin] if entry.twin else None,
                is_untrained=_judged(entry, owners).manifest["source"].get("trained") is False,
                fp32_accuracy=_fp32_accuracy(entry, members),
            )
            for entry in _ordered(members)
        )
        families.append(Family(name=name, input_size=input_size, models=models))
    # Trained models carry the message; a network that is only timed comes after them.
    return tuple(sorted(families, key=lambda family: family.is_untrained))


def _is_twin(entry: _Entry) -> bool:
    return bool(entry.manifest["role"] == "fp32_twin")


def _judged(entry: _Entry, owners: Mapping[str, _Entry]) -> _Entry:
    """The model that an FP32 twin belongs to; any other entry is its own."""
    return owners.get(entry.artifact, entry) if _is_twin(entry) else entry


def _ordered(members: Sequence[_Entry]) -> list[_Entry]:
    """FP32 models first, then each binarized model with its twin behind it."""
    by_artifact = {entry.artifact: entry for entry in members}
    models = [entry for entry in members if not _is_twin(entry)]
    order: dict[str, _Entry] = {}
    for model in sorted(models, key=lambda entry: _residency(entry.manifest).intended > 0):
        for artifact in (model.artifact, model.twin):
            if artifact in by_artifact:
                order.setdefault(artifact, by_artifact[artifact])
    return list((order | by_artifact).values())


def _labels(members: Sequence[_Entry], owners: Mapping[str, _Entry]) -> dict[str, str]:
    """Name each model by its algorithm where that is enough, and each twin by its model."""
    models = [entry for entry in members if not _is_twin(entry)]
    twins = [entry for entry in members if _is_twin(entry)]
    algorithms = [entry.manifest["source"].get("algorithm") for entry in models]
    labels: dict[str, str] = {}
    for entry, algorithm in zip(models, algorithms, strict=True):
        alike = [item for item, name in zip(models, algorithms, strict=True) if name == algorithm]
        targets = {item.manifest["target"] for item in alike}
        label = entry.manifest["name"]
        if algorithm and len(alike) == 1:
            label = algorithm
        elif algorithm and len(targets) == len(alike):  # one network for several engines
            label = f"{algorithm} {entry.manifest['target']}"
        labels[entry.artifact] = label
    for twin in twins:
        owner = owners.get(twin.artifact)
        needs_name = len(twins) > 1 and owner is not None and owner.artifact in labels
        label = f"FP32 twin of {labels[owner.artifact]}" if needs_name and owner else "FP32 twin"
        labels[twin.artifact] = label
    return labels


def _model(
    entry: _Entry,
    *,
    label: str,
    title: str,
    twin: _Entry | None,
    is_untrained: bool,
    fp32_accuracy: float | None,
) -> Model:
    manifest, source = entry.manifest, entry.manifest["source"]
    residency = _residency(manifest)
    has_accuracy = not is_untrained and not _is_twin(entry)
    pairs = tuple(_pairs(title, manifest["target"], source.get("algorithm"), entry, twin))
    return Model(
        artifact=entry.artifact,
        name=manifest["name"],
        label=label,
        title=title,
        target=manifest["target"],
        architecture=source.get("architecture"),
        algorithm=source.get("algorithm"),
        dataset=source.get("dataset"),
        is_twin=_is_twin(entry),
        is_binarized=residency.intended > 0,
        is_trained=source.get("trained"),
        is_changed=_is_changed(manifest),
        is_untrained=is_untrained,
        accuracy=_number(source, "accuracy") if has_accuracy else None,
        images=_number(source, "accuracy_images"),
        held_out=_held_out(manifest) if has_accuracy else None,
        fp32_accuracy=fp32_accuracy,
        twin=twin.artifact if twin else None,
        input_shape=tuple(manifest["input"]["shape"]),
        size_bytes=manifest["size_bytes"],
        model_sha256=manifest["model_sha256"],
        size_ratio=twin.manifest["size_bytes"] / manifest["size_bytes"] if twin else None,
        twin_size_bytes=twin.manifest["size_bytes"] if twin else None,
        storage=_storage(manifest),
        storage_in_theory=_storage_in_theory(manifest),
        residency=residency,
        parity=_parity(manifest),
        findings=tuple(_finding(finding) for finding in manifest.get("findings") or ()),
        cells=tuple(sorted(entry.cells, key=lambda cell: (cell.key.device, cell.key.threads))),
        series=entry.series,
        operators=entry.operators,
        pairs=pairs,
        published=tuple(_published_pairs(pairs, source.get("architecture"))),
    )


def _input_size(facts: Mapping[str, Any]) -> str:
    shape = facts["shape"]
    if len(shape) != 4:
        return "×".join(str(length) for length in shape[1:])
    height, width = shape[1:3] if facts.get("layout") == "NHWC" else shape[2:4]
    return f"{height}×{width}"


def _residency(manifest: Mapping[str, Any]) -> Residency:
    counts = (manifest.get("verification") or {}).get("residency") or {}
    binary = [layer for layer in manifest.get("layers") or () if layer.get("intended_bits") == 1]
    kernels = {layer.get("kernel") for layer in binary if layer.get("actual_bits") == 1}
    return Residency(
        intended=_number(counts, "intended") or 0,
        resident=_number(counts, "resident") or 0,
        kernel=kernels.pop() if len(kernels) == 1 else None,
        is_all_convolutions=all(layer.get("kind") == "binary_conv" for layer in binary),
    )


def _storage(manifest: Mapping[str, Any]) -> SizeByPart | None:
    parts = manifest.get("size_by_part")
    if not parts:
        return None
    return SizeByPart(**{field.name: int(parts[field.name]) for field in fields(SizeByPart)})


def _storage_in_theory(manifest: Mapping[str, Any]) -> SizeByPart | None:
    """The parts that Equation 7 of BiBench counts, of layers alone: no bias, scale or name."""
    layers = manifest.get("layers") or ()
    if not all("weight_shape" in layer for layer in layers):
        return None
    binary = sum(_weights(e) for e in layers if e["intended_bits"] == 1)
    other = sum(_weights(e) for e in layers if e["intended_bits"] != 1)
    return SizeByPart(-(-binary // 8), 4 * other, 0, 0) if layers else None


def _weights(layer: Mapping[str, Any]) -> int:
    shape = layer["weight_shape"]
    if not all(type(length) is int and length >= 0 for length in shape) or prod(shape) >= 1 << 63:
        raise ValueError('"weight_shape" is no list of lengths')
    return prod(shape)


def _number(fields: Mapping[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is not None and (
        type(value) not in (int, float) or not abs(value) <= sys.float_info.max
    ):
        raise ValueError(f'"{name}" is no number')
    return value


def _is_changed(manifest: Mapping[str, Any]) -> bool:
    padding = (manifest.get("verification") or {}).get("padding") or {}
    return padding.get("mode") == "minus-one"


def _parity(manifest: Mapping[str, Any]) -> Parity | None:
    parity = (manifest.get("verification") or {}).get("parity")
    if not parity:
        return None
    return Parity(
        inputs=_number(parity, "inputs"),
        seed=_number(parity, "seed"),
        torch_to_onnx=_agreement(parity.get("torch_to_onnx")),
        onnx_to_target=_agreement(parity.get("onnx_to_target")),
    )


def _held_out(manifest: Mapping[str, Any]) -> HeldOut | None:
    accuracy = (manifest.get("verification") or {}).get("accuracy")
    if not accuracy:
        return None
    images, percent = accuracy["images"], accuracy["target_percent"]
    if _number(accuracy, "images") is None or _number(accuracy, "target_percent") is None:
        raise ValueError('"accuracy" of the exported file has no figures')
    return HeldOut(images, percent, _number(accuracy, "same_answers"))


def _agreement(step: Mapping[str, Any] | None) -> Agreement | None:
    if not step:
        return None
    return Agreement(
        max_abs_error=_number(step, "max_abs_error"),
        top1_agreement=_number(step, "top1_agreement"),
        max_abs_error_same_signs=_number(step, "max_abs_error_same_signs"),
        flip_rate=_number(step, "flip_rate"),
        unexplained_flips=_number(step, "unexplained_flips"),
    )


def _finding(fields: Mapping[str, Any]) -> Finding:
    return Finding(
        code=fields["code"],
        rule=fields["rule"],
        severity=Severity(fields["severity"]),
        layer=fields["layer"],
        message=fields["message"],
        hint=fields["hint"],
    )


def _fp32_accuracy(entry: _Entry, members: Sequence[_Entry]) -> float | None:
    dataset = entry.manifest["source"].get("dataset")
    for other in members:
        source = other.manifest["source"]
        is_trained_float = source.get("algorithm") == "fp32" and source.get("trained") is not False
        if other is not entry and is_trained_float and source.get("dataset") == dataset:
            accuracy: float | None = _number(source, "accuracy")
            return accuracy
    return None


def _pairs(
    title: str, target: str, algorithm: str | None, entry: _Entry, twin: _Entry | None
) -> Iterator[Pair]:
    if twin is None:
        return
    for device in dict.fromkeys(cell.key.device for cell in entry.cells):
        binary, fp32 = _timings(entry.cells, device), _timings(twin.cells, device)
        if fp32:
            size_ratio = twin.manifest["size_bytes"] / entry.manifest["size_bytes"]
            yield Pair(device, target, title, algorithm, binary, fp32, size_ratio)


def _timings(cells: Sequence[Cell], device: str) -> dict[int, Timing]:
    return {
        cell.key.threads: Timing(cell.latency_ms.p50, is_stable(cell))
        for cell in cells
        if cell.key.device == device
    }


def _published_pairs(pairs: Sequence[Pair], architecture: str | None) -> Iterator[Pair]:
    wanted = {(pair.device, pair.engine, published_as(pair.algorithm)) for pair in pairs}
    for pair in published_pairs():
        if (pair.device, pair.engine, pair.algorithm) in wanted and pair.model == architecture:
            yield pair


def _published_scores(scores: Sequence[Score], models: Sequence[Model]) -> tuple[Score, ...]:
    """What the paper's rows of a measured chip give, for the engine and algorithm measured.

    Over the networks that were measured too; over all three where none was.
    """
    wanted = {(own.device, own.engine, published_as(own.algorithm)) for own in scores}
    there = [pair for pair in published_pairs() if _group(pair) in wanted]
    measured = {(*_group(pair), pair.model) for model in models for pair in model.published}
    compared = {key[:3] for key in measured}
    return score(
        pair
        for pair in there
        if _group(pair) not in compared or (*_group(pair), pair.model) in measured
    )


def _group(pair: Pair) -> tuple[str, str, str | None]:
    return (pair.device, pair.engine, pair.algorithm)


def _printed_scores(scores: Sequence[Score]) -> Iterator[PublishedScore]:
    printed = published_scores()
    for algorithm in dict.fromkeys(own.algorithm for own in scores):
        if algorithm in printed and printed[algorithm].overall is not None:
            yield printed[algorithm]


def _mean_speedups(models: Sequence[Model]) -> Iterator[MeanSpeedup]:
    everything = [speedup for model in models for speedup in model.fastest]
    for device in dict.fromkeys(speedup.device for speedup in everything):
        found = [speedup for speedup in everything if speedup.device == device]
        yield MeanSpeedup(
            device=device,
            ratio=fmean(speedup.ratio for speedup in found),
            models=len(found),
            is_noisy=any(speedup.is_noisy for speedup in found),
        )
