from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bibench_deploy import targets
from bibench_deploy.lint.runner import lint_graph

MASK = "g (float[1,4] x) => (float[1,4] y) { m = Add(x, minus)  y = Softmax(m) }"


@pytest.mark.parametrize("target", ["dabnn", "lce", "native", "onnx"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_an_error_for_every_target(
    make_graph: Any, target: str, number: float
) -> None:
    weight = np.ones((2, 3, 3, 3))
    weight[1, 0, 0, :2] = number
    graph = make_graph("g (float[1,3,8,8] x) => (y) { [stem] y = Conv(x, w) }", w=weight)
    found = [item for item in lint_graph(graph, targets.load(target)).findings
             if item.rule == "not-finite"]  # fmt: skip
    assert [(item.layer, item.severity.value) for item in found] == [("stem", "error")]
    assert "2 of its weights" in found[0].message


def test_minus_infinity_in_a_mask_is_no_weight(make_graph: Any) -> None:
    graph = make_graph(MASK, minus=np.array([[0, -np.inf, 0, 0]]))
    findings = lint_graph(graph, targets.load("onnx")).findings
    assert "not-finite" not in {item.rule for item in findings}


def test_one_weight_is_told_in_the_singular(make_graph: Any) -> None:
    weight = np.ones((2, 3, 3, 3))
    weight[0, 0, 0, 0] = np.nan
    graph = make_graph("g (float[1,3,8,8] x) => (y) { [stem] y = Conv(x, w) }", w=weight)
    (message,) = [item.message for item in lint_graph(graph, targets.load("lce")).findings]
    assert message == "1 of its weights is infinite or NaN"
