"""The tables of a report, as text: each format only draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bibench_deploy.lint.finding import Severity
from bibench_deploy.profiling.affinity import ranges
from bibench_deploy.profiling.operators import shares
from bibench_deploy.reports import wording
from bibench_deploy.reports.content import (
    UNTRAINED,
    Agreement,
    Model,
    Report,
    Run,
    is_stable,
)
from bibench_deploy.tracks.hardware import PublishedScore, Score, published_chips


@dataclass(frozen=True)
class Table:
    """Rows of text under headers.

    Attributes:
        title: what the table is about.
        headers: one for each column.
        rows: the cells, as many as there are headers.
        numeric: the columns that hold numbers, to be aligned at their right.
        flagged: the rows a reader must not take for a good result.
        notes: sentences to read with the table.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    flagged: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


# Of one model; what else there is takes less time than any of these.
MOST_OPERATORS = 8


def all_tables(report: Report) -> tuple[Table, ...]:
    """The tables in reading order, without those that would be empty."""
    builders: tuple[Callable[[Report], Table], ...] = (
        latency_table,
        speedup_table,
        hardware_table,
        published_table,
        size_table,
        storage_table,
        accuracy_table,
        parity_table,
        operators_table,
        findings_table,
    )
    return tuple(table for table in (build(report) for build in builders) if table.rows)


def latency_table(report: Report) -> Table:
    """Every cell that was measured; why a cell is noisy stands below."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    reasons: list[str] = []
    noted: dict[str, list[str]] = {}
    cells = [cell for model in report.models for cell in model.cells]
    has_devices = len({cell.key.device for cell in cells}) > 1
    has_conditions = any(cell.clock_mhz or cell.temperature_c for cell in cells)
    for model in report.models:
        for cell in model.cells:
            name, threads = wording.name(model), cell.key.threads
            if not is_stable(cell):
                flagged.add(len(rows))
                on = f" on {cell.key.device}" if has_devices else ""
                reasons.append(
                    f"{name}{on}, {wording.threads(threads)}: {cell.verdict}, so no result; "
                    f"{cell.reason}."
                )
            if cell.note and name not in noted.setdefault(cell.note, []):
                noted[cell.note].append(name)
            kernels = (cell.runtime.get("binary_kernel"), cell.runtime.get("float_kernel"))
            rows.append(
                (
                    name,
                    cell.key.device,
                    str(threads),
                    wording.milliseconds(cell.latency_ms.p50),
                    wording.milliseconds(cell.latency_ms.p90),
                    wording.interval(cell.latency_ms),
                    wording.change(cell.drift_over_run),
                    str(cell.sample_count),
                    *(wording.conditions(cell) if has_conditions else ()),
                    cell.verdict,
                    " + ".join(str(kernel) for kernel in kernels if kernel) or wording.NOT_KNOWN,
                )
            )
    notes = [f"{', '.join(names)}: {note}." for note, names in noted.items()]
    return Table(
        title="Latency",
        headers=(
            "Model",
            "Device",
            "Threads",
            "p50",
            "p90",
            "95 % interval",
            "Drift",
            "Samples",
            *(("Clock", "Hottest") if has_conditions else ()),
            "Verdict",
            "Kernels",
        ),
        rows=tuple(rows),
        numeric=frozenset(range(2, 10 if has_conditions else 8)),
        flagged=frozenset(flagged),
        notes=(*reasons, *notes),
    )


def speedup_table(report: Report) -> Table:
    """Speed-up against the FP32 twin, per thread count and at the fastest ones."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    for model in report.models:
        for device in report.devices:
            fastest = model.fastest_on(device)
            if fastest is None:
                continue
            if fastest.is_noisy:
                flagged.add(len(rows))
            per_count = (wording.speedup(model.speedup(device, n)) for n in report.threads)
            compared = f"{fastest.threads} against {fastest.twin_threads}"
            rows.append(
                (wording.name(model), device, *per_count, wording.speedup(fastest), compared)
            )
    for mean in report.mean_speedups:
        if mean.is_noisy:
            flagged.add(len(rows))
        blanks = ("",) * len(report.threads)
        noisy = " noisy" if mean.is_noisy else ""
        row = (*blanks, f"{wording.ratio(mean.ratio)}{noisy}", "")
        rows.append((f"mean of {mean.models}", mean.device, *row))
    counts = tuple(wording.threads(n) for n in report.threads)
    return Table(
        title="Speed-up against the FP32 twin",
        headers=("Model", "Device", *counts, "Each at its fastest", "Threads"),
        rows=tuple(rows),
        numeric=frozenset(range(2, 3 + len(counts))),
        flagged=frozenset(flagged),
    )


