"""What every lint rule promises; a new file under rules/ is tested here by itself."""

import importlib
import pkgutil
import re

import pytest

from bibench_deploy.lint import rules
from bibench_deploy.lint.rules import load_all

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
