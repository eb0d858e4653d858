"""What every lint rule promises; a new file under rules/ is tested here by itself."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from bibench_deploy import targets
from bibench_deploy.graph import load
from bibench_deploy.lint import rules, soft_weights
from bibench_deploy.lint.rules import load_all
from bibench_deploy.lint.rules._rule import Rule

MODULES = {
    module.RULE.code: module
    for module in (
        importlib.import_module(f"{rules.__name__}.{entry.name}")
        for entry in pkgutil.iter_modules(rules.__path__)
        if entry.name[0] != "_"
    )
}


def test_every_file_is_a_rule() -> None:
    assert {rule.code for rule in load_all()} == set(MODULES)
    assert len(load_all()) == len(MODULES) >= 3


def test_rules_come_in_the_order_of_their_codes() -> None:
    codes = [rule.code for rule in load_all()]
    assert codes == sorted(codes)
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("code", MODULES)
def test_a_code_is_bib_and_three_digits(code) -> None:
    assert re.fullmatch(r"BIB\d{3}", code)


@pytest.mark.parametrize("code", MODULES)
def test_a_rule_is_called_like_its_file(code) -> None:
    module = MODULES[code]
    assert module.RULE.name == module.__name__.rpartition(".")[2].replace("_", "-")


@pytest.mark.parametrize("code", MODULES)
def test_a_rule_file_opens_with_its_document(code) -> None:
    document = MODULES[code].__doc__
    assert document.startswith(f"{code} {MODULES[code].RULE.name}: ")
    bad, good, rests = (document.index(f"\n{word}") for word in ("Bad:", "Good:", "Rests on:"))
    assert bad < good < rests
    assert len(document[rests:].split()) > 3


@pytest.mark.parametrize("code", MODULES)
def test_a_rule_finds_something_itself_or_a_target_names_it(code) -> None:
    # What the reader of files and of runs names is in the last two.
    folder = Path(targets.__file__).parent
    sources = [*folder.rglob("*.py"), Path(load.__file__), Path(soft_weights.__file__)]
    rule = MODULES[code].RULE
    is_named = any(f'"{rule.name}"' in path.read_text() for path in sources)
    assert is_named or rule.check is not Rule("", "").check
