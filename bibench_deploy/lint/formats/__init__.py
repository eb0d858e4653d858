"""How findings are printed, one format per file; a file's name is the format's name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bibench_deploy.errors import UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.lint.runner import Report


def names() -> list[str]:
    """The formats that are there, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Callable[[Sequence[Report]], str]:
    """The function that prints reports in this format: one or more of them → text.

    Raises:
        UnknownNameError: there is no such format.
    """
    if name not in names():
        raise UnknownNameError("lint format", name, names())
    render: Callable[[Sequence[Report]], str] = importlib.import_module(f"{__name__}.{name}").render
    return render
