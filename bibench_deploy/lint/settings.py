"""What a project chooses of lint: [tool.bibench.lint] of pyproject.toml, and the command line.

[tool.bibench.lint]
select = ["BIB2", "BIB3"]           # these rules alone: codes, their beginnings, or names
ignore = ["mean-shift"]             # not these
baseline = "lint-baseline.json"     # what it lists is known already

[tool.bibench.lint.severity]
zero-weights = "error"              # error, warning or info

[tool.bibench.lint.per-layer-ignores]
"head.*" = ["BIB405"]               # layers by name, with *, ? and […]
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bibench_deploy.errors import SettingsError
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules import hint_of, load_all
from bibench_deploy.lint.runner import LintResult

_TABLE = "tool.bibench.lint"
_KEYS = ("baseline", "ignore", "per-layer-ignores", "select", "severity")


@dataclass(frozen=True)
class Settings:
    """What is reported, and as what.

    Attributes:
        select: codes of the rules that are reported; all of them where None.
        ignore: codes of the rules that are not.
        per_layer_ignores: (glob of layers, codes that are not reported of them).
        severity: code → what a finding of it counts as.
        baseline: the file of known findings.
    """

    select: frozenset[str] | None = None
    ignore: frozenset[str] = frozenset()
    per_layer_ignores: tuple[tuple[str, frozenset[str]], ...] = ()
    severity: dict[str, Severity] = field(default_factory=dict)
    baseline: Path | None = None

    def apply(self, result: LintResult) -> LintResult:
        """A result with what is reported of it."""
        findings = (
            replace(finding, severity=self.severity.get(finding.code, finding.severity))
            for finding in result.findings
            if self._is_reported(finding)
        )
        return replace(result, findings=tuple(findings))

    def _is_reported(self, finding: Finding) -> bool:
        if finding.code in self.ignore:
            return False
        if self.select is not None and finding.code not in self.select:
            return False
        return not any(
            finding.code in codes and fnmatchcase(finding.layer, glob)
            for glob, codes in self.per_layer_ignores
        )


def read_settings(folder: Path) -> Settings:
    """The settings of the nearest pyproject.toml that has some, from a folder upwards.

    Raises:
        SettingsError: the file is no TOML, or says what is not known.
    """
    for parent in (folder, *folder.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            table = _table_of(path)
            if table is not None:
                return _settings_of(path, table)
    return Settings()


def codes_of(names: Sequence[str], place: str) -> frozenset[str]:
    """The codes that are meant by codes, their beginnings (BIB2) and names of rules.

    Raises:
        SettingsError: a name of no rule; `place` says where it stands.
    """
    codes: set[str] = set()
    for given in names:
        name = given.strip()
        start = name.upper()
        found = {
            rule.code
            for rule in load_all()
            if name.lower() == rule.name
            or start == "ALL"
            or (start[:3] == "BIB" and rule.code.startswith(start))
        }
        if not found:
            raise SettingsError(f'{place}: no rule "{given}"{hint_of(name)}')
        codes |= found
    return frozenset(codes)


def _table_of(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error})") from error
    if "bibench" not in text:
        return None  # most projects: no need to take it apart
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        table: Any = tomlkit.parse(text).unwrap()
    except TOMLKitError as error:
        raise SettingsError(f"{path}: no TOML: {error}") from error
    for key in _TABLE.split("."):
        table = table.get(key) if isinstance(table, dict) else None
    if table is not None and not isinstance(table, dict):
        raise SettingsError(f"{path} [{_TABLE}]: not a table")
    return table


def _settings_of(path: Path, table: dict[str, Any]) -> Settings:
    place = f"{path} [{_TABLE}]"
    for key in table:
        if key not in _KEYS:
            raise SettingsError(
                f'{place}: unknown key "{key}"{_nearest(key, _KEYS)}; one of: {", ".join(_KEYS)}'
            )
    baseline = table.get("baseline")
    if baseline is not None and not isinstance(baseline, str):
        raise SettingsError(f"{place} baseline: {baseline!r} is no name of a file")
    return Settings(
        select=_codes(table, "select", place) if "select" in table else None,
        ignore=_codes(table, "ignore", place),
        per_layer_ignores=tuple(
            (glob, codes_of(_names(names, f'{place} per-layer-ignores "{glob}"'), place))
            for glob, names in _subtable(table, "per-layer-ignores", place).items()
        ),
        severity={
            code: _severity(value, f"{place} severity {name}")
            for name, value in _subtable(table, "severity", place).items()
            for code in codes_of([name], f"{place} severity")
        },
        baseline=None if baseline is None else path.parent / baseline,
    )


def _codes(table: dict[str, Any], key: str, place: str) -> frozenset[str]:
    return codes_of(_names(table.get(key, []), f"{place} {key}"), f"{place} {key}")


def _names(value: Any, place: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f'{place}: {value!r} is no list of rules, such as ["BIB2"]')
    return value


def _subtable(table: dict[str, Any], key: str, place: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise SettingsError(f"{place} {key}: {value!r} is no table")
    return value


def _severity(value: Any, place: str) -> Severity:
    valid = [severity.value for severity in Severity]
    if value not in valid:
        raise SettingsError(f"{place}: {value!r} is none of {', '.join(valid)}")
    return Severity(value)


def _nearest(name: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""
