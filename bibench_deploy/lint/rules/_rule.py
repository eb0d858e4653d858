"""What a rule file gives: RULE, the name of one defect, and a check where a graph shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.network import Network


@dataclass(frozen=True)
class Defect:
    """What a check found: a finding without the rule's names.

    Attributes:
        layer: name of the node in the .onnx file; empty where it is the file as a whole.
        severity: warning or info; errors are what the target itself refuses.
        message: what was found.
        hint: what to do.
    """

    layer: str
    severity: Severity
    message: str
    hint: str


def _nothing(_: Network) -> Iterator[Defect]:
    return iter(())


@dataclass(frozen=True)
class Rule:
    """One deployability rule.

    Its errors are the refusals of that name which the target gives. Its check adds what does
    run, but slower, larger or not quite equal.

    Attributes:
        code: BIB and three digits; the first digit is the family.
        name: the defect, so that "allow <name>" reads well.
        check: gives what a network shows of it short of an error.
    """

    code: str
    name: str
    check: Callable[[Network], Iterator[Defect]] = _nothing

    def findings(self, network: Network) -> Iterator[Finding]:
        """The defects that the check gives as findings."""
        for defect in self.check(network):
            yield Finding(
                self.code, self.name, defect.severity, defect.layer, defect.message, defect.hint
            )
