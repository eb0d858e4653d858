"""The runtimes that bibench can write for, one folder each; a folder's name is the target's."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from bibench_deploy.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.targets._target import Target, WriteOptions


def names() -> list[str]:
    """The targets that are there, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def load(name: str) -> Target:
    """The target of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in names():
        raise UnknownNameError("target", name, names())
    target: Target = importlib.import_module(f"{__name__}.{name}").TARGET
    return target


def check_options(target: Target, options: WriteOptions) -> None:
    """Make sure that whatever a user chose means something for a target.

    Raises:
        OptionError: an option that the target does not have differs from its default.
    """
    for field in fields(options):
        if field.name in target.options or getattr(options, field.name) == field.default:
            continue
        raise OptionError(
            field.name, target.name, [name for name in names() if field.name in load(name).options]
        )


def held_options(target: Target, options: WriteOptions) -> WriteOptions:
    """What of a user's choice means something for a target; the rest is as it is by default."""
    others = {
        field.name: field.default for field in fields(options) if field.name not in target.options
    }
    return replace(options, **others)  # type: ignore[arg-type]  # every field has its own type
