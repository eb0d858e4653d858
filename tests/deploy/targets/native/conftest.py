"""One operator of the library in ONNX Runtime, and the instruction sets that this processor has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bibench_deploy.targets.native import build, library
from bibench_deploy.targets.onnx.run_model import load_session

Run = Callable[..., list[np.ndarray]]

# Tests run what the sources are now, in a clone that was just updated too.
if not build.is_current(Path(build.__file__).with_name(build.NAME)):
    build.build_library(build.own_abi(), Path(build.__file__).parent)


def node_model(
    kind: str,
    inputs: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray | None],
    attributes: Mapping[str, Any],
    outputs: Sequence[str] = ("numbers", "signs"),
) -> bytes:
    """A model of one node of the library, its inputs first; a constant of None is left out."""
    names = [*inputs, *(name if value is not None else "" for name, value in constants.items())]
    while names and not names[-1]:
        names.pop()
    node = onnx.helper.make_node(kind, names, list(outputs), domain="bibench", **attributes)
    types = {"numbers": onnx.TensorProto.FLOAT, "signs": onnx.TensorProto.UINT8}
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in inputs.items()
        ],
        [onnx.helper.make_tensor_value_info(name, types[name], None) for name in outputs if name],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in constants.items()
            if value is not None
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("bibench", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def run_node() -> Run:
    """run_node(kind, inputs, constants, attributes): the outputs of one operator."""

    def run(kind: str, inputs: Mapping[str, np.ndarray], *rest: Any, threads: int = 1) -> list[Any]:
        model = node_model(kind, inputs, *rest)
        session = load_session(model, threads, custom_ops_library=library())
        return session.run(None, dict(inputs))

    return run
