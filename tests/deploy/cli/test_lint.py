import json

import pytest

HEAVY = (
    "torch,tensorflow,tf_keras,keras,larq,larq_compute_engine,onnxscript,matplotlib,"
    "bibench_train.layers"
)


@pytest.mark.parametrize(
    ("name", "code", "strict"), [("clean", 0, 0), ("warning", 0, 1), ("error", 1, 1)]
)
def test_the_exit_code_tells_the_worst_finding(name, code, strict, networks, bibench) -> None:
    assert bibench("lint", f"{name}.onnx").exit_code == code
    assert bibench("lint", f"{name}.onnx", "--error-on-warning").exit_code == strict


def test_findings_are_on_stdout_and_nothing_else_is_anywhere(networks, bibench) -> None:
    result = bibench("lint", "warning.onnx", "--target", "lce")
    assert result.stderr == ""
    assert "warning: BIB101 sign-of-zero" in result.stdout
    assert result.stdout.endswith("warning.onnx for lce: 1 binary layer, 0 errors, 1 warning\n")


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_json_is_all_of_stdout(option, networks, bibench) -> None:
    result = bibench("lint", "error.onnx", *option)
    content = json.loads(result.stdout)
    (found,) = content["results"]
    assert (content["schema_version"], found["source"], found["target"]) == (1, "error.onnx", "lce")
    assert content["counts"] == found["counts"] == {"error": 1, "warning": 0, "info": 0}
    assert found["findings"][0]["code"] == "BIB201"
    assert (result.exit_code, result.stderr) == (1, "")


BAD = {
    "a missing file": (["lint", "absent.onnx"], "absent.onnx: no such file"),
    "a mistyped file": (["lint", "clan.onnx"], 'The nearest match is "clean.onnx"'),
    "no ONNX file": (["lint", "text.onnx"], "text.onnx: not an ONNX"),
    "an unknown target": (
        ["lint", "clean.onnx", "--target", "lca"],
        'unknown target "lca" (did you mean "lce"?); one of: lce',
    ),
    "an unknown format": (
        ["lint", "clean.onnx", "--format", "jsn"],
        'unknown lint format "jsn" (did you mean "json"?); one of: github, json, junit,',
    ),
    "nothing to lint": (["lint"], "no run in ./runs"),
    "no source": (["lint", "clean"], "clean: no such source"),
    "a callable without a shape": (["lint", "networks:make"], "--input-shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_keeps_it_from_running_is_one_line_and_exit_2(case, networks, bibench) -> None:
    arguments, words = BAD[case]
    (networks / "text.onnx").write_text("no model")
    result = bibench(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("bibench: ")
    assert words in line


def test_a_shape_of_the_wrong_form_is_exit_2_and_says_the_form(networks, bibench) -> None:
    result = bibench("lint", "networks:make", "--input-shape", "3x8x8")
    assert result.exit_code == 2
    assert "such as 1,3,224,224" in " ".join(result.stderr.split())


def test_an_onnx_file_needs_neither_torch_nor_tensorflow(networks, bibench_without) -> None:
    done = bibench_without(HEAVY, "lint", "warning.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert "BIB101" in done.stdout


def test_a_callable_is_linted_without_leaving_a_file(networks, bibench, monkeypatch) -> None:
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])
    (networks / "own_networks.py").write_text(
        "import torch\n"
        "class Binary(torch.nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        weight = torch.where(self.weight >= 0.0, 1.0, -1.0)\n"
        "        return self._conv_forward(torch.sign(x), weight, None)\n"
        "def make():\n"
        "    return Binary(4, 8, 3)\n"
    )
    before = {path.name for path in networks.iterdir()}
    result = bibench("lint", "own_networks:make", "--input-shape", "1,4,8,8", "--json")
    content = json.loads(result.stdout)
    (found,) = content["results"]
    assert (result.exit_code, found["source"]) == (0, "own_networks:make")
    assert found["binary_layers"] == 1
    assert [finding["code"] for finding in found["findings"]] == ["BIB101"]
    assert {path.name for path in networks.iterdir()} - before <= {"__pycache__"}
    sys.modules.pop("own_networks", None)
