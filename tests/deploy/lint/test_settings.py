import pytest

from bibench_deploy.errors import SettingsError
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules import load_all
from bibench_deploy.lint.runner import LintResult
from bibench_deploy.lint.settings import Settings, codes_of, read_settings


def finding(code: str, layer: str = "conv", severity: Severity = Severity.WARNING) -> Finding:
    return Finding(code, "a-rule", severity, layer, "found", "change it")


RESULT = LintResult(
    "lce",
    ("stages.0.conv1", "head"),
    (finding("BIB101", "stages.0.conv1"), finding("BIB201", "stages.0.conv1", Severity.ERROR),
     finding("BIB405", "head", Severity.INFO)),
)  # fmt: skip


def settings(tmp_path, text: str, name: str = "pyproject.toml") -> Settings:
    (tmp_path / name).write_text(text)
    return read_settings(tmp_path)


def codes(result: LintResult) -> list[str]:
    return [item.code for item in result.findings]


def test_without_a_file_everything_is_reported_as_it_is(tmp_path) -> None:
    assert read_settings(tmp_path).apply(RESULT) == RESULT


def test_select_and_ignore_take_codes_beginnings_and_names(tmp_path) -> None:
    text = (
        '[tool.bibench.lint]\nselect = ["BIB1", "scale-granularity", "BIB405"]\nignore = ["BIB405"]'
    )
    assert codes(settings(tmp_path, text).apply(RESULT)) == ["BIB101", "BIB201"]


def test_a_severity_is_changed_by_rule(tmp_path) -> None:
    text = '[tool.bibench.lint.severity]\nsign-of-zero = "error"\nBIB201 = "info"'
    found = settings(tmp_path, text).apply(RESULT)
    assert [item.severity.value for item in found.findings] == ["error", "info", "info"]


def test_layers_are_ignored_by_glob(tmp_path) -> None:
    text = '[tool.bibench.lint.per-layer-ignores]\n"stages.?.*" = ["BIB1"]\n"head" = ["ALL"]'
    assert codes(settings(tmp_path, text).apply(RESULT)) == ["BIB201"]


def test_the_nearest_file_with_settings_counts(tmp_path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text('[project]\nname = "bibench-user"')
    (tmp_path / "pyproject.toml").write_text('[tool.bibench.lint]\nignore = ["BIB1"]')
    assert read_settings(inner).ignore == codes_of(["BIB1"], "here")


def test_a_baseline_lies_beside_the_file_that_names_it(tmp_path) -> None:
    found = settings(tmp_path, '[tool.bibench.lint]\nbaseline = "known.json"')
    assert found.baseline == tmp_path / "known.json"


@pytest.mark.parametrize("names", [["bib1", " BIB201"], ["Bib1", "Scale-Granularity "]])
def test_capitals_and_spaces_around_a_rule_do_not_matter(names) -> None:
    assert codes_of(names, "here") == codes_of(["BIB1", "scale-granularity"], "here")


def test_all_is_every_rule() -> None:
    assert codes_of(["ALL"], "here") == {rule.code for rule in load_all()}


WRONG = {
    "an unknown key": (
        '[tool.bibench.lint]\nselct = []', 'unknown key "selct" (did you mean "select"?); one of:'),
    "an unknown rule": (
        '[tool.bibench.lint]\nignore = ["mean-shfit"]',
        'ignore: no rule "mean-shfit" (did you mean "mean-shift"?)'),
    "a code of no rule": (
        '[tool.bibench.lint]\nselect = ["BIB9"]',
        'select: no rule "BIB9"; run `bibench rule` for the list'),
    "a severity of no rule": (
        '[tool.bibench.lint.severity]\nBIB999 = "error"',
        'severity: no rule "BIB999"; run `bibench rule` for the list'),
    "no list": ('[tool.bibench.lint]\nselect = "BIB1"', "select: 'BIB1' is no list of rules"),
    "a list of numbers": ("[tool.bibench.lint]\nselect = [101]", "is no list of rules"),
    "an unknown severity": (
        '[tool.bibench.lint.severity]\nBIB1 = "fatal"',
        "severity BIB1: 'fatal' is none of error, warning, info"),
    "no table": ('[tool.bibench]\nlint = 3', "not a table"),
    "no table of severities": ('[tool.bibench.lint]\nseverity = 3', "severity: 3 is no table"),
    "a baseline that is no name": ("[tool.bibench.lint]\nbaseline = 3", "3 is no name of a file"),
    "no TOML": ("[tool.bibench.lint\n", "no TOML"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_known_is_said_with_the_file(case, tmp_path) -> None:
    text, words = WRONG[case]
    with pytest.raises(SettingsError) as raised:
        settings(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "pyproject.toml"))
    assert words in str(raised.value)


def test_bytes_that_are_no_text_are_said(tmp_path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfebibench")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path)
