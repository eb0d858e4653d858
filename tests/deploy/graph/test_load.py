import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.load import load_graph

PLAIN = "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"


def ops(model) -> list[str]:
    return [node.op_type for node in model.graph]


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return path


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(GraphError, match=r"nothing\.onnx: no such file; name an \.onnx file"):
        load_graph(tmp_path / "nothing.onnx")


def test_a_folder_is_no_file(tmp_path) -> None:
    with pytest.raises(GraphError, match="no such file"):
        load_graph(tmp_path)


@pytest.mark.parametrize("content", [b"", b"just some text\n", b"\x00" * 40, b"\xff" * 40])
def test_a_foreign_file_is_told_from_an_onnx_file(content, tmp_path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=r"model\.onnx: not an ONNX"):
        load_graph(tmp_path / "model.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(make_proto, tmp_path, share) -> None:
    path = saved(make_proto(PLAIN.replace("Relu(x)", "Add(x, w)"), w=np.ones((1, 4))), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(GraphError):
        load_graph(path)


def test_what_the_checker_says_is_passed_on(make_proto, tmp_path) -> None:
    path = saved(make_proto("g (float[1,4] x) => (float[1,4] y) { y = Relu(absent) }"), tmp_path)
    with pytest.raises(GraphError, match=r"fails the ONNX checker: .*absent"):
        load_graph(path)


def test_opset_10_is_too_old_and_11_is_read(make_proto, tmp_path) -> None:
    with pytest.raises(GraphError, match="opset 10 is older than 11"):
        load_graph(saved(make_proto(PLAIN, opset=10), tmp_path))
    assert ops(load_graph(saved(make_proto(PLAIN, opset=11), tmp_path))) == ["Relu"]


def test_a_file_without_a_node_is_refused(tmp_path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [value], [value]))
    with pytest.raises(GraphError, match="holds no node"):
        load_graph(saved(model, tmp_path))


@pytest.mark.parametrize("batch", ["N", "4"])
def test_any_batch_becomes_1_everywhere(make_graph, batch) -> None:
    model = make_graph(
        f"g (float[{batch},4,6,6] x) => (float[{batch},24] y) {{"
        "h = MaxPool<kernel_shape=[2,3], strides=[2,3]>(x)  y = Flatten(h) }"
    )
    assert list(model.graph.inputs[0].shape) == [1, 4, 6, 6]
    assert [list(node.outputs[0].shape) for node in model.graph] == [[1, 4, 3, 2], [1, 24]]


def test_a_dynamic_height_is_refused_and_named(make_graph) -> None:
    with pytest.raises(GraphError, match=r'"x" has dynamic sizes \(H, W\); export .* fixed sizes'):
        make_graph("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }")


def test_an_input_that_is_one_number_is_refused(make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.ClearField("dim")
    with pytest.raises(GraphError, match='input "x" has no shape'):
        load_graph(saved(proto, tmp_path))


def test_an_initializer_that_is_listed_as_input_is_no_input_of_the_user(
    make_proto, tmp_path
) -> None:
    proto = make_proto(
        "g (float[1,4] x, float[4] w) => (float[1,4] y) { y = Mul(x, w) }", w=np.arange(1.0, 5)
    )
    model = load_graph(saved(proto, tmp_path))
    assert ops(model) == ["Mul"]


NOTHING = {
    "Identity": "h = Identity(x)",
    "Dropout": "h = Dropout(x)",
    "Dropout whose mask nobody reads": "h, mask = Dropout(x)",
    "Add of zero": "h = Add(x, zero)",
    "zero plus x": "h = Add(zero, x)",
    "Add of a map of zeros": "h = Add(x, zeros)",
}


@pytest.mark.parametrize("form", NOTHING)
def test_nodes_that_do_nothing_go_and_the_numbers_stay(
    form, make_proto, run_graph, tmp_path
) -> None:
    proto = make_proto(
        f"g (float[1,4,5,5] x) => (float[1,4,5,5] y) {{ {NOTHING[form]}  y = Relu(h) }}",
        zero=0.0,
        zeros=np.zeros((1, 4, 5, 5)),
    )
    model = load_graph(saved(proto, tmp_path))
    assert ops(model) == ["Relu"]
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(model, x), run_graph(proto, x))


def test_adding_zeros_that_enlarge_a_tensor_is_kept(make_graph) -> None:
    text = "g (float[1,4,1,1] x) => (float[1,4,3,3] y) { h = Add(x, zeros)  y = Relu(h) }"
    assert ops(make_graph(text, zeros=np.zeros((1, 4, 3, 3)))) == ["Add", "Relu"]


def test_adding_a_number_is_kept(make_graph) -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { h = Add(x, tiny)  y = Relu(h) }"
    assert ops(make_graph(text, tiny=1e-30)) == ["Add", "Relu"]


def test_a_bias_of_zeros_goes_and_any_other_stays(make_graph) -> None:
    text = "g (float[1,2,4,4] x) => (float[1,3,4,4] y) { y = Conv(x, w, b) }"
    weight = np.ones((3, 2, 1, 1))
    assert len(next(iter(make_graph(text, w=weight, b=np.zeros(3)).graph)).inputs) == 2
    assert len(next(iter(make_graph(text, w=weight, b=[0.0, 0, 1e-9]).graph)).inputs) == 3


def test_nodes_that_nothing_reads_go(make_graph) -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { unused = Neg(x)  y = Relu(x) }"
    assert ops(make_graph(text)) == ["Relu"]


def test_weights_kept_in_a_file_beside_are_read_from_anywhere(
    make_proto, run_graph, tmp_path, monkeypatch
) -> None:
    weight = np.arange(1.0, 5)
    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { y = Mul(x, w) }", w=weight)
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert (tmp_path / "there" / "model.onnx.data").is_file()
    monkeypatch.chdir(tmp_path)
    for name in (path, Path(os.path.relpath(path))):
        model = load_graph(name)
        x = np.ones((1, 4), np.float32)
        np.testing.assert_array_equal(run_graph(model, x), [weight])


def test_missing_weights_beside_the_file_are_named(make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN.replace("Relu(x)", "Mul(x, w)"), w=np.ones(4))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    (tmp_path / "weights.data").unlink()
    with pytest.raises(GraphError, match=r"weights\.data"):
        load_graph(path)


@pytest.mark.parametrize(("dtype", "name"), [("double", "DOUBLE"), ("float16", "FLOAT16")])
def test_an_input_of_other_precision_is_refused(dtype, name, make_graph) -> None:
    with pytest.raises(GraphError, match=f'input "x" is {name}; export the model in float32'):
        make_graph(f"g ({dtype}[1,4] x) => ({dtype}[1,4] y) {{ y = Relu(x) }}")


@pytest.mark.parametrize("sizes", ["0,4,4", "3,40000,40000"])
def test_an_input_of_an_impossible_size_is_refused(sizes, make_graph) -> None:
    with pytest.raises(GraphError, match='input "x" has sizes'):
        make_graph(f"g (float[1,{sizes}] x) => (float[1,{sizes}] y) {{ y = Relu(x) }}")


def test_nodes_without_a_name_are_called_like_their_output(make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN)
    proto.graph.node[0].ClearField("name")
    assert [node.name for node in load_graph(saved(proto, tmp_path)).graph] == ["y"]
