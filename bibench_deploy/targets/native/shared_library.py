"""The shared library with the operators: where it is, and whether it works here."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import MissingLibraryError
from bibench_deploy.targets.native.build import NAME
from bibench_deploy.targets.native.operators import BINARY_CONV, DOMAIN, own_node, pack_signs
from bibench_deploy.targets.onnx.run_model import load_session

# The oldest ONNX Runtime that the library is tested with.
OLDEST_RUNTIME = "1.20"
# In the environment, it names the instruction set to use in place of the fastest.
VARIABLE = "BIBENCH_NATIVE_ISA"
IR_VERSION = 10
OPSET = 20


def find_library() -> Path:
    """The library of this machine's instruction set, built with bibench.

    Raises:
        MissingLibraryError: it was not built.
    """
    path = Path(__file__).with_name(NAME)
    if not path.is_file():
        raise MissingLibraryError(
            f"the target native needs {NAME}, which was not built: there was no C++ compiler when "
            "bibench was installed; install one (Debian: apt-get install g++), then run: "
            "python -m bibench_deploy.targets.native"
        )
    return path


@functools.cache
def library() -> str:
    """Path of the library, for `SessionOptions.register_custom_ops_library`.

    Before it is given for the first time, ONNX Runtime loads it and runs one operator.

    Raises:
        MissingLibraryError: it was not built, or does not work with this ONNX Runtime.

    Example:
        >>> import onnxruntime
        >>> options = onnxruntime.SessionOptions()
        >>> options.register_custom_ops_library(library())
    """
    path = str(find_library())
    try:
        _check(path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        advice = (
            f"unset {VARIABLE}, or name one of these"
            if VARIABLE in reason
            else f"it is tested with ONNX Runtime {OLDEST_RUNTIME} and newer"
        )
        raise MissingLibraryError(f"{path} does not work here: {reason}; {advice}") from error
    return path


def instruction_sets() -> list[str]:
    """The kernels that this processor can run, the fastest first; `VARIABLE` chooses another.

    Raises:
        MissingLibraryError: as `find_library`.
    """
    name = ctypes.CDLL(str(find_library())).bibench_instruction_sets
    name.restype = ctypes.c_char_p
    names: bytes = name()
    return names.decode().split()


def _check(path: str) -> None:
    """Run one binary convolution of 1×1: the dots of two rows of weights with one of signs."""
    signs, weights = np.array([1, -1, -1], np.float32), np.array([[1, 1, 1], [-1, -1, 1]])
    packed = ir.Value(
        name="signs", shape=ir.Shape([1, 1, 1, 1]), type=ir.TensorType(ir.DataType.UINT8)
    )
    constants: dict[str, npt.NDArray[np.generic]] = {
        "weights": pack_signs(weights.astype(np.float32)).reshape(2, 1, 1, 1),
        "scale": np.array([1, 2], np.float32),
        "bias": np.array([0, 4], np.float32),
    }
    values = [
        ir.Value(name=name, const_value=ir.tensor(array, name=name))
        for name, array in constants.items()
    ]
    node = own_node(BINARY_CONV, [packed, *values], "check", (1, 1, 1, 2), {"input_channels": 3})
    graph = ir.Graph(
        [packed], node.outputs, nodes=[node], initializers=values, name="check",
        opset_imports={"": OPSET, DOMAIN: 1},
    )  # fmt: skip
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    feed = {"signs": pack_signs(signs).reshape(1, 1, 1, 1)}
    numbers, given = load_session(model, custom_ops_library=path).run(None, feed)
    # 2 · (1 · −1 + −1 · −1 + −1 · 1) + 4 = 2, and the other row gives 1 − 1 − 1 = −1.
    if numbers.reshape(-1).tolist() != [-1, 2] or given.item() != 1:
        raise RuntimeError(f"one operator gave {numbers.reshape(-1).tolist()}, not [-1, 2]")
