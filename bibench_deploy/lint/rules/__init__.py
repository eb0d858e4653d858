"""The rules, one per file; a file's name is the rule's name with underscores."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_deploy.errors import UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.lint.rules._rule import Rule


@dataclass(frozen=True)
class Document:
    """What a rule's file says of it.

    Attributes:
        code: such as BIB201.
        name: such as scale-granularity.
        summary: one sentence.
        why: what the defect costs.
        text: the whole document.
    """

    code: str
    name: str
    summary: str
    why: str
    text: str


@functools.cache
def load_all() -> tuple[Rule, ...]:
    """Every rule, by code."""
    names = [entry.name for entry in pkgutil.iter_modules(__path__) if entry.name[0] != "_"]
    rules: list[Rule] = [importlib.import_module(f"{__name__}.{name}").RULE for name in names]
    return tuple(sorted(rules, key=lambda rule: rule.code))


def load(name: str) -> Rule:
    """The rule of that code or name.

    Raises:
        UnknownNameError: there is none.
    """
    rules = {key: rule for rule in load_all() for key in (rule.code, rule.name)}
    found = rules.get(name) or rules.get(name.upper()) or rules.get(name.lower())
    if found is None:
        raise UnknownNameError("rule", name, [rule.code for rule in load_all()])
    return found


def document_of(rule: Rule) -> Document:
    """What a rule's file says of it."""
    module = importlib.import_module(f"{__name__}.{rule.name.replace('-', '_')}")
    text = (module.__doc__ or "").strip()
    head, _, rest = text.partition("\n\n")
    summary = head.partition(": ")[2].replace("\n", " ")
    why = " ".join(rest.partition("Bad:")[0].split()) or summary
    return Document(rule.code, rule.name, summary[:1].upper() + summary[1:], why, text)
