import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.load import load_graph, normalize, notes

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
    with pytest.raises(GraphError, match=r"a folder, not a file; name the \.onnx file in it"):
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


@pytest.mark.parametrize(("batch", "found"), [("N", "N"), ("4", "4")])
def test_a_batch_that_became_1_is_noted(batch, found, make_graph) -> None:
    model = make_graph(f"g (float[{batch},4] x) => (float[{batch},4] y) {{ y = Relu(x) }}")
    assert notes(model) == (f'input "x": its batch of {found} became 1',)
    assert notes(model.clone()) == notes(model)
    assert notes(make_graph(PLAIN)) == ()


def test_a_batch_that_is_written_into_the_graph_is_refused_with_the_way_out(make_graph) -> None:
    text = """g (float[4,6] x) => (float[4,2] y) {
        r = Reshape(x, rows)  f = Reshape(r, all)  y = MatMul(f, w) }"""
    message = r'\(Reshape\) does not fit .* \(input "x": its batch of 4 became 1: export it for a b'
    with pytest.raises(GraphError, match=message):
        make_graph(text, rows=np.array([4, -1]), all=np.array([4, -1]), w=np.ones((6, 2)))


def test_a_dynamic_height_is_refused_and_named(make_graph) -> None:
    with pytest.raises(GraphError, match=r'"x" has dynamic sizes \(H, W\); export .* fixed sizes'):
        make_graph("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }")


def test_an_input_that_is_one_number_is_refused(make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.ClearField("dim")
    with pytest.raises(GraphError, match='input "x" has no shape'):
        load_graph(saved(proto, tmp_path))


@pytest.mark.parametrize("end", ["input", "output"])
@pytest.mark.parametrize("field", ["shape", "type"])
def test_an_input_or_output_without_a_shape_is_named(end, field, make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN)
    (value,) = getattr(proto.graph, end)
    if field == "type":
        value.ClearField("type")
    else:
        value.type.tensor_type.ClearField("shape")
    words = f'model.onnx: {end} "{value.name}" has no shape; export the model with the shapes'
    with pytest.raises(GraphError, match=words):
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
    "Sub of zero": "h = Sub(x, zero)",
    "Mul by one": "h = Mul(x, one)",
    "one times x": "h = Mul(one, x)",
    "Div by one": "h = Div(x, one)",
}


@pytest.mark.parametrize("form", NOTHING)
def test_nodes_that_do_nothing_go_and_the_numbers_stay(
    form, make_proto, run_graph, tmp_path
) -> None:
    proto = make_proto(
        f"g (float[1,4,5,5] x) => (float[1,4,5,5] y) {{ {NOTHING[form]}  y = Relu(h) }}",
        zero=0.0,
        one=1.0,
        zeros=np.zeros((1, 4, 5, 5)),
    )
    model = load_graph(saved(proto, tmp_path))
    assert ops(model) == ["Relu"]
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(model, x), run_graph(proto, x))


@pytest.mark.parametrize("given", ["h", "x, float[1,4,5,5] h", "h, float[1,4,5,5] x"])
@pytest.mark.parametrize("form", NOTHING)
def test_what_the_graph_gives_keeps_its_name(form, given, make_graph, run_graph) -> None:
    text = f"g (float[1,4,5,5] z) => (float[1,4,5,5] {given}) {{ x = Neg(z)  {NOTHING[form]} }}"
    model = make_graph(text, zero=0.0, one=1.0, zeros=np.zeros((1, 4, 5, 5)))
    assert [value.name for value in model.graph.outputs] == given.split(", float[1,4,5,5] ")
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(model, x), -x)


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


def test_one_name_is_given_once(make_proto, tmp_path) -> None:
    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { [n] h = Neg(x)  [n] y = Abs(h) }")
    names = [node.name for node in load_graph(saved(proto, tmp_path)).graph]
    assert len(set(names)) == 2


def test_names_that_a_pass_gives_do_not_meet_those_of_the_file(make_graph, run_graph) -> None:
    from bibench_deploy.graph.initializer import add_initializer

    model = make_graph("g (float[1,4] x) => (float[1,4] y) { scale = Neg(x)  y = Relu(scale) }")
    constant = add_initializer(model.graph, "scale", np.full(4, 2, np.float32))
    relu = model.graph.node(1)
    multiply = ir.node("Mul", [relu.inputs[0], constant], name="scale")
    multiply.outputs[0].name = "scale"
    model.graph.insert_before(relu, multiply)
    relu.replace_input_with(0, multiply.outputs[0])
    normalize(model)
    assert run_graph(model, -np.ones((1, 4), np.float32)).tolist() == [[2, 2, 2, 2]]


