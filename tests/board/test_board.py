"""On a board of another instruction set: check, push, sweep, parse, clean."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

pytestmark = pytest.mark.board

NETWORK = "g (float[1,3,16,16] x) => (y) { c = Conv(x, w)  r = Relu(c)  y = Conv(r, v) }"


@pytest.fixture(scope="module")
def exported(board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a float network in out/net, for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("work")
    graph = onnx.parser.parse_graph(NETWORK.replace("=> (y)", "=> (float[1,4,12,12] y)"))
    generator = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 3, 3)), ("v", (4, 8, 3, 3))):
        array = generator.standard_normal(shape).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in graph.node:
        node.name = node.output[0]
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "n.onnx")
    done = board.bibench("export", "n.onnx", "--target", "onnx", "--out", "out/net", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def measured(board, exported: Path) -> Path:
    """The results file of a sweep on the board."""
    done = board.bibench(
        "profile", "out/net", "--device", "board", "--threads", "1,2", "--out", "run.jsonl",
        cwd=exported,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6/6 blocks done" in done.stderr
    return exported / "run.jsonl"


def test_a_check_says_what_the_board_is_and_what_runs_there(board, tmp_path: Path) -> None:
    done = board.bibench("devices", "check", "board", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    environment = found["environment"]
    assert (environment["machine"], environment["system"]) == ("aarch64", "Linux")
    assert environment["is_emulated"] is True
    assert environment["release"].startswith("Debian GNU/Linux 12")
    assert environment["clusters"] == [
        {"cores": 1, "max_mhz": None, "kind": "0xd08", "numbers": [0]}
    ]
    assert "onnxruntime" in environment["packages"]
    obstacles = {one["runner"]: one["obstacle"] for one in found["runtimes"]}
    assert obstacles["onnx"] is None
    assert "no wheel for aarch64" in obstacles["lce"]
    assert "run: bibench runtimes add lce --abi aarch64" in obstacles["lce_benchmark_model"]


def test_a_sweep_is_measured_there_and_marked_as_emulated(measured: Path) -> None:
    lines = [json.loads(line) for line in measured.read_text().splitlines()]
    assert lines[0]["environment"]["machine"] == "aarch64"
    assert lines[0]["environment"]["is_emulated"] is True
    blocks = [line for line in lines if line["kind"] == "block"]
    assert len(blocks) == 6
    assert all(block["samples_ms"] for block in blocks)
    assert {block["runtime"]["name"] for block in blocks} == {"onnxruntime"}
    cells = [line for line in lines if line["kind"] == "cell"]
    assert [cell["verdict"] for cell in cells] == ["emulated", "emulated"]
    assert all("no figure of any hardware" in cell["reason"] for cell in cells)


def test_a_report_calls_an_emulated_figure_no_result(board, measured: Path) -> None:
    done = board.bibench("report", measured, "--format", "text", cwd=measured.parent)
    assert done.returncode == 0, done.stderr
    assert "emulated, so no result" in " ".join(done.stdout.split())


def test_nothing_runs_on_there_and_a_clean_up_leaves_nothing(board, measured: Path) -> None:
    work = board.root / "root/.cache/bibench"
    assert len(list(work.iterdir())) == 2  # the model and the script; no lease, no half file
    deadline = time.monotonic() + 10
    while board.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert board.processes() == []
    done = board.bibench("devices", "clean", "board", cwd=measured.parent)
    assert (done.returncode, done.stdout[:23]) == (0, "board: 2 files removed,")
    assert list(work.iterdir()) == []


def test_a_program_of_this_host_is_not_kept_for_the_board(board, tmp_path: Path) -> None:
    done = board.bibench("runtimes", "add", "lce", "--abi", "aarch64", "/bin/true", cwd=tmp_path)
    assert done.returncode == 2
    assert "a program for x86-64, not for aarch64" in done.stderr
