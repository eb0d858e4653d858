"""Results to print: one without layers, one clean, one with findings of every severity."""

from __future__ import annotations

import pytest

from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.runner import LintResult

FINDINGS = (
    Finding("BIB101", "sign-of-zero", Severity.WARNING, "stages.0.conv1",
            "0 becomes 0 here, and +1 on lce", "binarize by torch.where(x >= 0, 1.0, −1.0)"),
    Finding("BIB201", "scale-granularity", Severity.ERROR, "stages.0.conv1",
            "a spatial scale on the output", "use one constant factor per output channel"),
    Finding("BIB301", "sample", Severity.INFO, "head", "worth knowing", "nothing to do"),
)  # fmt: skip
RESULTS = {
    "no layers": LintResult("lce", 0, ()),
    "clean": LintResult("lce", 18, ()),
    "findings": LintResult("lce", 18, FINDINGS),
}


@pytest.fixture(params=RESULTS)
def result(request: pytest.FixtureRequest) -> LintResult:
    return RESULTS[request.param]
