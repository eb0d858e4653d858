import json

import pytest

from bibench_deploy.errors import SettingsError
from bibench_deploy.lint.baseline import read_baseline, without_known, write_baseline
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.runner import LintResult, Report


def report(*layers: str, source: str = "net.onnx", message: str = "found") -> Report:
    findings = tuple(
        Finding("BIB101", "sign-of-zero", Severity.ERROR, layer, message, "") for layer in layers
    )
    return Report(source, (LintResult("lce", layers, findings),))


def test_what_was_written_is_known_and_the_rest_is_new(tmp_path) -> None:
    path = tmp_path / "known.json"
    assert write_baseline(path, [report("a", "b")]) == 2
    known = read_baseline(path)
    (result,) = without_known(report("a", "b", "c", message="in other words"), known).results
    assert [finding.layer for finding in result.findings] == ["c"]
    assert result.layers == ("a", "b", "c")


def test_the_same_layer_of_another_file_is_not_known(tmp_path) -> None:
    path = tmp_path / "known.json"
    write_baseline(path, [report("a")])
    (result,) = without_known(report("a", source="other.onnx"), read_baseline(path)).results
    assert len(result.findings) == 1


def test_a_missing_baseline_says_how_to_make_it(tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"no baseline there .*--write-baseline"):
        read_baseline(tmp_path / "known.json")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "3", '{"kind": 1, "schema_version": 1}', "[" * 100000,
     '{"kind": "bibench-lint-baseline", "schema_version": 1, "findings": [3]}'],
)  # fmt: skip
def test_what_is_no_baseline_is_said(text, tmp_path) -> None:
    (tmp_path / "known.json").write_text(text)
    with pytest.raises(SettingsError, match="baseline"):
        read_baseline(tmp_path / "known.json")


def test_a_file_of_another_kind_is_no_baseline_of_another_version(tmp_path) -> None:
    (tmp_path / "known.json").write_text('{"kind": "bibench-run", "schema_version": 1}')
    with pytest.raises(SettingsError, match="no baseline; make it"):
        read_baseline(tmp_path / "known.json")


def test_a_baseline_of_another_version_is_told(tmp_path) -> None:
    content = {"kind": "bibench-lint-baseline", "schema_version": 2, "findings": []}
    (tmp_path / "known.json").write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="of another version"):
        read_baseline(tmp_path / "known.json")


@pytest.mark.parametrize("place", ["/proc/known.json", "absent/known.json", "folder"])
def test_where_nothing_can_be_written_is_said_and_leaves_nothing(place, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SettingsError, match="cannot be written"):
        write_baseline(tmp_path / place, [report("a")])
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]