def hardware_table(report: Report) -> Table:
    """The hardware track of what was measured, and beside it of the paper, ours and printed."""
    chips = published_chips()
    rows = [hardware_row("measured", own.device, own, report.threads) for own in report.scores]
    flagged = frozenset(index for index, own in enumerate(report.scores) if own.is_noisy)
    rows += [
        hardware_row(wording.RECOMPUTED, chips[theirs.device], theirs, report.threads)
        for theirs in report.published
    ]
    rows += [printed_row(theirs, len(report.threads)) for theirs in report.printed]
    return Table(
        title="Hardware track (BiBench, Equation 9)",
        headers=hardware_headers(report.threads),
        rows=tuple(rows),
        numeric=frozenset(range(4, 8 + len(report.threads))),
        flagged=flagged,
        notes=(wording.HARDWARE_CONVENTION,),
    )


def hardware_headers(threads: Sequence[int]) -> tuple[str, ...]:
    """The columns of a table of scores."""
    counts = tuple(wording.threads(n) for n in threads)
    last = ("Each at its fastest", "Compression", "Overall")
    return ("Device", "Engine", "Algorithm", "Figures", "Models", *counts, *last)


def hardware_row(whose: str, device: str, score: Score, threads: Sequence[int]) -> tuple[str, ...]:
    """One row of such a table."""
    noisy = " noisy" if score.is_noisy else ""
    return (
        device,
        wording.engine(score.engine),
        score.algorithm or wording.NOT_KNOWN,
        whose,
        str(score.models),
        *(wording.ratio(score.by_threads.get(n)) for n in threads),
        f"{wording.ratio(score.speed_up)}{noisy}",
        wording.ratio(score.compression),
        f"{wording.ratio(score.overall)}{noisy if score.overall else ''}",
    )


def printed_row(printed: PublishedScore, count_columns: int) -> tuple[str, ...]:
    """The row of what the paper prints for an algorithm, with as many blank columns."""
    figures = (printed.speed_up, printed.compression, printed.overall)
    return (
        f"its {len(published_chips())} chips",
        wording.NOT_KNOWN,
        printed.algorithm,
        wording.PRINTED,
        wording.NOT_KNOWN,
        *(wording.NOT_KNOWN,) * count_columns,
        *(wording.ratio(figure) for figure in figures),
    )


def published_table(report: Report) -> Table:
    """Latencies beside those that the paper prints for the same chip, network and engine."""
    chips = published_chips()
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    for model in report.models:
        for theirs in model.published:
            own = next(pair for pair in model.pairs if pair.device == theirs.device)
            printed = {speedup.threads: speedup.ratio for speedup in theirs.speedups}
            for speedup in own.speedups:
                n = speedup.threads
                if n not in printed:
                    continue
                if speedup.is_noisy:
                    flagged.add(len(rows))
                rows.append(
                    (
                        wording.name(model),
                        chips[theirs.device],
                        str(n),
                        wording.milliseconds(own.fp32[n].ms),
                        wording.milliseconds(theirs.fp32[n].ms),
                        wording.milliseconds(own.binary[n].ms),
                        wording.milliseconds(theirs.binary[n].ms),
                        wording.speedup(speedup),
                        wording.ratio(printed[n]),
                    )
                )
    return Table(
        title="Beside the published latencies",
        headers=(
            "Model",
            "Chip",
            "Threads",
            "FP32 p50",
            "FP32 published",
            "Binarized p50",
            "Binarized published",
            "Speed-up",
            "Speed-up published",
        ),
        rows=tuple(rows),
        numeric=frozenset(range(2, 9)),
        flagged=frozenset(flagged),
        notes=(wording.PUBLISHED_LATENCIES,),
    )


