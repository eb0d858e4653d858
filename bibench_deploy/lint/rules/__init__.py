"""The rules, one per file; a file's name is the rule's name with underscores."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bibench_deploy.lint.rules._rule import Rule


def load_all() -> list[Rule]:
    """Every rule, by code."""
    names = [entry.name for entry in pkgutil.iter_modules(__path__) if entry.name[0] != "_"]
    rules: list[Rule] = [importlib.import_module(f"{__name__}.{name}").RULE for name in names]
    return sorted(rules, key=lambda rule: rule.code)
