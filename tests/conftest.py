"""Small ONNX graphs, written as text in the test that needs them, and a way to run them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

MakeProto = Callable[..., onnx.ModelProto]
MakeGraph = Callable[..., ir.Model]

# A shell starts a job in the background with this signal ignored, and every program that a test
# starts and interrupts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_proto() -> MakeProto:
    """make_proto("g (float[1,4] x) => (y) { y = Sign(x) }", opset=20, **initializers).

    A node that has no [name] of its own is called like its first output. An output written
    without a type is float, of the shape that is inferred. `s = PlusMinus(x)` stands for
    torch.where(x >= 0, 1.0, -1.0), which no operator of ONNX is.
    """

    def make(text: str, *, opset: int = 20, **arrays: Any) -> onnx.ModelProto:
        graph = onnx.parser.parse_graph(text)
        write_plus_minus(graph)
        for node in graph.node:
            node.name = node.name or node.output[0]
        for name, array in arrays.items():
            array = np.asarray(array)
            if array.dtype == np.float64:
                array = array.astype(np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        untyped = [value for value in graph.output if not value.HasField("type")]
        for value in untyped:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
        )
        if untyped:
            inferred = onnx.shape_inference.infer_shapes(model)
            for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
                value.CopyFrom(known)
        return model

    return make


def write_plus_minus(graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "PlusMinus":
            graph.node.append(node)
            continue
        (source,), (output,) = node.input, node.output
        numbers = {f"{output}_zero": 0.0, f"{output}_plus": 1.0, f"{output}_minus": -1.0}
        zero, plus, minus = numbers
        compared = onnx.helper.make_node("GreaterOrEqual", [source, zero], [f"{output}_compared"])
        taken = [f"{output}_compared", plus, minus]
        graph.node.extend([compared, onnx.helper.make_node("Where", taken, [output], node.name)])
        for name, number in numbers.items():
            array = np.array(number, np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))


@pytest.fixture(scope="session")
def make_graph(make_proto: MakeProto, tmp_path_factory: pytest.TempPathFactory) -> MakeGraph:
    """make_graph(text, opset=20, **initializers): the same, read by `load_graph`."""
    from bibench_deploy.graph.load import load_graph

    path = tmp_path_factory.mktemp("graphs") / "model.onnx"

    def make(text: str, **options: Any) -> ir.Model:
        onnx.save(make_proto(text, **options), path)
        return load_graph(path)

    return make


@pytest.fixture(scope="session")
def run_graph() -> Callable[..., np.ndarray]:
    """run_graph(model, *inputs): its first output by ONNX Runtime, optimisations off."""
    import onnxruntime

    def run(model: ir.Model | onnx.ModelProto, *inputs: np.ndarray) -> np.ndarray:
        if isinstance(model, ir.Model):
            model = ir.to_proto(model)
            onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [entry.name for entry in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return run


@pytest.fixture(scope="session")
def lce_writer() -> Iterator[Any]:
    """LCE's writer with one conversion process for the whole session: it costs seconds."""
    from bibench_deploy.targets.lce import TARGET

    with TARGET.open_writer() as writer:
        yield writer


@pytest.fixture
def write_lce(lce_writer: Any, tmp_path: Path) -> Callable[[ir.Model], Any]:
    """write_lce(graph): lower, convert and prove it by the real converter: a WrittenModel."""
    from bibench_deploy.targets.lce import TARGET

    def write(graph: ir.Model) -> Any:
        return lce_writer.write(TARGET.lower(graph), tmp_path)

    return write
