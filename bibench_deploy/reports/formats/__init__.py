"""One format per file; the file's name is the format's name.

Each has `render(report) -> str`, and `render_document(document) -> str` for tables alone.
"""

from __future__ import annotations

import importlib
import pkgutil

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.reports.content import Report
from bibench_deploy.reports.document import Document


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


def render(content: Report | Document, format_name: str) -> str:
    """Write a report, or tables alone, down in a format.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: the format needs a library that is not installed.
    """
    module = importlib.import_module(f"{__name__}.{check_format(format_name)}")
    draw = module.render_document if isinstance(content, Document) else module.render
    text: str = draw(content)
    return text
