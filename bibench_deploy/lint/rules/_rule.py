"""What a rule file gives: RULE, which checks one binary layer for one target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bibench_deploy.graph.facts import BinaryConvFacts
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.targets._target import Target


@dataclass(frozen=True)
class Defect:
    """What a check found: a finding without the rule's and the layer's names."""

    severity: Severity
    message: str
    hint: str


@dataclass(frozen=True)
class Rule:
    """One deployability rule.

    Attributes:
        code: BIB and three digits; the first digit is the family.
        name: the defect, so that "allow <name>" reads well.
        check: gives the defects of one binary layer for one target.
    """

    code: str
    name: str
    check: Callable[[BinaryConvFacts, Target], Iterator[Defect]]

    def findings(self, facts: BinaryConvFacts, target: Target) -> Iterator[Finding]:
        """The defects of one layer as findings."""
        for defect in self.check(facts, target):
            yield Finding(
                self.code, self.name, defect.severity, facts.name, defect.message, defect.hint
            )
