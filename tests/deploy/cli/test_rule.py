import json

import pytest

from bibench_deploy.lint.rules import load_all


@pytest.mark.parametrize("name", ["BIB203", "bib203", "scale-before-layer"])
def test_a_rule_is_explained_with_a_bad_and_a_good_example(name, bibench) -> None:
    result = bibench("rule", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("BIB203 scale-before-layer: ")
    bad, good, rests = (result.stdout.index(word) for word in ("Bad:", "Good:", "Rests on:"))
    assert bad < good < rests


def test_without_a_code_all_rules_are_listed(bibench) -> None:
    lines = bibench("rule").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[rule.code, rule.name] for rule in load_all()]


def test_rules_are_there_for_programs(bibench) -> None:
    content = json.loads(bibench("rule", "--json").stdout)
    assert [item["code"] for item in content] == [rule.code for rule in load_all()]
    one = json.loads(bibench("rule", "BIB101", "--json").stdout)
    assert one == content[0]
    assert set(one) == {"code", "name", "summary", "why", "text"}


def test_an_unknown_rule_is_one_line_with_the_nearest(bibench) -> None:
    result = bibench("rule", "BIB204x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'unknown rule "BIB204x" (did you mean "BIB204"?)' in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BIB 204", "BIB204"), ("204", "BIB204"), ("BBI-204", "BIB204"),
        ("zero_weights", "zero-weights"), ("Zero-Weigths", "zero-weights"),
    ],
)  # fmt: skip
def test_a_slip_names_the_rule_that_is_meant(name, meant, bibench) -> None:
    result = bibench("rule", name)
    assert result.stderr == f'bibench: unknown rule "{name}" (did you mean "{meant}"?)\n'


@pytest.mark.parametrize("name", ["BIB999", "BIB298", "BIB", "padding", "no-rule", ""])
def test_what_is_no_slip_names_no_other_rule_but_where_they_are_listed(name, bibench) -> None:
    result = bibench("rule", name)
    assert result.exit_code == 2
    assert result.stderr == f'bibench: unknown rule "{name}"; run `bibench rule` for the list\n'
