"""`bibench lint`: can this network be deployed?"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bibench_deploy.cli._inputs import find_source, say
from bibench_deploy.cli._late_sympy import delay_sympy
from bibench_deploy.cli._terminal import printable, uncollected
from bibench_deploy.counted import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bibench_deploy.lint.runner import Report
    from bibench_deploy.lint.settings import Settings
    from bibench_deploy.targets._target import Target, WriteOptions
    from bibench_deploy.verify.parity import Parity

ALL = "all"
DEFAULT_BASELINE = Path("bibench-lint-baseline.json")
SETTINGS = "What is reported"
EXPORT = "As the export would be called"


@uncollected()
def lint(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help=".onnx files, run folders, models/<name> or package.module:callable; "
            "the latest run in ./runs unless given.",
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="The runtime to check for; several with commas, or all.")
    ] = "lce",
    output_format: Annotated[
        str, typer.Option("--format", help="text, json, sarif, github or junit.")
    ] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    error_on_warning: Annotated[
        bool, typer.Option("--error-on-warning", help="Exit with 1 for warnings too.")
    ] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with 0 whatever is found.")
    ] = False,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="RULE,…",
            help="These rules alone: codes, beginnings such as BIB2, or names.",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            metavar="RULE,…", help="Besides those of pyproject.toml.", rich_help_panel=SETTINGS
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Known findings, which are not reported.",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    is_baseline_written: Annotated[
        bool,
        typer.Option(
            "--write-baseline",
            help=f"Write what is found to the baseline, {DEFAULT_BASELINE} unless named.",
            rich_help_panel=SETTINGS,
        ),
    ] = False,
    allow_unfused_scales: Annotated[
        bool,
        typer.Option(
            "--allow-unfused-scales",
            help="As at the export: such scales are warnings then.",
            rich_help_panel=EXPORT,
        ),
    ] = False,
    padding: Annotated[
        Literal["refuse", "exact", "minus-one"],
        typer.Option(
            help="What becomes of padding that an engine cannot hold.", rich_help_panel=EXPORT
        ),
    ] = "refuse",
    allow_mean_shift: Annotated[
        bool,
        typer.Option("--allow-mean-shift", help="As at the export.", rich_help_panel=EXPORT),
    ] = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.onnx",
            help="Write a new file with all that can be rewritten exactly, and prove it equal.",
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="For a callable: its input as N,C,H,W, N,C,L or N,C, such as 1,3,224,224."
        ),
    ] = None,
) -> None:
    """Check whether a binarized network can be deployed.

    Exits with 0 when clean, 1 on an error-level finding, 2 when it could not run.
    Example: [bold]bibench lint model.onnx --target lce --format github[/bold]
    """
    if sources and all(source.endswith(".onnx") for source in sources):
        delay_sympy()  # torch, which anything else needs, imports it at once
    from bibench_deploy.lint import formats
    from bibench_deploy.lint.finding import Severity

    chosen = named_targets(target)
    render = formats.load("json" if as_json else output_format)
    settings = _settings(select, ignore, baseline)
    if fix is not None and len(sources or []) > 1:
        raise typer.BadParameter("one source is fixed at a time", param_hint="--fix")
    options = _options(
        chosen,
        allow_unfused_scales=allow_unfused_scales,
        allow_mean_shift=allow_mean_shift,
        padding=padding,
    )
    named: list[str | None] = [*(sources or [])] or [None]
    reports = [_report(source, input_shape, chosen, options, settings, fix) for source in named]
    reports = _without_known(reports, settings, is_baseline_written)
    typer.echo(printable(render(reports)), nl=False)
    results = [result for report in reports for result in report.results]
    bad = [Severity.ERROR, *([Severity.WARNING] if error_on_warning else [])]
    if not exit_zero and any(result.count(severity) for result in results for severity in bad):
        raise typer.Exit(1)


def named_targets(text: str) -> list[Target]:
    """The targets that --target or --lint names: one, several with commas, or all.

    Raises:
        UnknownNameError: one of them is none.
    """
    from bibench_deploy import targets

    names = targets.names() if text == ALL else [name.strip() for name in text.split(",")]
    return [targets.load(name) for name in dict.fromkeys(names)]


def _options(chosen: Sequence[Target], **given: Any) -> WriteOptions:
    """What the user would choose at the export.

    Raises:
        OptionError: the one target that was named does not have an option.
    """
    from bibench_deploy import targets
    from bibench_deploy.targets._target import WriteOptions

    options = WriteOptions(**given)
    if len(chosen) == 1:
        targets.check_options(chosen[0], options)
    return options


def _settings(select: str | None, ignore: str | None, baseline: Path | None) -> Settings:
    """What pyproject.toml says, and the command line after it."""
    from bibench_deploy.lint.settings import codes_of, read_settings

    settings = read_settings(Path.cwd())
    if select is not None:
        settings = replace(settings, select=codes_of(select.split(","), "--select"))
    if ignore is not None:
        ignored = settings.ignore | codes_of(ignore.split(","), "--ignore")
        settings = replace(settings, ignore=ignored)
    return settings if baseline is None else replace(settings, baseline=baseline)


def _report(
    text: str | None,
    input_shape: str | None,
    chosen: Sequence[Target],
    options: WriteOptions,
    settings: Settings,
    fix: Path | None,
) -> Report:
    """Lint one source, and write what can be fixed of it."""
    from bibench_deploy.lint.runner import Report, lint_file

    source = find_source(text, input_shape)
    # A baseline and a workflow's annotations know one file by one name.
    name = os.path.normpath(text) if text else source.name
    with tempfile.TemporaryDirectory() as folder:
        path = source.onnx_path or Path(folder) / "model.onnx"
        if source.onnx_path is None:
            from bibench_deploy.export.pipeline import write_onnx
            from bibench_deploy.lint.soft_weights import soft_weights
            from bibench_train.errors import NotBinaryError

            try:
                with redirect_stdout(sys.stderr):  # a module may print while it runs
                    write_onnx(source, path)
            except NotBinaryError as error:
                results = tuple(soft_weights(target, str(error)) for target in chosen)
                return Report(name, tuple(map(settings.apply, results)))
        if fix is not None:
            _fix(path, fix)
        results = lint_file(path, chosen, options)
    return Report(name, tuple(settings.apply(result) for result in results))


def _fix(source: Path, destination: Path) -> None:
    from bibench_deploy.lint.fix import fix_file

    done = fix_file(source, destination)
    if done.parity is None:
        say(f"nothing to fix: {destination} was not written")
        return
    rewritten = (
        f"{counted(done.signs, 'sign')}, {counted(done.scales, 'scale')} and "
        f"{counted(done.clips, 'clip')}"
    )
    say(f"{destination}: rewrote {rewritten}; {_equality(done.parity)}")


def _equality(parity: Parity) -> str:
    """How equal the fixed file is, and what of it rounding decides."""
    error = parity.max_abs_error_same_signs
    if error is None:
        return f"equal on {parity.inputs} inputs, max error {parity.max_abs_error:.1e}"
    text = f"equal on {parity.inputs} inputs, max error {error:.1e}"
    flips = sum(layer.flips for layer in parity.layers)
    if not flips:
        return text
    total = sum(layer.signs for layer in parity.layers)
    return (
        f"{text} on the same signs; of {total:,} numbers, {flips:,} lie within rounding of 0 and "
        "take another sign"
    )


def _without_known(
    reports: list[Report], settings: Settings, is_baseline_written: bool
) -> list[Report]:
    """What the baseline does not list; written first where that is asked for."""
    from bibench_deploy.lint.baseline import read_baseline, without_known, write_baseline

    path = settings.baseline
    if is_baseline_written:
        path = path or DEFAULT_BASELINE
        count = write_baseline(path, reports)
        say(f"{path}: {counted(count, 'finding is', 'findings are')} known from now on")
    if path is None:
        return reports
    known = read_baseline(path)
    return [without_known(report, known) for report in reports]
