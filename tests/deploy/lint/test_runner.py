import numpy as np
import pytest

from bibench_deploy.errors import LoweringError
from bibench_deploy.export.pipeline import check_held
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets.lce import TARGET

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
ARRAYS = {
    "w": SIGNS, "v": np.concatenate([SIGNS, SIGNS], axis=1), "f": SIGNS * 1.5 + 0.1,
    "zero": 0.0, "one": 1.0, "minus": -1.0,
    "alpha": np.linspace(0.5, 2, 8).reshape(8, 1, 1),
    "rows": np.linspace(0.5, 2, 6).reshape(6, 1),
    "axes": np.array([1, 2, 3]),
    "quarter": 0.25,
}  # fmt: skip
GOOD = "g = GreaterOrEqual({0}, zero)  s = Where(g, one, minus)"

# Name: (nodes from x to y, codes of the errors that lint finds).
GRAPHS = {
    "clean": (GOOD.format("x") + "  c = Conv(s, w)  y = Mul(c, alpha)", []),
    "float": ("c = Conv(x, f)  y = Relu(c)", []),
    "torch.sign": ("h = Add(x, quarter)  s = Sign(h)  y = Conv(s, w)", []),
    "torch.sign of the input": ("s = Sign(x)  y = Conv(s, w)", ["BIB101"]),
    "torch.sign after a ReLU": ("h = Relu(x)  s = Sign(h)  y = Conv(s, w)", []),
    "x >= 0 after a ReLU": ("h = Relu(x)  " + GOOD.format("h") + "  y = Conv(s, w)", []),
    "spatial scale": (GOOD.format("x") + "  c = Conv(s, w)  y = Mul(c, rows)", ["BIB201"]),
    "rescaled by the activation": (
        "a = Abs(x)  k = ReduceMean(a, axes)  " + GOOD.format("x")
        + "  c = Conv(s, w)  y = Mul(c, k)",
        ["BIB202"]),
}  # fmt: skip


@pytest.fixture
def graph_of(make_graph):
    return lambda nodes: make_graph(f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}", **ARRAYS)


@pytest.mark.parametrize("name", GRAPHS)
def test_export_refuses_exactly_what_lint_finds_an_error_in(name, graph_of) -> None:
    nodes, codes = GRAPHS[name]
    graph = graph_of(nodes)
    errors = [item for item in lint_graph(graph, TARGET).findings if item.severity == "error"]
    assert [finding.code for finding in errors] == codes
    if not codes:
        check_held(graph, TARGET)
        return
    with pytest.raises(LoweringError) as raised:
        check_held(graph, TARGET)
    assert [reason.split()[1] for reason in raised.value.reasons] == codes
    for finding, reason in zip(errors, raised.value.reasons, strict=True):
        assert reason.startswith(f"{finding.layer}: ")
        assert finding.hint in reason


def test_findings_come_by_layer_in_graph_order_then_by_code(graph_of) -> None:
    result = lint_graph(
        graph_of(
            """h = Add(x, quarter)  s = Sign(h)  [second] c = Conv(s, w)  d = Mul(c, rows)
            e = Add(d, quarter)  t = Sign(e)  [first] y = Conv(t, v)"""
        ),
        TARGET,
    )
    assert [(finding.layer, finding.code) for finding in result.findings] == [
        ("second", "BIB101"), ("second", "BIB201"), ("first", "BIB101"),
    ]  # fmt: skip
    assert (result.target, result.layers) == ("lce", ("second", "first"))
    counts = {severity.value: result.count(severity) for severity in Severity}
    assert counts == {"error": 1, "warning": 2, "info": 0}


def test_a_float_network_has_no_layer_to_check(graph_of) -> None:
    result = lint_graph(graph_of(GRAPHS["float"][0]), TARGET)
    assert (result.layers, result.findings) == ((), ())