def size_table(report: Report) -> Table:
    """Size of the deployed file, and what became 1-bit in it."""
    rows = tuple(
        (
            wording.name(model),
            model.target,
            wording.size(model.size_bytes),
            wording.ratio(model.size_ratio),
            wording.residency(model.residency),
            model.model_sha256[:12],
        )
        for model in report.models
    )
    return Table(
        title="Size",
        headers=("Model", "Target", "File", "Smaller than twin", "Binary layers", "sha256"),
        rows=rows,
        numeric=frozenset({2, 3}),
        flagged=frozenset(
            index
            for index, model in enumerate(report.models)
            if model.residency.resident < model.residency.intended
        ),
    )


def storage_table(report: Report) -> Table:
    """Where the bytes of each file go, and below it where they would go in theory."""
    rows: list[tuple[str, ...]] = []
    for model in report.models:
        for what, split in (("file", model.storage), ("in theory", model.storage_in_theory)):
            if split is None or model.storage is None:
                continue
            parts = (split.binary_weights, split.float_weights, split.padding, split.metadata)
            sizes = (wording.size(part) for part in (*parts, split.total))
            rows.append((wording.name(model), what, *sizes))
    return Table(
        title="Storage by part",
        headers=(
            "Model",
            "Counted",
            "Binary weights",
            "Float weights",
            "Padding",
            "Metadata",
            "Total",
        ),
        rows=tuple(rows),
        numeric=frozenset({2, 3, 4, 5, 6}),
        notes=(wording.STORAGE,),
    )


def accuracy_table(report: Report) -> Table:
    """Top-1 accuracy of each run, and of what was exported from it; untrained ones have none."""
    rows = tuple(
        (
            wording.name(model),
            wording.percent(model.accuracy),
            wording.percent(model.held_out.percent if model.held_out else None),
            wording.answers(model),
            UNTRAINED if model.is_untrained else wording.held_out(model),
        )
        for model in report.models
        if model.accuracy is not None or (model.is_untrained and not model.is_twin)
    )
    return Table(
        title="Accuracy",
        headers=("Model", "PyTorch", "Exported", "Same answers", "Measured on"),
        rows=rows,
        numeric=frozenset({1, 2, 3}),
    )


