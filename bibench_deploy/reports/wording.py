"""The words and numbers of a report, said the same way in every format."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bibench_deploy.profiling.journal import Cell
from bibench_deploy.profiling.statistics import Latency
from bibench_deploy.reports.content import UNTRAINED, Model, Report, Residency
from bibench_deploy.tracks.hardware import Speedup

NOT_KNOWN = "–"

_SPELLINGS = {"dabnn": "daBNN", "lce": "LCE", "onnx": "ONNX Runtime"}

HOST_CHECK_TITLE = "Measured on x86: a host check, not a board result."

_HOST_CHECKS = {
    "lce": (
        "LCE's fast 1-bit kernels are written for ARM. On x86 it falls back to an indirect BGEMM, "
        "single-threaded, while the FP32 twin runs in XNNPACK with vector instructions: a small "
        "network gains nothing in latency here. "
    ),
    "dabnn": "daBNN has no fast kernel for x86. ",
}
_HOST_CHECK = (
    "The file is the one that a board gets, so its size holds there; latency has to be measured "
    "there."
)

CONVENTION = (
    "Speed-up and size ratio are FP32 over binary: more than 1× is in favour of the binarized "
    "model. The mean is over models, each model and each twin at its own fastest thread count."
)

HARDWARE_CONVENTION = (
    "Overall is √((speed-up² + compression²) / 2), speed-up the mean over models with each model "
    "and each FP32 twin at its own fastest thread count. The paper does not say over what it "
    "takes the mean, and its printed speed-ups follow from its printed latencies under none that "
    "was tried: beside what it prints stands what its latencies give by this convention."
)
RECOMPUTED = "BiBench, recomputed"
PRINTED = "BiBench, printed"
PAPER_SOURCE = (
    "BiBench: Benchmarking and Analyzing Network Binarization (Qin et al., ICML 2023), "
    "https://arxiv.org/abs/2301.11233, Tables 3 and 17 to 20."
)
NO_PUBLISHED_SIZES = (
    "The paper prints no sizes of these networks, so its rows alone give no compression and no "
    "overall; it prints no figure for XNOR and XNOR++, which its engines cannot hold."
)
STORAGE = (
    "Float weights are every constant that is not in one bit, with the multipliers, biases and "
    "thresholds of binary layers; padding fills up the words of binary weights; metadata is the "
    "rest of the file. In theory: one bit for each binary weight of a layer, 32 for every other."
)
OPERATORS = (
    "Operators were timed by the runtime's own profiler, in a run that is part of no latency: the "
    "shares count, the times are longer than without a profiler."
)
PUBLISHED_LATENCIES = (
    "Published: BiBench (ICML 2023), Tables 17 to 20, for the same chip, network and engine; "
    "algorithms that leave nothing but BNN at inference are compared with its BNN. The paper "
    "states neither input size nor interval."
)


def milliseconds(value: float | None) -> str:
    """Format a latency to three significant digits.

    Example:
        >>> milliseconds(3.6149), milliseconds(121.4), milliseconds(0.04512), milliseconds(None)
        ('3.61 ms', '121 ms', '0.0451 ms', '–')
    """
    return NOT_KNOWN if value is None else f"{_three_digits(value)} ms"


def interval(latency: Latency) -> str:
    """Format the interval of the median.

    Example:
        >>> interval(Latency(p50=3.61, p90=3.9, low_ms=3.582, high_ms=3.7, mad_ms=0.02))
        '3.58–3.70 ms'
    """
    if latency.low_ms is None or latency.high_ms is None:
        return NOT_KNOWN
    return f"{_three_digits(latency.low_ms)}–{_three_digits(latency.high_ms)} ms"


def conditions(cell: Cell) -> tuple[str, str]:
    """Format the clock and the highest temperature while a cell was measured."""
    clock = NOT_KNOWN if cell.clock_mhz is None else f"{cell.clock_mhz} MHz"
    hottest = NOT_KNOWN if cell.temperature_c is None else f"{cell.temperature_c:.1f} °C"
    return clock, hottest


def size(size_bytes: int | None) -> str:
    """Format a file size in decimal units, as disks and stores count them.

    Example:
        >>> size(812), size(61312), size(4_170_000), size(46_800_000)
        ('812 B', '61.3 kB', '4.17 MB', '46.8 MB')
    """
    if size_bytes is None:
        return NOT_KNOWN
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if amount < 999.5:
            return f"{size_bytes} B" if unit == "B" else f"{_three_digits(amount)} {unit}"
        amount /= 1000
    return f"{_three_digits(amount)} GB"


def ratio(value: float | None) -> str:
    """Format how many times faster or smaller.

    Example:
        >>> ratio(17.843), ratio(0.7751), ratio(None)
        ('17.8×', '0.78×', '–')
    """
    if value is None:
        return NOT_KNOWN
    return f"{value:.2f}×" if value < 9.995 else f"{value:.1f}×"


def smaller(value: float) -> str:
    """Format how many times smaller, or larger, than its twin a model is.

    Example:
        >>> smaller(17.843), smaller(0.98)
        ('17.8× smaller', '1.02× larger')
    """
    return f"{ratio(value)} smaller" if value >= 1 else f"{ratio(1 / value)} larger"


def change(value: float | None) -> str:
    """Format a change as a signed percentage.

    Example:
        >>> change(0.0314), change(-0.5), change(None)
        ('+3.1 %', '−50.0 %', '–')
    """
    return NOT_KNOWN if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def change_interval(value: tuple[float, float] | None) -> str:
    """Format the interval of a change.

    Example:
        >>> change_interval((-0.002, 0.031))
        '−0.2 % to +3.1 %'
    """
    return NOT_KNOWN if value is None else f"{change(value[0])} to {change(value[1])}"


def comparison_rule(threshold: float) -> str:
    """Say when a change of latency counts."""
    return (
        "A change counts when its 95 % interval excludes 0 and it exceeds both "
        f"{100 * threshold:g} % and the span of either cell's own 95 % interval. Cells that are "
        "not stable are never compared."
    )


def speedup(value: Speedup | None) -> str:
    """Format a speed-up; one with a noisy side says so."""
    if value is None:
        return NOT_KNOWN
    return ratio(value.ratio) + (" noisy" if value.is_noisy else "")


def percent(value: float | None) -> str:
    """Format an accuracy that is already in percent.

    Example:
        >>> percent(98.8888), percent(None)
        ('98.89 %', '–')
    """
    return NOT_KNOWN if value is None else f"{value:.2f} %"


def fraction(value: float | None) -> str:
    """Format a fraction as percent, never rounding a defect away.

    Example:
        >>> fraction(1.0), fraction(0.0), fraction(0.875), fraction(0.99999), fraction(2e-6)
        ('100 %', '0 %', '87.5 %', '99.999 %', '0.0002 %')
    """
    if value is None:
        return NOT_KNOWN
    text = ""
    for digits in range(1, 15):
        text = f"{value * 100:.{digits}f}"
        if value in (0.0, 1.0) or float(text) not in (0.0, 100.0):
            break
    return f"{text.rstrip('0').rstrip('.')} %"


def error_size(value: float | None) -> str:
    """Format a largest absolute difference.

    Example:
        >>> error_size(1.19e-6), error_size(0.0), error_size(None)
        ('1.2e-06', '0', '–')
    """
    if value is None:
        return NOT_KNOWN
    return "0" if value == 0 else f"{value:.1e}"


def count(value: int | None) -> str:
    """Format a count of things."""
    return NOT_KNOWN if value is None else str(value)


def threads(number: int) -> str:
    """Format a thread count.

    Example:
        >>> threads(1), threads(4)
        ('1 thread', '4 threads')
    """
    return f"{number} thread" if number == 1 else f"{number} threads"


def residency(facts: Residency) -> str:
    """Say how many of the intended binary layers run in the binary kernel."""
    if facts.intended == 0:
        return "no binary layers"
    what = "convolution" if facts.is_all_convolutions else "layer"
    plural = "" if facts.intended == 1 else "s"
    verb = f"run as {facts.kernel}" if facts.kernel else "are 1-bit in the artifact"
    return f"{facts.resident} of {facts.intended} binary {what}{plural} {verb}"


def held_out(model: Model) -> str:
    """Say what an accuracy is over, as far as the manifest knows."""
    images = f"{model.images} held-out images" if model.images else "held-out images"
    return f"{images} of {model.dataset}" if model.dataset else images


def answers(model: Model) -> str:
    """Say how many held-out images the exported file answers as PyTorch does."""
    held_out = model.held_out
    if held_out is None or held_out.same_answers is None:
        return NOT_KNOWN
    return f"{held_out.same_answers} of {held_out.images}"


def name(model: Model) -> str:
    """The model's name in tables: an untrained one is never without the word."""
    return f"{model.title} (untrained)" if model.is_untrained else model.title


