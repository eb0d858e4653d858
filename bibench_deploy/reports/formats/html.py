"""One self-contained HTML page: no network, light and dark, print and phone.

Its one script sorts a table by the column whose header is pressed; without it nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_deploy.reports import plots, tables, wording
from bibench_deploy.reports.content import UNTRAINED, Report
from bibench_deploy.reports.document import Document
from bibench_deploy.reports.plots import Plot

if TYPE_CHECKING:
    import jinja2

_LATENCY = (
    "Median time of one inference. The band is its 95 % interval over fresh processes. "
    "Networks of different size have axes of their own."
)
_DRIFT = (
    "Median of each block over a long sweep, all cells by turns: what rises and stays slows down "
    "under load."
)
_SIZE = "The deployed model file alone."
_ACCURACY = (
    "Of the training run that each model was exported from. "
    "An FP32 twin is for latency and size only and has none."
)


@dataclass(frozen=True)
class Card:
    """One headline.

    Attributes:
        title: what it is about.
        figure: to remember.
        caption: what the figure is of.
        facts: names and values that stand beside it.
        statement: a sentence that counts as much as the figure.
        tone: how the figure looks: accent, warning, or muted where there is none.
    """

    title: str
    figure: str
    caption: str
    facts: tuple[tuple[str, str], ...] = ()
    statement: str = ""
    tone: str = "accent"


@dataclass(frozen=True)
class Section:
    """Plots of one kind, and what to know before looking at them."""

    title: str
    lead: str
    plots: tuple[Plot, ...]


def render(report: Report) -> str:
    """Give the report as a page.

    Raises:
        MissingExtraError: matplotlib, which draws the plots, is not installed.
    """
    plots.check_matplotlib()
    speedup_lead = f"{wording.CONVENTION} {wording.mean_speedups(report)}"
    sections = (
        Section("Latency", _LATENCY, plots.latency_plots(report)),
        Section("Drift", _DRIFT, plots.drift_plots(report)),
        Section("Speed-up against the FP32 twin", speedup_lead, plots.speedup_plots(report)),
        Section(
            "Hardware track (BiBench, Equation 9)",
            wording.HARDWARE_CONVENTION,
            plots.hardware_plots(report),
        ),
        Section("Size", f"{_SIZE} {wording.mean_size(report)}", plots.size_plots(report)),
        Section("Accuracy", _ACCURACY, plots.accuracy_plots(report)),
    )
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            wording=wording,
            cards=(_size(report), _parity(report), _accuracy(report)),
            sections=[section for section in sections if section.plots],
            tables=tables.all_tables(report),
            environment_rows=tables.environment_rows,
            runtimes=tables.runtime_rows(report),
        )
    )


def render_document(document: Document) -> str:
    """Give tables under a title as a page."""
    return _templates().get_template("document.html.j2").render(document=document)


def _templates() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("bibench_deploy.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _size(report: Report) -> Card:
    model = report.headline
    own, twin = wording.size(model.size_bytes), wording.size(model.twin_size_bytes)
    others = tuple(
        (wording.name(other), wording.ratio(other.size_ratio))
        for other in report.binarized
        if other is not model and other.size_ratio is not None
    )
    if model.size_ratio is None:
        return Card("Size", own, f"{model.title}, without an FP32 twin", others)
    figure, word = wording.smaller(model.size_ratio).split()
    return Card("Size", figure, f"{word} than its FP32 twin: {own} against {twin}", others)


def _parity(report: Report) -> Card:
    model = report.headline
    residency = wording.residency(model.residency)
    if model.parity is None:
        caption = "no outputs were compared"
        return Card("Parity", "not checked", caption, statement=residency, tone="warning")
    inputs = f" on {model.parity.inputs} seeded inputs" if model.parity.inputs else ""
    facts = [("Held-out images alike", wording.answers(model))] if model.held_out else []
    facts += [
        ("Flip rate", wording.fraction(model.parity.flip_rate)),
        ("Max abs error", wording.error_size(model.parity.max_abs_error)),
    ]
    if not model.parity.is_agreed:
        same_signs = model.parity.max_abs_error_same_signs
        facts += [
            ("with equal signs", wording.error_size(same_signs)),
            ("Unexplained flips", wording.count(model.parity.unexplained_flips)),
        ]
    return Card(
        "Parity",
        wording.fraction(model.parity.top1_agreement),
        f"same top-1 in {wording.engines(model)}{inputs}",
        tuple(facts),
        residency,
        tone="accent" if model.parity.is_agreed else "warning",
    )


def _accuracy(report: Report) -> Card:
    model = report.headline
    if model.accuracy is None:
        caption = UNTRAINED if model.is_untrained else "the model's source states none"
        return Card("Accuracy", "none", caption, tone="muted")
    others = [
        (other.title, wording.percent(other.accuracy))
        for other in report.trained
        if other is not model
    ]
    return Card(
        "Accuracy",
        wording.percent(model.accuracy),
        f"{model.title} on {wording.held_out(model)}",
        tuple(others),
    )
