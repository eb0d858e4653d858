import pytest

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets.lce import TARGET


@pytest.mark.parametrize(("opset", "count"), [(11, 0), (21, 0), (22, 1)])
def test_an_opset_that_is_newer_than_tested_is_told(opset, count, make_graph) -> None:
    graph = make_graph("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", opset=opset)
    found = [item for item in lint_graph(graph, TARGET).findings if item.rule == "untested-opset"]
    assert [(item.severity, item.layer) for item in found] == [(Severity.INFO, "")] * count
    assert all("opset 22, and 21 is the newest" in item.message for item in found)
