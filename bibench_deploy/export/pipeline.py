"""The whole way from a source to a proven artifact."""

from __future__ import annotations

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from bibench_deploy import targets
from bibench_deploy.artifact import (
    SCHEMA_VERSION,
    TWIN_DIRECTORY,
    Artifact,
    file_entry,
    staged_directory,
    write_manifest,
    writing,
)
from bibench_deploy.errors import LoweringError, SourceError
from bibench_deploy.export.reference import Reference, answer
from bibench_deploy.export.source import Source
from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.graph.load import load_graph, notes, read_onnx
from bibench_deploy.graph.near_misses import near_misses
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import LintResult, lint_graph
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.float_twin import float_twin
from bibench_deploy.targets._target import (
    DEFAULT_OPTIONS,
    Execute,
    Execution,
    Refusal,
    Target,
    WriteOptions,
    Writer,
    WrittenModel,
)
from bibench_deploy.verify.output_cost import measure_output_cost
from bibench_deploy.verify.parity import Comparison, Observation, Parity, proof_inputs

if TYPE_CHECKING:
    import torch

Progress = Callable[[str], None]
_Array = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int64]
PARITY_INPUTS = 8
PARITY_SEED = 0
# So many images give the ranges of what is written in fewer bits.
RANGE_IMAGES = 64


def export_source(
    source: Source,
    *,
    target: str,
    out: Path,
    baseline: bool = False,
    verify: bool = True,
    options: WriteOptions = DEFAULT_OPTIONS,
    progress: Progress = lambda _: None,
) -> Artifact:
    """Export a source to a target, and prove that the result computes the same.

    Args:
        source: what `resolve_source` or `from_module` gave.
        target: name of the target.
        out: folder of the artifact.
        baseline: whether to write the FP32 twin too.
        verify: whether to prove parity.
        options: what the user chose of the file that the target writes.
        progress: is told what is being done, one phrase at a time.

    Raises:
        OptionError: an option that the target does not have.
        LoweringError: the target cannot hold the model; names every layer in the way.
        ConversionError: the engine's converter failed, or a binary layer became float.
        ParityError: the result does not compute what the source computes.
    """
    writer_target = targets.load(target)
    targets.check_options(writer_target, options)
    with writer_target.open_writer() as writer, staged_directory(out) as directory:
        onnx_path = directory / writer_target.onnx_name
        progress("writing ONNX")
        reference = write_onnx(source, onnx_path)
        graph = load_graph(source.onnx_path or onnx_path)
        for note in notes(graph):
            progress(note)
        linted = check_held(graph, writer_target, options)
        shape = (1, *shape_of(graph.graph.inputs[0])[1:])
        _check_test_set(source, shape, shape_of(graph.graph.outputs[0]))
        inputs = proof_inputs(shape, PARITY_INPUTS, PARITY_SEED)
        comparison = Comparison(graph, inputs)

        def compare_with_torch() -> Parity | None:
            if reference is None or not verify:
                return None
            progress("comparing PyTorch with ONNX Runtime")
            return comparison.with_engine(reference.observe(graph, inputs), "PyTorch")

        compared = inputs if verify else None
        model = None if reference is None else reference.model
        export = _Export(source, model, writer_target, writer, options, compared, progress)
        changed = writer_target.changed(graph, options)
        if changed is None:
            export.write(graph, comparison, directory, linted, compare_with_torch)
        else:
            # The proof is of the network that was asked for; how far it is from this one is told.
            changes = Comparison(changed, inputs)
            export.write(changed, changes, directory, linted, compare_with_torch, comparison)
        if baseline and not binary_convs(graph):
            progress("no binary layer, so it is its own FP32 twin")
        elif baseline:
            twin = graph.clone()
            canonical_binarization(twin)
            float_twin(twin)
            twin_directory = directory / TWIN_DIRECTORY
            twin_directory.mkdir()
            with writing(twin_directory / writer_target.onnx_name) as twin_path:
                ir.save(twin, twin_path)
            export.write(twin, Comparison(twin, inputs), twin_directory, None, lambda: None)
    return Artifact.load(out)


def _check_test_set(source: Source, shape: tuple[int, ...], output: tuple[int, ...]) -> None:
    if source.test_set is None:
        return
    images, labels = source.test_set()
    if len(output) != 2 or labels.min() < 0 or labels.max() >= output[1]:
        raise SourceError(
            f"the held-out images have labels from {labels.min()} to {labels.max()}, but "
            f"{source.name} gives {list(output)}; they need one score for each class, [N, classes]"
        )
    if images.shape[1:] != shape[1:]:
        raise SourceError(
            f"the held-out images are {list(images.shape[1:])}, but {source.name} takes "
            f"{list(shape[1:])}; give images that are preprocessed as it expects them"
        )


