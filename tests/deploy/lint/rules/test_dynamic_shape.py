import numpy as np
import onnx
import pytest

from bibench_deploy import targets
from bibench_deploy.errors import GraphError, UnfitGraphError
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import lint_file

TEXT = "g (float[{}] x) => (float[{}] y) {{ y = Relu(x) }}"
EVERY = [targets.load(name) for name in targets.names()]


def found(make_proto, tmp_path, shape: str):
    onnx.save(make_proto(TEXT.format(shape, shape)), tmp_path / "model.onnx")
    results = lint_file(tmp_path / "model.onnx", EVERY)
    return [item for result in results for item in result.findings if item.code == "BIB502"]


def test_a_dynamic_size_is_an_error_for_every_target(make_proto, tmp_path) -> None:
    findings = found(make_proto, tmp_path, "1,3,H,W")
    assert [item.severity for item in findings] == [Severity.ERROR] * len(EVERY)
    assert findings[0].message == 'input "x" has dynamic sizes (H, W)'
    assert findings[0].hint == "export the model with fixed sizes"


def test_a_dynamic_batch_becomes_1_which_is_told(make_proto, tmp_path) -> None:
    (first, *_) = found(make_proto, tmp_path, "N,3,8,8")
    assert (first.severity, first.message) == (
        Severity.INFO, 'input "x": its batch of N became 1',
    )  # fmt: skip


def test_fixed_sizes_are_clean(make_proto, tmp_path) -> None:
    assert found(make_proto, tmp_path, "1,3,8,8") == []


# Nodes from x to y, and the node whose size depends on the numbers; what follows has no shape.
DATA_DEPENDENT = {
    "NonZero": "[found] z = NonZero(x)  c = Cast<to=1>(z)  y = ReduceMean(c, axes)",
    "Reshape": "s = ReduceSum<keepdims=0>(x, axes)  c = Cast<to=7>(s)  [found] y = Reshape(x, c)",
    "Range": "m = ReduceMax<keepdims=0>(x)  [found] y = Range(zero, m, one)",
}


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("operator", DATA_DEPENDENT)
def test_a_size_that_depends_on_the_numbers_is_an_error_of_its_node(
    operator, batch, make_proto, tmp_path
) -> None:
    nodes = DATA_DEPENDENT[operator]
    proto = make_proto(
        f"g (float[{batch},4,8,8] x) => (float[K] y) {{ {nodes} }}",
        axes=np.array([1, 2, 3]), zero=0.0, one=1.0,
    )  # fmt: skip
    onnx.save(proto, tmp_path / "model.onnx")
    for result in lint_file(tmp_path / "model.onnx", EVERY):
        (finding,) = result.findings
        assert (finding.code, finding.severity) == ("BIB502", Severity.ERROR)
        assert finding.layer == "found"
        assert finding.message.startswith(f"{operator} gives a tensor whose size is not")
        assert finding.hint


def test_a_reshape_to_a_wrong_size_is_no_model(make_proto, tmp_path) -> None:
    text = "g (float[1,4,8,8] x) => (float[A,B] y) { y = Reshape(x, sizes) }"
    onnx.save(make_proto(text, sizes=np.array([3, -1])), tmp_path / "model.onnx")
    with pytest.raises(GraphError, match="does not fit its inputs") as raised:
        lint_file(tmp_path / "model.onnx", EVERY)
    assert not isinstance(raised.value, UnfitGraphError)


UNFIT = {
    "old-opset": lambda make: make("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", opset=9),
    "untested-opset": lambda make: make(
        "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", opset=99
    ),
    "tensor-type": lambda make: make("g (double[1,4] x) => (double[1,4] y) { y = Relu(x) }"),
}


@pytest.mark.parametrize("rule", UNFIT)
def test_a_sound_file_that_no_target_takes_is_a_finding(rule, make_proto, tmp_path) -> None:
    onnx.save(UNFIT[rule](make_proto), tmp_path / "model.onnx")
    for result in lint_file(tmp_path / "model.onnx", EVERY):
        (finding,) = result.findings
        assert (finding.rule, finding.severity, finding.layer) == (rule, Severity.ERROR, "")
        assert finding.hint


def test_weights_of_more_than_2_gib_beside_the_file_are_a_finding(make_proto, tmp_path) -> None:
    proto = make_proto(
        "g (float[1,4] x) => (float[1,4] y) { y = Mul(x, w) }", w=np.ones(4, np.float32)
    )
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend([2**29 + 1, 1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    with (tmp_path / "weights.data").open("wb") as file:
        file.truncate(4 * (2**29 + 1))  # takes no room on the disk
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    for result in lint_file(tmp_path / "model.onnx", EVERY):
        (finding,) = result.findings
        assert (finding.rule, finding.severity) == ("file-size", Severity.ERROR)
        assert "2.0 GiB" in finding.message