def test_foreign_metadata_goes(make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN)
    proto.metadata_props.add(key="author", value="somebody")
    proto.metadata_props.add(key="bibench.notes", value="not ours")
    proto.graph.node[0].metadata_props.add(key="bibench.layout", value="1")
    proto.graph.node[0].doc_string = "File /home/somebody/net.py, line 3"
    model = load_graph(saved(proto, tmp_path))
    assert not model.metadata_props
    assert notes(model) == ()
    (node,) = model.graph
    assert (dict(node.metadata_props), node.doc_string) == ({}, None)


@pytest.mark.parametrize("version", [3, 8])
def test_weights_that_are_listed_as_inputs_are_constants(
    version, make_proto, run_graph, tmp_path
) -> None:
    text = "g (float[1,2,4,4] x, float[3,2,1,1] w) => (float[1,3,4,4] y) { y = Conv(x, w) }"
    proto = make_proto(text, opset=11, w=np.ones((3, 2, 1, 1)))
    proto.ir_version = version
    model = load_graph(saved(proto, tmp_path))
    assert (
        run_graph(model, np.ones((1, 2, 4, 4), np.float32)).tolist()
        == np.full((1, 3, 4, 4), 2).tolist()
    )
    assert [value.name for value in model.graph.inputs] == ["x"]
    (conv,) = model.graph
    assert constant_of(conv.inputs[1]) is not None


FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 18, "mine" : 1]>
g (float[1,4] x) => (float[1,4] y) {
    a = mine.outer <scale: float = 3.0> (x)
    y = mine.outer (a)
}
<domain: "mine", opset_import: ["" : 18, "mine" : 1]>
outer <scale: float = 0.5> (x) => (y) {
    c = Constant <value_float: float = @scale> ()
    h = mine.inner (x)
    y = Mul(h, c)
}
<domain: "mine", opset_import: ["" : 18]>
inner (x) => (y) { h = Neg(x)  y = Abs(h) }
"""


def test_functions_are_written_out(run_graph, tmp_path) -> None:
    path = saved(onnx.parser.parse_model(FUNCTIONS), tmp_path)
    model = load_graph(path)
    assert ops(model) == ["Neg", "Abs", "Mul"] * 2
    assert not model.functions
    assert run_graph(model, np.full((1, 4), -2, np.float32)).tolist() == [[3, 3, 3, 3]]


def test_functions_that_call_each_other_are_refused(tmp_path) -> None:
    text = FUNCTIONS.replace("h = Neg(x)  y = Abs(h)", "y = mine.outer(x)").replace(
        "inner (x)", "inner (x)"
    )
    text = text.replace(
        'opset_import: ["" : 18]>\ninner', 'opset_import: ["" : 18, "mine" : 1]>\ninner'
    )
    with pytest.raises(GraphError, match=r"model\.onnx: "):
        load_graph(saved(onnx.parser.parse_model(text), tmp_path))


# What an operator is called with differs between opsets.
LAYER = """g (float[N,4,6,6] x) => (float[N,8] y) {{
    c = Clip(x, low, high)
    {}
    d = Dropout{}(p)
    m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)
    {}
    {}
    y = Gemm<transB=1>(q, w)
}}"""
MEAN_11 = "r = ReduceMean<axes=[2,3], keepdims=1>(m)"
MEAN_18 = "r = ReduceMean<keepdims=1>(m, spatial)"
SQUEEZE_11, SQUEEZE_13 = "q = Squeeze<axes=[2,3]>(r)", "q = Squeeze(r, spatial)"
OPSETS = {
    11: (MEAN_11, SQUEEZE_11), 12: (MEAN_11, SQUEEZE_11), 13: (MEAN_11, SQUEEZE_13),
    14: (MEAN_11, SQUEEZE_13), 15: (MEAN_11, SQUEEZE_13), 16: (MEAN_11, SQUEEZE_13),
    17: (MEAN_11, SQUEEZE_13), 18: (MEAN_18, SQUEEZE_13), 19: (MEAN_18, SQUEEZE_13),
    20: (MEAN_18, SQUEEZE_13), 21: (MEAN_18, SQUEEZE_13),
}  # fmt: skip


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_from_11_to_21_is_read(opset, make_proto, run_graph, tmp_path) -> None:
    text = LAYER.format("p = Pad(c, amounts)", "<ratio=0.5>" if opset < 12 else "", *OPSETS[opset])
    proto = make_proto(
        text,
        opset=opset,
        low=-1.0,
        high=1.0,
        amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        spatial=np.array([2, 3]),
        w=np.random.default_rng(1).standard_normal((8, 4)),
    )
    model = load_graph(saved(proto, tmp_path))
    assert ops(model) == ["Clip", "Pad", "MaxPool", "ReduceMean", "Squeeze", "Gemm"]
    x = np.random.default_rng(0).standard_normal((1, 4, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(model, x), run_graph(proto, x))


def test_a_transposed_weight_becomes_one_constant(make_graph) -> None:
    text = "g (float[1,4] x) => (float[1,3] y) { t = Transpose<perm=[1,0]>(w)  y = MatMul(x, t) }"
    (node,) = make_graph(text, w=np.arange(12.0).reshape(3, 4)).graph
    assert constant_of(node.inputs[1]).tolist() == np.arange(12.0).reshape(3, 4).T.tolist()


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd"])
def test_weights_outside_the_folder_are_not_read(location, make_proto, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(64))
    proto = make_proto(PLAIN.replace("Relu(x)", "Mul(x, w)"), w=np.ones(4))
    (tensor,) = proto.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GraphError, match=r"model\.onnx: "):
        load_graph(path)


@pytest.mark.parametrize("sizes", [[3], [5], [2, 3], [-4], [2**40]])
def test_a_constant_whose_bytes_do_not_fill_its_shape_is_named(sizes, make_proto, tmp_path) -> None:
    proto = make_proto(PLAIN.replace("Relu(x)", "Mul(x, w)"), w=np.arange(4.0))
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(sizes)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GraphError, match=r"model\.onnx: .*\bw\b"):
        load_graph(path)


def test_a_constant_of_impossible_size_is_not_made(make_proto, tmp_path) -> None:
    text = """g (float[1,4] x) => (float[1,4] y) {
        c = ConstantOfShape(sizes)  m = ReduceMax<keepdims=0>(c)  y = Add(x, m) }"""
    proto = make_proto(text, opset=17, sizes=np.array([2**20, 2**20, 2**20]))
    with pytest.raises(GraphError, match=r'"c" \(ConstantOfShape\) gives \[.*more numbers than'):
        load_graph(saved(proto, tmp_path))


def test_an_opset_that_nobody_knows_is_refused(make_proto, tmp_path) -> None:
    known = onnx.defs.onnx_opset_version()
    with pytest.raises(GraphError, match=rf"model\.onnx: opset 99 is newer than .* up to {known}"):
        load_graph(saved(make_proto(PLAIN, opset=99), tmp_path))


def test_an_output_that_does_not_depend_on_the_input_is_named(make_proto, tmp_path) -> None:
    text = "g (float[1,4] x) => (float[1,3] y) { h = Relu(x)  y = Add(k, k) }"
    with pytest.raises(GraphError, match='output "y" does not depend on the input; export'):
        load_graph(saved(make_proto(text, k=np.ones((1, 3))), tmp_path))


def test_a_line_break_in_a_name_is_none_in_the_message(make_proto, tmp_path) -> None:
    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    proto.graph.output[0].name = "two\nlines"
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(GraphError, match='output "two lines" has no shape'):
        load_graph(saved(proto, tmp_path))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(data, make_proto, tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    text = """g (float[N,2,5,5] x) => (float[N,3] y) {
        c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)  n = Neg(b)  a = Add(c, n)
        s = Sign(a)  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, v) }"""
    proto = make_proto(text, w=np.ones((4, 2, 3, 3)), b=np.ones((1, 4, 1, 1)), v=np.ones((3, 4)))
    content = bytearray(proto.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4), label="bytes changed")):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans(), label="is cut"):
        del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(bytes(content))
    message = str(path)
    try:
        load_graph(path)
    except GraphError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert "\n" not in message