def parity_table(report: Report) -> Table:
    """How close the engines are, step by step."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    for model in report.models:
        if model.parity is None:
            flagged.add(len(rows))
            rows.append((wording.name(model), "not checked", *(wording.NOT_KNOWN,) * 6))
            continue
        steps = (
            ("PyTorch → ONNX Runtime", model.parity.torch_to_onnx),
            (f"ONNX Runtime → {wording.target(model)}", model.parity.onnx_to_target),
        )
        for step, agreement in steps:
            if agreement is None:
                continue
            # The top-1 answer of random weights means nothing, and one explained flip turns it.
            is_doubtful = not agreement.is_agreed and not model.is_untrained
            if is_doubtful or agreement.unexplained_flips:
                flagged.add(len(rows))
            rows.append((wording.name(model), step, *_agreement_cells(agreement, model)))
    return Table(
        title="Parity",
        headers=(
            "Model",
            "Step",
            "Top-1 agreement",
            "Max abs error",
            "With equal signs",
            "Flip rate",
            "Unexplained flips",
            "Inputs",
        ),
        rows=tuple(rows),
        numeric=frozenset({2, 3, 4, 5, 6, 7}),
        flagged=frozenset(flagged),
    )


def operators_table(report: Report) -> Table:
    """Where the time of each model goes; the longest operators, and the rest in one row."""
    rows = []
    for model in report.models:
        for key, operators in model.operators.items():
            whose = (wording.name(model), key.device, str(key.threads))
            parts = shares(operators)
            longest, rest = operators[:MOST_OPERATORS], operators[MOST_OPERATORS:]
            for operator, part in zip(longest, parts, strict=False):
                figures = (wording.milliseconds(operator.ms), f"{100 * part:.1f} %")
                rows.append((*whose, operator.type, wording.count(operator.count), *figures))
            if rest:
                figures = (
                    wording.milliseconds(sum(operator.ms for operator in rest)),
                    f"{100 * sum(parts[MOST_OPERATORS:]):.1f} %",
                )
                count = sum(operator.count for operator in rest)
                rows.append((*whose, f"{len(rest)} others", wording.count(count), *figures))
    return Table(
        title="Operators",
        headers=("Model", "Device", "Threads", "Operator", "Count", "Time", "Share"),
        rows=tuple(rows),
        numeric=frozenset({2, 4, 5, 6}),
        notes=(wording.OPERATORS,) if rows else (),
    )


def findings_table(report: Report) -> Table:
    """What `bibench lint` found; a clean model says so in a row of its own."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    for model in report.models:
        if model.is_twin:
            continue
        if not model.findings:
            rows.append((wording.name(model), *(wording.NOT_KNOWN,) * 3, "no findings"))
        for finding in model.findings:
            if finding.severity is Severity.ERROR:
                flagged.add(len(rows))
            layer = finding.layer or wording.NOT_KNOWN
            text = f"{finding.message}; {finding.hint}" if finding.hint else finding.message
            rows.append((wording.name(model), finding.code, finding.severity.value, layer, text))
    return Table(
        title="Lint findings",
        headers=("Model", "Code", "Severity", "Layer", "Message"),
        rows=tuple(rows),
        flagged=frozenset(flagged),
    )


_UNITS = {"mib": "MiB", "s": "s"}


def environment_rows(run: Run) -> tuple[tuple[str, str], ...]:
    """Name and value of what is known about a run's machine and software."""
    rows = [
        ("run", run.name),
        ("started", run.started_at),
        ("preset", run.preset),
        ("bibench", run.bibench_version),
    ]
    if run.cpus is not None:
        rows.append(("kept on cores", ranges(run.cpus)))
    if run.is_pinned:
        rows.append(("governor held at", "performance"))
    for key, value in run.environment.items():
        if key == "has_taskset":  # what can be done there is no fact of a figure
            continue
        # Lists, such as the clock of every core, are for the JSON.
        if isinstance(value, str | int | float) and value is not False:
            name, _, unit = key.rpartition("_")
            is_unit = unit in _UNITS
            shown = f"{value} {_UNITS[unit]}" if is_unit else "yes" if value is True else str(value)
            rows.append(((name if is_unit else key).replace("_", " "), shown))
    return tuple(rows)


def runtime_rows(report: Report) -> tuple[tuple[str, str], ...]:
    """Name and details of each runtime that executed a cell."""
    rows: dict[tuple[str, str], None] = {}
    for cell in (cell for model in report.models for cell in model.cells):
        details = {key: value for key, value in cell.runtime.items() if key != "name" and value}
        if "sha256" in details:
            details["sha256"] = str(details["sha256"])[:12]
        text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in details.items())
        rows.setdefault((str(cell.runtime.get("name", "runtime")), text))
    return tuple(rows)


def _agreement_cells(agreement: Agreement, model: Model) -> tuple[str, ...]:
    inputs = model.parity.inputs if model.parity else None
    is_random = model.is_untrained and not agreement.is_agreed
    return (
        "random weights" if is_random else wording.fraction(agreement.top1_agreement),
        wording.error_size(agreement.max_abs_error),
        wording.error_size(agreement.max_abs_error_same_signs),
        wording.fraction(agreement.flip_rate),
        wording.count(agreement.unexplained_flips),
        wording.count(inputs),
    )