def target(model: Model) -> str:
    """Name the runtime that the model was written for, as its makers spell it."""
    return engine(model.target)


def engine(target_name: str) -> str:
    """Name a target's runtime as its makers spell it.

    Example:
        >>> engine("lce"), engine("unheard-of")
        ('LCE', 'unheard-of')
    """
    return _SPELLINGS.get(target_name, target_name)


def engines(model: Model) -> str:
    """Name the engines whose outputs were compared."""
    has_torch = model.parity is not None and model.parity.torch_to_onnx is not None
    return (
        f"PyTorch, ONNX Runtime and {target(model)}"
        if has_torch
        else f"ONNX Runtime and {target(model)}"
    )


def summary(report: Report) -> str:
    """The report in one sentence: size, parity, accuracy."""
    model = report.headline
    if not model.is_binarized:
        return f"{model.title} takes {size(model.size_bytes)} and has no binary layer."
    clauses = []
    if model.size_ratio is not None:
        clauses.append(f"is {smaller(model.size_ratio)} than its FP32 twin")
    else:
        clauses.append(f"takes {size(model.size_bytes)}")
    clauses.append(_parity_clause(model))
    if model.is_untrained:
        clauses.append(f"has {UNTRAINED}")
    elif model.is_changed:
        if model.held_out is not None:
            clauses.append(f"is {percent(model.held_out.percent)} accurate")
    elif model.accuracy is not None:
        beside = f" (FP32: {percent(model.fp32_accuracy)})" if model.fp32_accuracy else ""
        clauses.append(f"is {percent(model.accuracy)} accurate{beside}")
    *first, last = clauses
    return f"{model.title} {', '.join(first)}{',' if len(first) > 1 else ''} and {last}."


