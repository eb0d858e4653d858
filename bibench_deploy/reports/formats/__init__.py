"""One format per file, with `render(report) -> str`; the file's name is the format's name."""

from __future__ import annotations

import importlib
import pkgutil

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.reports.content import Report


def format_names() -> tuple[str, ...]:
    """The formats that a report can be written in.

    Example:
        >>> format_names()
        ('html', 'json', 'md', 'text')
    """
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def check_format(name: str) -> str:
    """Give back the name of a known format.

    Raises:
        UnknownNameError: there is no such format.
    """
    if name not in format_names():
        raise UnknownNameError("format", name, format_names())
    return name


def render(report: Report, format_name: str) -> str:
    """Write a report down in a format.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: the format needs a library that is not installed.
    """
    module = importlib.import_module(f"{__name__}.{check_format(format_name)}")
    text: str = module.render(report)
    return text