def write_onnx(source: Source, path: Path) -> Reference | None:
    """Write a source as ONNX; gives what was written, if it is a module."""
    if source.model is None:
        assert source.onnx_path is not None
        with writing(path):
            onnx.save(read_onnx(source.onnx_path), path)
        return None

    import torch

    from bibench_deploy.export.to_onnx import export_onnx
    from bibench_train.harden import harden

    try:
        model = harden(source.model)
    except (RuntimeError, TypeError) as error:
        kind = type(source.model).__name__
        raise SourceError(f"{source.name}: {kind} cannot be copied: {error}") from error
    return Reference(model, export_onnx(model, torch.zeros(1, *source.input_shape), path))


def check_held(
    graph: ir.Model, target: Target, options: WriteOptions = DEFAULT_OPTIONS
) -> LintResult:
    """Lint a graph for a target, and refuse what the target cannot hold.

    Raises:
        LoweringError: with every reason at once, each with the code of its rule.
    """
    linted = lint_graph(graph, target, options)
    reasons = [
        str(Refusal(finding.rule, finding.layer, f"{finding.code} {finding.message}", finding.hint))
        for finding in linted.findings
        if finding.severity is Severity.ERROR
    ]
    if reasons:
        raise LoweringError(target.name, reasons)
    return linted


class _Export:
    """What the model and its twin share while both are written."""

    def __init__(
        self,
        source: Source,
        model: torch.nn.Module | None,
        target: Target,
        writer: Writer,
        options: WriteOptions,
        inputs: _Array | None,
        progress: Progress,
    ) -> None:
        self._source = source
        self._model = model
        self._target = target
        self._writer = writer
        self._options = options
        self._inputs = inputs  # None: parity is not proved
        self._progress = progress

    def write(
        self,
        graph: ir.Model,
        comparison: Comparison,
        directory: Path,
        linted: LintResult | None,
        compare_with_torch: Callable[[], Parity | None],
        original: Comparison | None = None,
    ) -> None:
        """Lower, convert and prove one graph, and write its manifest.

        Args:
            graph: what the file shall compute.
            comparison: of that graph.
            directory: where the files go.
            linted: what lint said of it; None for the twin.
            compare_with_torch: proves that PyTorch computes what the source's graph does.
            original: of the source's graph, where `graph` is to compute something else.
        """
        is_twin = linted is None
        subject = "the FP32 twin" if is_twin else "the model"
        self._progress(f"converting {subject} for {self._target.title}")
        lowered = self._target.lower(graph)
        # An engine's converter may be a process of its own: PyTorch is compared meanwhile.
        with ThreadPoolExecutor(max_workers=1) as pool:
            # Interrupted while it starts, a thread is not waited for: it must not be writing yet.
            pool.submit(int).result()
            writing = pool.submit(self._writer.write, lowered, directory, self._options, graph)
            torch_to_onnx = compare_with_torch()
            written = writing.result()
        parity, seen = None, None
        if self._inputs is not None:
            self._progress(f"comparing ONNX Runtime with {self._target.title} for {subject}")
            seen = written.execute(self._inputs)
            signs = None
            if seen.signs:
                signs = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
            # With the graph itself, not the lowered one: the proof covers the lowering too.
            onnx_to_target = comparison.with_engine(
                Observation(seen.outputs, signs), self._target.title
            )
            parity = {
                "inputs": PARITY_INPUTS,
                "seed": PARITY_SEED,
                "torch_to_onnx": None if torch_to_onnx is None else torch_to_onnx.to_json(),
                "onnx_to_target": onnx_to_target.to_json(),
            }
        test_set = None if seen is None or is_twin else self._source.test_set
        answers = None if test_set is None else _Answers(test_set, self._model, original)
        accuracy = self._test(answers, written.execute)
        storage, unfused = None, None
        if not is_twin and self._options.allow_unfused_scales:
            self._progress("timing the scales that are not fused")
            unfused = self._writer.measure_unfused_scales(lowered, written, self._options)
        # The twin is there to be compared with, so it keeps its 32 bits.
        if not is_twin and not self._options.is_exact:
            written, storage = self._store_smaller(written, seen, accuracy, self._images(graph))
            accuracy = self._test(answers, written.execute)
        padding = written.padding
        if original is not None:
            padding = self._cost_of_change(original, seen)
        # Written layers are those of the source, and so are those that were meant to be binary.
        resident = [layer["name"] for layer in written.layers if layer["actual_bits"] == 1]
        verification = {
            "residency": {"intended": len(binary_convs(graph)), "resident": len(resident)},
            "parity": parity,
            "accuracy": accuracy,
            "storage": storage,
            "unfused_scales": unfused,
            "padding": padding,
        }
        write_manifest(directory, self._manifest(graph, directory, written, linted, verification))

    def _store_smaller(
        self,
        written: WrittenModel,
        seen: Execution | None,
        accuracy: dict[str, Any] | None,
        images: _Array,
    ) -> tuple[WrittenModel, dict[str, Any]]:
        """Write what is float in fewer bits; gives the smaller model, and what that costs."""
        self._progress("writing the model in fewer bits")
        exact_size = written.files["model"].stat().st_size
        assert written.store_smaller is not None  # the options were checked
        # Takes the exact file's place.
        smaller = written.store_smaller(self._options, images)
        storage: dict[str, Any] = {
            "exact_size_bytes": exact_size,
            "size_bytes": smaller.files["model"].stat().st_size,
            "cost": None,
            "exact_accuracy": accuracy,
        }
        if seen is not None and self._inputs is not None:
            cost = measure_output_cost(seen, smaller.execute(self._inputs))
            storage["cost"] = cost.to_json()
        return smaller, storage

    def _images(self, graph: ir.Model) -> _Array:
        """Inputs of the kind that the model is for: held-out images without their labels."""
        if self._source.test_set is not None:
            return self._source.test_set()[0][:RANGE_IMAGES]
        if self._inputs is not None:
            return self._inputs
        return proof_inputs(shape_of(graph.graph.inputs[0]), PARITY_INPUTS, PARITY_SEED)

    def _cost_of_change(self, original: Comparison, seen: Execution | None) -> dict[str, Any]:
        """What another padding than the source's does to the outputs; fails nothing."""
        cost = None if seen is None else measure_output_cost(Execution(original.outputs, {}), seen)
        return {
            "mode": self._options.padding,
            "cost": None if cost is None else cost.to_json(),
        }

    def _manifest(
        self,
        graph: ir.Model,
        directory: Path,
        written: WrittenModel,
        linted: LintResult | None,
        verification: dict[str, Any],
    ) -> dict[str, Any]:
        is_twin = linted is None
        files = {role: file_entry(path) for role, path in written.files.items()}
        files["onnx"] = file_entry(directory / self._target.onnx_name)
        output = graph.graph.outputs[0]
        parts = self._target.size_by_part(written.files["model"])
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "bibench-artifact",
            "name": self._source.name,
            "target": self._target.name,
            "role": "fp32_twin" if is_twin else "model",
            "source": self._source_facts(files["onnx"]["sha256"], is_twin),
            "options": self._options.to_json(),
            "input": written.input,
            "output": {"name": output.name, **(written.output or _as_in_pytorch(output))},
            "files": files,
            "model_sha256": files["model"]["sha256"],
            "size_bytes": files["model"]["size_bytes"],
            "size_by_part": None if parts is None else parts.to_json(),
            "layers": written.layers,
            "verification": verification,
            "findings": _grave(linted),
            "unproven": [] if is_twin else [asdict(miss) for miss in near_misses(graph)],
            "notes": list(notes(graph)),
            "versions": {**_own_versions(), **written.versions},
        }

    def _test(self, answers: _Answers | None, execute: Execute) -> dict[str, Any] | None:
        """How many held-out images a written model answers rightly; None without a test set."""
        if answers is None:
            return None
        self._progress("answering the held-out images")
        return answers.compare(execute)

    def _source_facts(self, onnx_sha256: str, is_twin: bool) -> dict[str, Any]:
        facts: dict[str, Any] = {**self._source.facts, "onnx_sha256": onnx_sha256}
        if is_twin:
            facts.update(accuracy=None, trained=False)
        return facts


