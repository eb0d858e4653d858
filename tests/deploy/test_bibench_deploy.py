import subprocess
import sys

import numpy as np
import onnx
import pytest

import bibench_deploy
from bibench_deploy.errors import ArtifactError, GraphError, UnknownNameError


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import bibench_deploy, bibench_deploy.cli.app, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "bibench_deploy" in loaded
    heavy = {"torch", "tensorflow", "onnx", "onnx_ir", "onnxruntime", "larq", "numpy", "matplotlib"}
    assert loaded & heavy == set()


def test_the_public_functions_are_listed_and_no_sub_package_hides_them() -> None:
    import bibench_deploy.export
    import bibench_deploy.lint
    import bibench_deploy.profiling

    assert bibench_deploy.__all__ == [
        "WriteOptions", "export_model", "lint_model", "profile_artifact",
    ]  # fmt: skip
    for name in bibench_deploy.__all__:
        assert callable(getattr(bibench_deploy, name))


def test_a_file_is_linted_by_its_path(make_proto, tmp_path) -> None:
    proto = make_proto(
        "g (float[1,4,8,8] x) => (y) { s = PlusMinus(x)  y = Conv(s, w) }", w=np.ones((8, 4, 3, 3))
    )
    onnx.save(proto, tmp_path / "model.onnx")
    for path in (tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        result = bibench_deploy.lint_model(path)
        # Four channels fill no word.
        assert [finding.code for finding in result.findings] == ["BIB310"]


def test_linting_a_missing_file_is_an_error_of_ours(tmp_path) -> None:
    with pytest.raises(GraphError):
        bibench_deploy.lint_model(tmp_path / "absent.onnx")


def test_linting_for_an_unknown_target_is_an_error_of_ours(make_proto, tmp_path) -> None:
    onnx.save(make_proto("g (float[1,4] x) => (y) { y = Relu(x) }"), tmp_path / "model.onnx")
    with pytest.raises(UnknownNameError):
        bibench_deploy.lint_model(tmp_path / "model.onnx", target="absent")


def test_profiling_a_folder_that_is_no_artifact_is_an_error_of_ours(tmp_path) -> None:
    with pytest.raises(ArtifactError):
        bibench_deploy.profile_artifact(tmp_path)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'WriteOption'"):
        _ = bibench_deploy.WriteOption
