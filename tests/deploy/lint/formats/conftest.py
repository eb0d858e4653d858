"""Results to print: one without layers, one clean, one with findings of every severity."""

from __future__ import annotations

import pytest

from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.runner import LintResult, Report

FINDINGS = (
    Finding("BIB101", "sign-of-zero", Severity.WARNING, "stages.0.conv1",
            "0 becomes 0 here, and +1 on lce", "binarize by torch.where(x >= 0, 1.0, −1.0)"),
    Finding("BIB201", "scale-granularity", Severity.ERROR, "stages.0.conv1",
            "a spatial scale on the output", "use one constant factor per output channel"),
    Finding("BIB301", "sample", Severity.INFO, "head", "worth knowing", "nothing to do"),
)  # fmt: skip
LAYERS = ("stages.0.conv1", "stages.0.conv2")
HOSTILE = Finding(
    "BIB506", "operator-form", Severity.ERROR, "a:b,c%0A\n::error::<&\x1b[31m",
    'it says "no"; 100 %', "leave\nit",
)  # fmt: skip
FOUND = LintResult("lce", LAYERS, FINDINGS)
REPORTS = {
    "no layers": [Report("net.onnx", (LintResult("lce", (), ()),))],
    "clean": [Report("net.onnx", (LintResult("lce", LAYERS, ()),))],
    "findings": [Report("net.onnx", (FOUND,))],
    "two targets": [Report("net.onnx", (FOUND, LintResult("other", LAYERS, ())))],
    "two files": [
        Report("one.onnx", (FOUND,)),
        Report("models/ü two.onnx", (LintResult("lce", ("head",), ()),)),
    ],
    "hostile names": [Report("net.onnx", (LintResult("lce", (), (HOSTILE,)),))],
}


@pytest.fixture(params=REPORTS)
def reports(request: pytest.FixtureRequest) -> list[Report]:
    return REPORTS[request.param]
