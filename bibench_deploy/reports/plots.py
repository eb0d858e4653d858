"""The plots of the HTML report, as inline SVG that follows the page's light or dark colours.

matplotlib knows no CSS variables, so a plot is drawn in sentinel colours that the
finished SVG swaps for them. Text stays text: it takes the page's font, can be
selected, and is found by a search.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.profiling.journal import Cell
from bibench_deploy.reports import wording
from bibench_deploy.reports.content import UNTRAINED, Family, Model, Report, is_stable
from bibench_deploy.tracks.hardware import PublishedScore, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _GRID, _PAPER = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004")
_MARKERS = ("o", "s", "D", "^")
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, 1)},
}

# In points; on the page a plot takes the width it is given, text with it.
_WIDTH = 335.0
_FONT_SIZE = 10.5
_LABEL_LENGTH = 24
_HEADING_LENGTH = 44


@dataclass(frozen=True)
class Plot:
    """One panel.

    Attributes:
        title: what it shows and of which models.
        note: what a reader must know beside it; may be empty.
        description: its numbers in words, for those who do not see it.
        svg: the drawing; it needs no file beside it.
    """

    title: str
    note: str
    description: str
    svg: str


@dataclass(frozen=True)
class _Style:
    """How a model looks in every panel: FP32 is grey, the binarized models carry colour."""

    colour: str
    marker: str
    line: str


def check_matplotlib() -> None:
    """Make sure that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401 - what is missing is said before anything is drawn
    except ImportError as error:
        raise MissingExtraError("the HTML report", "matplotlib", "plots") from error


def latency_plots(report: Report) -> tuple[Plot, ...]:
    """Latency against threads, one panel for each device and family."""
    styles = _styles(report)
    return tuple(
        _latency_plot(family, device, styles, _place(report, family, device))
        for device in report.devices
        for family in report.families
        if any(_timed(model, device) for model in family.models)
    )


def speedup_plots(report: Report) -> tuple[Plot, ...]:
    """Speed-up against the FP32 twin, one panel for each device and family."""
    styles = _styles(report)
    plots = []
    for device in report.devices:
        for family in report.families:
            models = [model for model in family.models if model.fastest_on(device)]
            if models:
                groups = [_speedup_group(model, device, styles) for model in models]
                notes = [UNTRAINED] if family.is_untrained else []
                if any(bar.is_hollow for group in groups for bar in group.bars):
                    notes.append("hollow bars rest on a noisy cell")
                title = _place(report, family, device)
                plots.append(_bar_plot(title, notes, groups, reference=(1.0, "FP32 twin")))
    return tuple(plots)


def hardware_plots(report: Report) -> tuple[Plot, ...]:
    """The parts of the hardware track and the overall metric, one panel for each device."""
    styles = {model.algorithm: _styles(report)[model.artifact] for model in report.binarized}
    plain = _Style(_MUTED, "v", "dotted")
    plots = []
    for device in dict.fromkeys(own.device for own in report.scores):
        scores = [own for own in report.scores if own.device == device]
        groups = []
        for own in scores:
            name = f"{own.algorithm or wording.NOT_KNOWN}, {wording.engine(own.engine)}"
            style = styles.get(own.algorithm, plain)
            groups.append(_hardware_group(name, style, own, is_hollow=own.is_noisy))
        groups += [
            _hardware_group(f"{theirs.algorithm}, {wording.RECOMPUTED}", plain, theirs)
            for theirs in report.published
            if theirs.device == device
        ]
        algorithms = {own.algorithm for own in scores}
        groups += [
            _hardware_group(f"{theirs.algorithm}, {wording.PRINTED}", plain, theirs)
            for theirs in report.printed
            if theirs.algorithm in algorithms
        ]
        notes = ["hollow bars rest on a noisy cell"] if any(own.is_noisy for own in scores) else []
        plots.append(_bar_plot(f"on {device}", notes, groups))
    return tuple(plots)


def drift_plots(report: Report) -> tuple[Plot, ...]:
    """Latency over a long sweep, one panel for each model and device with such a sweep."""
    styles = _styles(report)
    plots = []
    for model in report.models:
        for device in dict.fromkeys(key.device for key in model.series):
            lines = [
                (wording.threads(key.threads), times)
                for key, times in model.series.items()
                if key.device == device
            ]
            title = wording.name(model)
            place = title if len(report.devices) == 1 else f"{title}, on {device}"
            plots.append(_drift_plot(place, styles[model.artifact], lines))
    return tuple(plots)


