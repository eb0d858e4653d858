"""The `bibench` command: its sub-commands, and how errors end."""

from __future__ import annotations

import errno
import sys
from importlib.metadata import version
from typing import Annotated

import click
import typer

from bibench_deploy.errors import DeployError

EXIT_FINDINGS = 1
EXIT_FAILED = 2

app = typer.Typer(
    name="bibench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # an exception that is not ours is a bug: show Python's trace
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


def _say(message: str) -> None:
    typer.echo(f"bibench: {message}", err=True)


def main() -> None:
    """Run the command line; an error that a user can cause ends in one line and exit code 2."""
    from bibench_train.errors import TrainError

    try:
        exit_code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        exit_code = error.exit_code
    except (DeployError, TrainError) as error:
        _say(" ".join(str(error).split()))
        exit_code = EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; nothing half-written was left behind. Run the same command to start again")
        exit_code = EXIT_FAILED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _say(f"cannot write {error.filename or 'a file'}: {error.strerror}. Free or choose another folder")
        exit_code = EXIT_FAILED
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
