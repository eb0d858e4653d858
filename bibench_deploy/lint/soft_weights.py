"""A run whose weights are not ±1 yet: there is no graph to check, and one finding."""

from __future__ import annotations

from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules import load
from bibench_deploy.lint.runner import LintResult
from bibench_deploy.targets._target import Target


def soft_weights(target: Target, reason: str) -> LintResult:
    """What lint says of a network that its algorithm refuses to harden.

    Args:
        target: what it shall run on.
        reason: why, `<layer>: <what was found>`.
    """
    layer, separator, message = reason.partition(": ")
    rule = load("soft-binarization")
    hint = "train until the end of the algorithm's schedule: bibench train --resume"
    finding = Finding(
        rule.code,
        rule.name,
        Severity.ERROR,
        layer if separator else "",
        message if separator else reason,
        hint,
    )
    return LintResult(target.name, (), (finding,))
