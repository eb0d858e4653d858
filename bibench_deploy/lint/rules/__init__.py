"""The rules, one per file; a file's name is the rule's name with underscores."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bibench_deploy.errors import UnknownRuleError

if TYPE_CHECKING:
    from bibench_deploy.lint.rules._rule import Rule

# How alike a name and the one that is meant are, at least: a letter or two.
_ALIKE = 0.8


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
        UnknownRuleError: there is none.
    """
    rules = {key: rule for rule in load_all() for key in (rule.code, rule.name)}
    found = rules.get(name) or rules.get(name.upper()) or rules.get(name.lower())
    if found is None:
        raise UnknownRuleError(name, hint_of(name))
    return found


def hint_of(name: str) -> str:
    """The rule that is plainly meant by what is none, or else how to list the rules, in words.

    Another number is another rule: BIB204 is not meant by BIB999.
    """
    code = "BIB" + re.sub(r"\D", "", name)
    names = [rule.name for rule in load_all()]
    near = [rule.code for rule in load_all() if rule.code == code]
    near = near or difflib.get_close_matches(name.lower(), names, n=1, cutoff=_ALIKE)
    return f' (did you mean "{near[0]}"?)' if near else "; run `bibench rule` for the list"


def document_of(rule: Rule) -> Document:
    """What a rule's file says of it."""
    module = importlib.import_module(f"{__name__}.{rule.name.replace('-', '_')}")
    text = (module.__doc__ or "").strip()
    head, _, rest = text.partition("\n\n")
    summary = head.partition(": ")[2].replace("\n", " ")
    why = " ".join(rest.partition("Bad:")[0].split()) or summary
    return Document(rule.code, rule.name, summary[:1].upper() + summary[1:], why, text)