def _as_in_pytorch(value: ir.Value) -> dict[str, Any]:
    """Shape, layout and dtype of an output, as the manifest lists them."""
    shape = list(shape_of(value))
    layout = {2: "NC", 4: "NCHW"}.get(len(shape), "")  # of three axes: a sequence, or tokens
    return {"shape": shape, "layout": layout, "dtype": "float32"}


class _Answers:
    """The held-out images, and the source's answers to them; fetched when first asked for.

    Args:
        test_set: gives images and labels.
        model: the source, where it is a module.
        original: of the source's graph, where the written model is to compute something else.
    """

    def __init__(
        self,
        test_set: Callable[[], tuple[_Array, _Labels]],
        model: torch.nn.Module | None,
        original: Comparison | None,
    ) -> None:
        self._test_set = test_set
        self._model = model
        self._original = original
        self._found: tuple[_Array, _Labels, _Labels | None] | None = None

    def compare(self, execute: Execute) -> dict[str, Any]:
        """How many images a written model and the source answer rightly, and alike."""
        if self._found is None:
            images, labels = self._test_set()
            expected = None
            if self._model is not None:
                expected = answer(self._model, images)
            elif self._original is not None:
                expected = self._original.run(images).argmax(axis=1)
            self._found = images, labels, expected
        images, labels, expected = self._found
        answers = execute(images, wants_signs=False).outputs.argmax(axis=1)
        correct = int((answers == labels).sum())
        result = {
            "images": len(labels),
            "target_correct": correct,
            "target_percent": round(100 * correct / len(labels), 2),
        }
        if expected is not None:
            engine = "onnx" if self._model is None else "torch"
            result[f"{engine}_correct"] = int((expected == labels).sum())
            result["same_answers"] = int((answers == expected).sum())
        return result


def _grave(linted: LintResult | None) -> list[dict[str, Any]]:
    """Findings as the manifest keeps them; what is only worth knowing is for lint to tell."""
    findings = () if linted is None else linted.findings
    return [item.to_json() for item in findings if item.severity is not Severity.INFO]


def _own_versions() -> dict[str, str]:
    from importlib.util import find_spec

    packages = ["bibench", "onnx", "onnxruntime", *(["torch"] if find_spec("torch") else [])]
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