def _drift_plot(title: str, style: _Style, lines: Sequence[tuple[str, Sequence[float]]]) -> Plot:
    # Against the start: 100 % is the median of the first third.
    relative = [
        (label, [100 * time / median(times[: len(times) // 3]) for time in times])
        for label, times in lines
    ]

    def draw(axes: Axes) -> None:
        looks = ("solid", "dashed", "dashdot", "dotted")
        ends = []
        for index, (label, values) in enumerate(relative):
            look = looks[index % len(looks)]
            axes.plot(values, color=style.colour, linestyle=look, linewidth=1.4)
            ends.append((float(len(values) - 1), values[-1], label, style.colour))
        axes.set_ylim(0, 1.12 * max(max(values) for _, values in relative))
        axes.set_xlabel("block, in the order in which they ran", color=_MUTED)
        axes.set_ylabel("latency, % of the first third", color=_MUTED)
        _label_ends(axes, ends)

    words = [f"{label} ends at {values[-1]:.0f} %" for label, values in relative]
    room = _label_room([label for label, _ in lines])
    return Plot(title, "", "; ".join(words), _draw(draw, f"drift of {title}", right=room))


def size_plots(report: Report) -> tuple[Plot, ...]:
    """Size of the deployed files, one panel for each family."""
    styles = _styles(report)
    plots = []
    for family in report.families:
        groups = []
        for model in family.models:
            text = wording.size(model.size_bytes)
            if model.size_ratio is not None:
                text += f", {wording.smaller(model.size_ratio)}"
            bar = _Bar("", float(model.size_bytes), text)
            groups.append(_Group(model.label, styles[model.artifact], (bar,)))
        notes = [UNTRAINED] if family.is_untrained else []
        plots.append(_bar_plot(family.title, notes, groups))
    return tuple(plots)


def accuracy_plots(report: Report) -> tuple[Plot, ...]:
    """Accuracy of the trained models, one panel for each family that has any."""
    styles = _styles(report)
    plots = []
    for family in report.families:
        groups, tests = [], []
        for model in family.models:
            if model.accuracy is not None:
                bar = _Bar("", model.accuracy, wording.percent(model.accuracy))
                groups.append(_Group(model.label, styles[model.artifact], (bar,)))
                tests.append(wording.held_out(model))
        if groups:
            notes = [f"top-1 on {', '.join(dict.fromkeys(tests))}"]
            plots.append(_bar_plot(family.title, notes, groups, whole=100.0))
    return tuple(plots)


def _styles(report: Report) -> dict[str, _Style]:
    # The model of the headline has the colour of the headline.
    coloured = [report.headline, *report.models]
    labels = list(dict.fromkeys(model.label for model in coloured if _is_coloured(model)))
    styles = {}
    for model in report.models:
        if _is_coloured(model):
            number = labels.index(model.label) % len(_SERIES)
            styles[model.artifact] = _Style(_SERIES[number], _MARKERS[number], "solid")
        else:
            styles[model.artifact] = _Style(_MUTED, "v", "dashed" if model.is_twin else "dotted")
    return styles


def _is_coloured(model: Model) -> bool:
    return model.is_binarized and not model.is_twin


def _place(report: Report, family: Family, device: str) -> str:
    return family.title if len(report.devices) == 1 else f"{family.title}, on {device}"


def _timed(model: Model, device: str) -> list[Cell]:
    return [cell for cell in model.cells if cell.key.device == device]


def _latency_plot(family: Family, device: str, styles: dict[str, _Style], place: str) -> Plot:
    models = [model for model in family.models if _timed(model, device)]
    cells = [cell for model in models for cell in _timed(model, device)]
    counts = sorted({cell.key.threads for cell in cells})
    published = _published_lines(models, device, styles, counts)
    widest = max(cell.latency_ms.high_ms or cell.latency_ms.p50 for cell in cells)
    highest_mark = max(
        [cell.latency_ms.p50 for cell in cells]
        + [time for line in published for time in line.times_ms.values()]
    )
    # One interval of a noisy cell may be so wide that all marks would lie on the axis below.
    highest = max(highest_mark, min(widest, 2 * highest_mark))

    def draw(axes: Axes) -> None:
        ends = []
        for model in models:
            style, timed = styles[model.artifact], _timed(model, device)
            positions = [counts.index(cell.key.threads) for cell in timed]
            medians = [cell.latency_ms.p50 for cell in timed]
            lows = [cell.latency_ms.low_ms or cell.latency_ms.p50 for cell in timed]
            highs = [cell.latency_ms.high_ms or cell.latency_ms.p50 for cell in timed]
            axes.fill_between(positions, lows, highs, color=style.colour, alpha=0.18, linewidth=0)
            axes.vlines(positions, lows, highs, color=style.colour, alpha=0.55, linewidth=3)
            axes.plot(positions, medians, color=style.colour, linestyle=style.line, linewidth=1.8)
            for cell, x, y in zip(timed, positions, medians, strict=True):
                axes.plot(
                    [x],
                    [y],
                    marker=style.marker,
                    markersize=7,
                    markeredgewidth=1.6,
                    color=style.colour,
                    markerfacecolor=style.colour if is_stable(cell) else _PAPER,
                )
            ends.append((positions[-1], medians[-1], f"{model.label}", style.colour))
        for line in published:
            positions = [counts.index(count) for count in line.times_ms]
            times = list(line.times_ms.values())
            axes.plot(positions, times, color=line.colour, linestyle="dotted", marker="x")
            ends.append((positions[-1], times[-1], line.label, line.colour))
        axes.set_ylim(0, 1.12 * highest)
        axes.set_xlim(-0.3, len(counts) - 0.7)
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        axes.set_xlabel("threads", color=_MUTED)
        axes.set_ylabel("latency, ms (p50)", color=_MUTED)
        _label_ends(axes, ends)

    labels = [model.label for model in models] + [line.label for line in published]
    words = [
        f"{model.label} {wording.milliseconds(cell.latency_ms.p50)} "
        f"at {wording.threads(cell.key.threads)}{'' if is_stable(cell) else ' (noisy)'}"
        for model in models
        for cell in _timed(model, device)
    ]
    words += [
        f"{line.label} {wording.milliseconds(time)} at {wording.threads(count)}"
        for line in published
        for count, time in line.times_ms.items()
    ]
    notes = [UNTRAINED] if family.is_untrained else []
    if not all(is_stable(cell) for cell in cells):
        notes.append("hollow marks are noisy cells")
    if widest > highest:
        notes.append(f"cut off above: an interval reaches {wording.milliseconds(widest)}")
    if published:
        notes.append("dotted: what BiBench publishes for this chip")
    return Plot(
        title=place,
        note="; ".join(notes),
        description="; ".join(words),
        svg=_draw(draw, place, right=_label_room(labels)),
    )


@dataclass(frozen=True)
class _PublishedLine:
    """Published times of a model at the thread counts that were measured."""

    label: str
    colour: str
    times_ms: dict[int, float]


def _published_lines(
    models: Sequence[Model], device: str, styles: dict[str, _Style], counts: Sequence[int]
) -> list[_PublishedLine]:
    lines: dict[str, _PublishedLine] = {}
    for model in models:
        for pair in (pair for pair in model.published if pair.device == device):
            colour = styles[model.artifact].colour
            for name, line_colour, timings in (
                (model.label, colour, pair.binary),
                ("FP32", _MUTED, pair.fp32),
            ):
                times = {n: timings[n].ms for n in counts if n in timings}
                if times:
                    # Every algorithm of a network has the same FP32 times beside it.
                    label = f"{name}, published"
                    lines.setdefault(label, _PublishedLine(label, line_colour, times))
    return list(lines.values())


@dataclass(frozen=True)
class _Bar:
    """A horizontal bar: what stands at its left and at its end."""

    label: str
    length: float
    text: str
    is_hollow: bool = False


@dataclass(frozen=True)
class _Group:
    """The bars of one model, under its name."""

    label: str
    style: _Style
    bars: tuple[_Bar, ...]


def _speedup_group(model: Model, device: str, styles: dict[str, _Style]) -> _Group:
    labelled = [(wording.threads(s.threads), s) for s in model.speedups if s.device == device]
    if fastest := model.fastest_on(device):
        labelled.append(("own fastest", fastest))
    bars = (_Bar(label, s.ratio, wording.ratio(s.ratio), s.is_noisy) for label, s in labelled)
    return _Group(model.label, styles[model.artifact], tuple(bars))


def _hardware_group(
    name: str, style: _Style, score: Score | PublishedScore, *, is_hollow: bool = False
) -> _Group:
    parts = (
        ("speed-up", score.speed_up, is_hollow),
        ("compression", score.compression, False),
        ("overall", score.overall, is_hollow),
    )
    bars = (
        _Bar(label, value, wording.ratio(value), hollow)
        for label, value, hollow in parts
        if value is not None
    )
    return _Group(name, style, tuple(bars))


# Heights in points.
_HEADING, _ROW, _GAP = 19.0, 19.0, 9.0


def _bar_plot(
    title: str,
    notes: Sequence[str],
    groups: Sequence[_Group],
    *,
    whole: float = 0.0,
    reference: tuple[float, str] | None = None,
) -> Plot:
    """Draw bars from zero, each model's under its name.

    Args:
        title: of the panel.
        notes: what to read with it.
        groups: from top to bottom.
        whole: the axis reaches at least this far.
        reference: where to draw a line across all bars, and its name.
    """
    bars = [bar for group in groups for bar in group.bars]
    left = max(_text_width(bar.label) for bar in bars)
    left = left + 8 if left else 1.0
    room = _WIDTH - left
    # Long bars set the scale, or a shorter one with a longer text at its end.
    ends = [bar.length * room / (room - _text_width(bar.text) - 8) for bar in bars]
    limit = max(whole * room / (room - _text_width(wording.percent(whole)) - 8), *ends)
    if reference:
        limit = max(limit, 1.08 * reference[0])
    top = 18.0 if reference else 2.0
    height = sum(_HEADING + _ROW * len(group.bars) + _GAP for group in groups)

    def draw(axes: Axes) -> None:
        axes.grid(visible=False)
        axes.set_xlim(0, limit)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        if reference:
            value, name = reference
            axes.vlines(value, 0, height, color=_INK, linewidth=1.0, linestyle=(0, (4, 3)))
            axes.annotate(
                name,
                (value, 0),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center" if 0.15 < value / limit < 0.85 else "right",
                color=_MUTED,
                annotation_clip=False,
            )
        y = 0.0
        for group in groups:
            axes.annotate(
                _shorten(group.label, _HEADING_LENGTH),
                (0, y + _HEADING / 2 + 2),
                va="center",
                color=_INK,
                bbox=_BEHIND_TEXT,
            )
            y += _HEADING
            for bar in group.bars:
                middle = y + _ROW / 2
                axes.barh(
                    middle,
                    bar.length,
                    height=_ROW - 6,
                    facecolor=_PAPER if bar.is_hollow else group.style.colour,
                    edgecolor=group.style.colour,
                    linewidth=1.3,
                )
                axes.annotate(
                    bar.label,
                    (0, middle),
                    xytext=(-8, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    color=_MUTED,
                    annotation_clip=False,
                )
                axes.annotate(
                    bar.text,
                    (bar.length, middle),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    color=_INK,
                    annotation_clip=False,
                    bbox=_BEHIND_TEXT,
                )
                y += _ROW
            y += _GAP

    words = [
        " ".join(part for part in (group.label, bar.label, bar.text) if part)
        + (" (noisy)" if bar.is_hollow else "")
        for group in groups
        for bar in group.bars
    ]
    drawing = _draw(draw, title, height=height + top, left=left, right=0, top=top, bottom=0)
    return Plot(title=title, note="; ".join(notes), description="; ".join(words), svg=drawing)


# Keeps a text readable where a line runs behind it.
_BEHIND_TEXT = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5}


def _text_width(text: str) -> float:
    """Points that a text needs, in a rather wide font."""
    return 0.56 * _FONT_SIZE * len(text)


def _label_room(labels: Sequence[str]) -> float:
    """Points that the longest label needs beside the axes, in a rather wide font."""
    return 14 + max(_text_width(_shorten(label)) for label in labels)


def _shorten(label: str, length: int = _LABEL_LENGTH) -> str:
    if len(label) <= length:
        return label
    # In the middle: names of one plot often differ at their end alone.
    kept = length - 1
    return f"{label[: kept - kept // 2]}…{label[-(kept // 2) :]}"


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each line's name at its right end, moved apart where ends are close."""
    top = axes.get_ylim()[1]
    spacing = top * 0.085
    last_x = max(x for x, *_ in ends)
    height = -spacing
    heights = []
    for _, y, text, colour in sorted(ends, key=lambda end: end[1]):
        height = max(y, height + spacing)
        heights.append((height, text, colour))
    # A crowd near the top is pushed down again as a whole.
    excess = max(0.0, height - top)
    for height, text, colour in heights:
        axes.annotate(
            _shorten(text),
            (last_x, height - excess),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            color=_INK if colour == _MUTED else colour,
            annotation_clip=False,
            parse_math=False,
        )


def _draw(
    draw: Callable[[Axes], None],
    salt: str,
    *,
    height: float = 220,
    left: float = 44,
    right: float = 16,
    top: float = 10,
    bottom: float = 40,
) -> str:
    """Draw on axes with the given room around them, in points, and give the SVG."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": _FONT_SIZE,
        "text.parse_math": False,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _MUTED,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "grid.color": _GRID,
    }
    with rc_context(), warnings.catch_warnings():
        # A reader's own matplotlib style must not change the report.
        rcdefaults()
        rcParams.update(settings)
        # The page's font draws the text, so what matplotlib's own lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH / 72, height / 72))
        FigureCanvasSVG(figure)
        axes = figure.add_axes(
            (
                left / _WIDTH,
                bottom / height,
                (_WIDTH - left - right) / _WIDTH,
                (height - top - bottom) / height,
            )
        )
        axes.set_axisbelow(True)
        axes.grid(axis="y", linewidth=0.8)
        axes.tick_params(length=0, pad=6)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue())


def _inline(svg: str) -> str:
    """Make an SVG file part of a page: no ids of its own, its colours and font from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view_box.group() if view_box else ""}'
    )
    svg = re.sub(r"<svg[^>]*", f'{opening} aria-hidden="true" focusable="false"', svg, count=1)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    for sentinel, variable in _VARIABLES.items():
        svg = svg.replace(sentinel, variable)
    return svg.strip()