def _parity_clause(model: Model) -> str:
    if model.is_changed:
        return "pads with −1 where its source pads with zeros, so it gives other answers"
    if model.parity is None:
        return "was not checked for parity"
    if model.parity.is_agreed:
        return f"gives the same answers in {engines(model)}"
    if flips := model.parity.unexplained_flips:
        return f"has {flips} unexplained sign flips between {engines(model)}"
    agreement = fraction(model.parity.top1_agreement)
    return f"gives the same answer in {engines(model)} for {agreement} of the inputs"


def host_check(report: Report) -> str:
    """What a reader of latencies from x86 must know of the engines in the report."""
    measured = dict.fromkeys(model.target for model in report.models if model.cells)
    return "".join(_HOST_CHECKS.get(target, "") for target in measured) + _HOST_CHECK


def mean_size(report: Report) -> str:
    """The mean size ratio as a sentence; empty where no model has a twin."""
    if report.mean_size_ratio is None:
        return ""
    return f"Mean size ratio: {ratio(report.mean_size_ratio)}."


def mean_speedups(report: Report) -> str:
    """The mean speed-up on each device as sentences; empty where no model has a twin."""
    sentences = []
    for mean in report.mean_speedups:
        over = "1 model" if mean.models == 1 else f"{mean.models} models"
        noisy = ", with noisy cells among them" if mean.is_noisy else ""
        sentences.append(f"Mean speed-up on {mean.device}: {ratio(mean.ratio)} over {over}{noisy}.")
    return " ".join(sentences)


def command_line(command: Sequence[str]) -> str:
    """The command, quoted so that a shell takes it back."""
    return shlex.join(command)


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    # 9.999 becomes 10.0 and not 10.00, so the digits are counted after rounding.
    rounded = float(f"{value:.3g}")
    whole_digits = len(str(int(rounded))) if rounded >= 1 else 0
    # Plain digits down to a microsecond: nobody reads 4.5e-02 ms in a table.
    decimals = 3 - whole_digits if rounded >= 0.1 else 4
    return f"{value:.{max(decimals, 0)}f}"
