from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bibench_deploy import lint_model, targets
from bibench_deploy.artifact import Artifact
from bibench_deploy.errors import LoweringError, OptionError
from bibench_deploy.export.pipeline import export_source
from bibench_deploy.export.source import resolve_source
from bibench_deploy.targets._target import WriteOptions

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
SIGN = "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)"


@pytest.fixture
def network(make_proto, tmp_path: Path) -> Path:
    proto = make_proto(
        f"g (float[1,4,8,8] x) => (y) {{ {SIGN}"
        "  [binary] c = Conv(s, w)  [float] y = Conv(c, v) }",
        w=SIGNS,
        v=np.random.default_rng(1).standard_normal((2, 8, 1, 1)),
        zero=0.0,
        one=1.0,
        minus=-1.0,
    )
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def export(network: Path, **options: object) -> Artifact:
    source = resolve_source(str(network), None)
    out = network.parent / "out"
    return export_source(source, target="onnx", out=out, **options)


def test_an_artifact_is_one_onnx_file_proved_equal(network: Path) -> None:
    artifact = export(network, baseline=True)
    assert artifact.target == "onnx"
    assert artifact.model_path.name == "model.onnx"
    onnx.checker.check_model(onnx.load(artifact.model_path))
    parity = artifact.manifest["verification"]["parity"]["onnx_to_target"]
    assert (parity["flip_rate"], parity["unexplained_flips"]) == (0.0, 0)
    artifact.check_files()
    twin = Artifact.load(artifact.directory / "fp32")
    assert (twin.target, twin.role) == ("onnx", "fp32_twin")


def test_the_manifest_says_that_binary_layers_are_float_here(network: Path) -> None:
    manifest = export(network).manifest
    binary, other = manifest["layers"]
    assert (binary["kind"], binary["intended_bits"], binary["actual_bits"]) == (
        "binary_conv",
        1,
        32,
    )
    assert (other["kind"], other["weight_shape"]) == ("float_conv", [2, 8, 1, 1])
    assert manifest["verification"]["residency"] == {"intended": 1, "resident": 0}


def test_a_sign_with_three_values_is_compared_by_outputs_alone(make_proto, tmp_path: Path) -> None:
    proto = make_proto(
        "g (float[1,4,8,8] x) => (y) { r = Round(x)  s = Sign(r)  y = Conv(s, w) }", w=SIGNS
    )
    onnx.save(proto, tmp_path / "net.onnx")
    parity = export(tmp_path / "net.onnx").manifest["verification"]["parity"]["onnx_to_target"]
    assert parity["flip_rate"] is None
    assert parity["max_abs_error"] < 1e-4


def test_an_operator_of_its_own_domain_runs(make_proto, tmp_path: Path) -> None:
    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { y = com.microsoft.Gelu(x) }")
    proto.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(proto, tmp_path / "net.onnx")
    assert export(tmp_path / "net.onnx").size_bytes > 0


def test_an_operator_that_other_targets_refuse_runs(make_proto, tmp_path: Path) -> None:
    proto = make_proto("g (float[1,4,8,8] x) => (y) { h = Hardmax(x)  y = Asinh(h) }")
    onnx.save(proto, tmp_path / "net.onnx")
    assert export(tmp_path / "net.onnx").size_bytes > 0


@pytest.mark.parametrize(
    ("text", "rule", "message"),
    [
        (
            "g (float[1,4] x, float[1,4] z) => (float[1,4] y) { y = Add(x, z) }",
            "several-inputs",
            "the graph has 2 inputs (x, z); pass one tensor",
        ),
        (
            "g (float[1,4] x) => (float[1,4] y) { y = elsewhere.Foo(x) }",
            "unknown-domain",
            "y: BIB503 ONNX Runtime does not bring the operator elsewhere.Foo; write it with",
        ),
        (
            "g (float[1,4] x) => (float[1,4] y) { y = com.microsoft.Nothing(x) }",
            "unknown-domain",
            "y: BIB503 ONNX Runtime does not bring the operator com.microsoft.Nothing; write",
        ),
        (
            "g (float[1,4] x) => (bool[1,4] y) { y = IsNaN(x) }",
            "tensor-type",
            "the graph gives y, which is true or false; return numbers",
        ),
        (
            "g (float[1,4] x) => (float y) { y = ReduceSum<keepdims=0>(x) }",
            "rank",
            "the graph gives y, a single number; keep a dimension",
        ),
    ],
)
def test_lint_has_an_error_for_what_the_export_refuses(
    make_proto, tmp_path: Path, text: str, rule: str, message: str
) -> None:
    proto = make_proto(text)
    for domain in {node.domain for node in proto.graph.node} - {""}:
        proto.opset_import.add(domain=domain, version=1)
    onnx.save(proto, tmp_path / "net.onnx")
    found = lint_model(tmp_path / "net.onnx", target="onnx")
    assert rule in [finding.rule for finding in found.findings if finding.severity == "error"]
    with pytest.raises(LoweringError) as caught:
        export(tmp_path / "net.onnx")
    assert message in str(caught.value)


def test_an_option_for_other_targets_is_refused(network: Path) -> None:
    with pytest.raises(OptionError, match="target onnx has no --input"):
        export(network, options=WriteOptions(input="rotated"))
    assert not (network.parent / "out").exists()


def test_writing_again_gives_the_same_bytes(network: Path) -> None:
    first = json.dumps(export(network).manifest["files"], sort_keys=True)
    assert json.dumps(export(network).manifest["files"], sort_keys=True) == first


def test_its_name_is_its_folder() -> None:
    assert targets.load("onnx").title == "ONNX Runtime"
