"""The int8 stem: how far it is from the exact one, and what an export says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from bibench_deploy import WriteOptions
from bibench_deploy.cli.export import summary
from bibench_deploy.errors import OptionError
from bibench_deploy.export.pipeline import export_source
from bibench_deploy.export.source import from_module, resolve_source
from bibench_deploy.targets.native import TARGET
from bibench_deploy.targets.native.passes.int8_stem import int8_stem
from bibench_deploy.targets.native.target import with_own_operators
from bibench_deploy.targets.onnx.run_model import load_session

INT8 = WriteOptions(stem="int8")
DIGITS = Path(__file__).parents[4] / "models" / "digits-resnet20-reactnet"
CONV = "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)"
POOL = "MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>"


@pytest.mark.parametrize(
    "behind",
    ["y = Neg(c)", "r = Relu(c)  y = Neg(r)", f"p = {POOL}(c)  y = Neg(p)",
     f"r = Clip(c, low, high)  p = {POOL}(r)  y = Neg(p)", "y = Neg(c)  z = Abs(c)"],
)  # fmt: skip
def test_it_is_within_its_steps_of_the_float_one(behind: str, make_graph: Any, run_graph) -> None:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((8, 3, 3, 3)) / 5
    used = {"low": -1.0, "high": 1.0} if "Clip" in behind else {}
    outputs = "(y, z)" if "z =" in behind else "(y)"
    graph = make_graph(
        f"g (float[1,3,16,16] x) => {outputs} {{ {CONV}  {behind} }}",
        w=weight, b=generator.standard_normal(8), **used,
    )  # fmt: skip
    images = generator.standard_normal((6, 3, 16, 16)).astype(np.float32)
    exact = [run_graph(graph, image[None]) for image in images]
    assert int8_stem(graph, images)
    found = [run_graph(graph, image[None]) for image in images]
    kinds = [node.op_type for node in graph.graph]
    assert "Conv" not in kinds
    assert {"Clip", "Relu"}.isdisjoint(kinds)
    spread = max(float(np.ptp(np.stack(exact))), 1e-9)
    # One step of the result; and of the input and the weights over 27 products, as noise.
    assert np.abs(np.stack(found) - np.stack(exact)).max() < spread / 255 + 0.15
    assert np.abs(np.stack(found) - np.stack(exact)).mean() < 0.03


@pytest.mark.parametrize(
    ("behind", "outputs"),
    [("", "(c)"), ("y = Relu(c)", "(y)"), (f"y = {POOL}(c)", "(y)"),
     ("y = Relu(c)  z = Neg(y)", "(z, y)")],
)  # fmt: skip
def test_what_the_graph_gives_keeps_its_name(behind: str, outputs: str, make_graph: Any) -> None:
    graph = make_graph(
        f"g (float[1,3,8,8] x) => {outputs} {{ {CONV}  {behind} }}",
        w=np.ones((8, 3, 3, 3)), b=np.ones(8),
    )  # fmt: skip
    written = with_own_operators(TARGET.lower(graph), np.ones((1, 3, 8, 8), np.float32))
    assert "QLinearConv" in {node.op_type for node in written.graph}
    names = outputs.strip("()").split(", ")
    found = load_session(ir.to_proto(written).SerializeToString()).run(
        names, {"x": np.ones((1, 3, 8, 8), np.float32)}
    )
    assert len(found) == len(names)


@pytest.mark.parametrize(
    "text",
    ["r = Relu(x)  c = Conv(r, w)  y = Neg(c)", "c = Conv(x, w)  d = Abs(x)  y = Neg(c)"],
)
def test_a_graph_without_such_a_convolution_stays(text: str, make_graph: Any) -> None:
    weight = np.ones((2, 3, 3, 3))
    outputs = "(y, d)" if "d =" in text else "(y)"
    graph = make_graph(f"g (float[1,3,8,8] x) => {outputs} {{ {text} }}", w=weight)
    before = [node.op_type for node in graph.graph]
    assert not int8_stem(graph, np.ones((1, 3, 8, 8), np.float32))
    assert [node.op_type for node in graph.graph] == before


def test_an_export_says_what_it_costs_on_real_images(tmp_path: Path) -> None:
    source = resolve_source(str(DIGITS))
    artifact = export_source(source, target="native", out=tmp_path / "out", options=INT8)
    (stem, *others) = artifact.manifest["layers"]
    assert (stem["kernel"], stem["intended_bits"], stem["actual_bits"]) == ("QLinearConv", 32, 8)
    assert all(layer["actual_bits"] != 8 for layer in others)
    verification = artifact.manifest["verification"]
    # What is proved is the exact file, from which this one was made.
    assert verification["parity"]["onnx_to_target"]["unexplained_flips"] == 0
    assert verification["accuracy"]["images"] == 360
    lost = verification["storage"]["exact_accuracy"]["target_percent"]
    assert abs(verification["accuracy"]["target_percent"] - lost) < 2
    assert "int8 stem: " in summary(artifact)
    assert " % on 360 images" in summary(artifact)


def test_without_images_seeded_inputs_give_the_ranges(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    for verify in (True, False):
        artifact = export_source(
            from_module(model, (1, 3, 8, 8), "net"), target="native",
            out=tmp_path / f"out{verify}", options=INT8, verify=verify,
        )  # fmt: skip
        assert [layer["actual_bits"] for layer in artifact.manifest["layers"]] == [8, 32]
        cost = artifact.manifest["verification"]["storage"]["cost"]
        assert (cost is None) is not verify


def test_a_network_without_one_is_told_so(tmp_path: Path) -> None:
    import torch

    source = from_module(torch.nn.Linear(4, 2), (1, 4), "net")
    artifact = export_source(source, target="native", out=tmp_path / "out", options=INT8)
    assert "there is no int8 stem" in summary(artifact)


def test_it_is_an_option_of_native_alone(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"target lce has no --stem \(it is for native\)"):
        export_source(resolve_source(str(DIGITS)), target="lce", out=tmp_path / "x", options=INT8)
