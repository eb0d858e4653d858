"""The `bibench` command: its sub-commands, and how errors end."""

from __future__ import annotations

import errno
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bibench_deploy.cli import (
    compare,
    demo,
    devices,
    export,
    inspect,
    lint,
    profile,
    report,
    rule,
    runtimes,
    train,
)
from bibench_deploy.cli._terminal import ending_on_terminate, printable
from bibench_deploy.errors import DeployError, MissingExtraError

# A mistyped option or value; typer has no public name for the base of these.
_UsageError: Any = typer.BadParameter.__base__
EXIT_FINDINGS = 1
EXIT_FAILED = 2
# A full disk, or a place that cannot be written: the world's fault, not ours.
_WORLD_ERRORS = frozenset(
    [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR,
     errno.EISDIR, errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG, errno.EBUSY]
)  # fmt: skip
# Which extra of bibench brings a package that a command may find missing; "" is no extra.
_EXTRAS = {
    "flatbuffers": "", "matplotlib": "plots", "numpy": "", "onnx": "", "onnx_ir": "",
    "onnxruntime": "", "onnxscript": "train", "safetensors": "train", "torch": "train",
}  # fmt: skip


class _OneLineErrors(TyperGroup):
    """Ends every error that a user can cause in one line on stderr and exit code 2.

    Any other exception is a bug of ours and shows its trace.
    """

    def invoke(self, ctx: Any) -> Any:
        from bibench_train.errors import TrainError

        try:
            with ending_on_terminate():
                return super().invoke(ctx)
        except (DeployError, TrainError) as error:
            message = " ".join(str(error).split())
        except _UsageError as error:
            command = (error.ctx or ctx).command_path
            what = printable(error.format_message()).removesuffix(".")
            if what:  # else it is a group without a command, which has shown its help
                typer.echo(f"{command}: {what}; see {command} --help", err=True)
            raise typer.Exit(EXIT_FAILED) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRAS:
                raise
            missing = MissingExtraError("this command", package, _EXTRAS[package])
            message = str(missing)
        except KeyboardInterrupt:
            message = "interrupted; finished files were kept, half-written ones removed"
        except MemoryError:
            message = "not enough memory for a network of this size; choose a smaller one"
        except OSError as error:
            if error.errno not in _WORLD_ERRORS:
                raise
            place = error.filename or "an output file"
            message = f"cannot write {place}: {error.strerror}; make room or choose another --out"
        typer.echo(f"bibench: {printable(message)}", err=True)
        raise typer.Exit(EXIT_FAILED)


app = typer.Typer(
    name="bibench",
    cls=_OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"bibench {version('bibench')}")
        raise typer.Exit


@app.callback()
def bibench(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take a binarized PyTorch network to a real 1-bit model.

    Train, export, prove, lint, profile and report. Example: [bold]bibench demo[/bold]
    """


# In the order of the pipeline, which is the order of `bibench --help`.
app.command()(demo.demo)
app.command()(train.train)
app.command()(export.export)
app.command()(lint.lint)
app.command()(rule.rule)
app.command()(inspect.inspect)
app.add_typer(devices.app, name="devices")
app.add_typer(runtimes.app, name="runtimes")
app.command()(profile.profile)
app.command()(compare.compare)
app.command()(report.report)
