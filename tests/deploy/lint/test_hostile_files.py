"""Files that were made to do harm: one line, exit 2, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

RELU = "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
Make = Callable[..., onnx.ModelProto]

# The limit of address space of a child process: far below what the files ask for.
_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
from bibench_deploy.__main__ import main
main()
"""
LONGEST_S = 60


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    """`bibench lint` in a process of its own, since what it guards against may end the process."""
    return subprocess.run(
        [sys.executable, "-c", _LIMITED, "lint", path.name, "--target", "all"],
        cwd=path.parent, capture_output=True, text=True, timeout=LONGEST_S,
    )  # fmt: skip


def _truncated(make: Make, path: Path) -> None:
    proto = make("g (float[1,64] x) => (y) { y = Mul(x, w) }", w=np.ones((1, 64)))
    path.write_bytes(proto.SerializeToString()[:-40])


def _nested(make: Make, path: Path) -> None:
    # As deep as protobuf reads. One branch each: with two, the file would hold 2^30 of them.
    graph = make(RELU).graph
    for depth in range(30):
        condition = helper.make_tensor_value_info(f"c{depth}", TensorProto.BOOL, [])
        node = helper.make_node("If", [f"c{depth}"], [f"y{depth}"], then_branch=graph)
        output = helper.make_tensor_value_info(f"y{depth}", TensorProto.FLOAT, [1, 4])
        graph = helper.make_graph([node], "g", [condition], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(model.SerializeToString())


def _nested_types(make: Make, path: Path) -> None:
    # A message in a message in a message …, deeper than any reader goes.
    content = b""
    for _ in range(20000):
        content = b"\x3a" + _length(len(content)) + content
    path.write_bytes(content)


def _length(size: int) -> bytes:
    digits = bytearray()
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes([*digits, size])


def _huge_input(make: Make, path: Path) -> None:
    proto = make("g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu(x) }")
    for value in (*proto.graph.input, *proto.graph.output):
        for place in (2, 3):
            value.type.tensor_type.shape.dim[place].dim_value = 2**40
    onnx.save(proto, path)


def _huge_constant(make: Make, path: Path) -> None:
    text = "g (float[1,4] x) => (y) { c = ConstantOfShape(size)  s = ReduceMean(c)  y = Add(x, s) }"
    onnx.save(make(text, size=np.array([2**20, 2**20])), path)


def _huge_tensor(make: Make, path: Path) -> None:
    proto = make("g (float[1,4] x) => (y) { y = Mul(x, w) }", w=np.ones(4))
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend([2**31, 2**31])
    path.write_bytes(proto.SerializeToString())


def _cycle(make: Make, path: Path) -> None:
    proto = make("g (float[1,4] x) => (float[1,4] y) { h = Add(x, x)  y = Relu(h) }")
    proto.graph.node[0].input[1] = "y"
    path.write_bytes(proto.SerializeToString())


def _missing_initializer(make: Make, path: Path) -> None:
    proto = make("g (float[1,4] x) => (y) { y = Mul(x, w) }", w=np.ones(4))
    del proto.graph.initializer[:]
    path.write_bytes(proto.SerializeToString())


def _external(location: str) -> Callable[[Make, Path], None]:
    def write(make: Make, path: Path) -> None:
        proto = make("g (float[1,4] x) => (y) { y = Mul(x, w) }", w=np.ones(4))
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        path.write_bytes(proto.SerializeToString())

    return write


def _link(make: Make, path: Path) -> None:
    _external("weights.data")(make, path)
    (path.parent / "weights.data").symlink_to("/etc/passwd")


def _two_gigabytes(make: Make, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk


HOSTILE: dict[str, tuple[Callable[[Make, Path], None], str]] = {
    "not an ONNX file": (lambda _, path: path.write_text("a text"), "not an ONNX"),
    "empty": (lambda _, path: path.write_bytes(b""), "it holds no node"),
    "truncated": (_truncated, "not an ONNX file"),
    "2 GB": (_two_gigabytes, "larger than 2 GiB"),
    "deeply nested graphs": (_nested, ""),
    "deeply nested messages": (_nested_types, "not an ONNX"),
    "a huge input": (_huge_input, "beyond what can be run"),
    "a tensor of huge dimensions": (_huge_tensor, ""),
    "a huge constant": (_huge_constant, "more numbers than can be computed"),
    "a cycle": (_cycle, ""),
    "a missing initializer": (_missing_initializer, ""),
    "external data that is absent": (_external("absent.data"), ""),
    "external data outside the folder": (_external("../../etc/passwd"), ""),
    "external data at an absolute path": (_external("/etc/passwd"), ""),
    "external data behind a link": (_link, ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_it_ends_in_one_line_and_exit_2_in_bounded_time_and_memory(
    case, make_proto, tmp_path
) -> None:
    write, words = HOSTILE[case]
    write(make_proto, tmp_path / "model.onnx")
    begun_at = time.monotonic()
    done = lint(tmp_path / "model.onnx")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr[-2000:]
    (line,) = done.stderr.splitlines()
    assert line.startswith("bibench: model.onnx: ")
    assert words in line
    assert time.monotonic() - begun_at < LONGEST_S
    assert "root:" not in line
