import json

import onnx
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


def test_a_size_that_depends_on_the_numbers_is_a_finding_and_exit_1(
    tmp_path, monkeypatch, bibench, make_proto
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "g (float[1,4] x) => (int64[2,K] y) { [found] y = NonZero(x) }"
    onnx.save(make_proto(text), "model.onnx")
    result = bibench("lint", "model.onnx")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith("found\n  error: BIB502 dynamic-shape: NonZero gives a tensor")


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
        'unknown target "lca" (did you mean "lce"?); one of: dabnn, lce',
    ),
    "an unknown format": (
        ["lint", "clean.onnx", "--format", "jsn"],
        'unknown lint format "jsn" (did you mean "json"?); one of: github, json, junit,',
    ),
    "an unknown rule": (
        ["lint", "clean.onnx", "--select", "BIB999"],
        '--select: no rule "BIB999"; run `bibench rule` for the list',
    ),
    "a mistyped rule": (
        ["lint", "clean.onnx", "--ignore", "BIB101,zero-weight"],
        '--ignore: no rule "zero-weight" (did you mean "zero-weights"?)',
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
        "        return self._conv_forward(torch.sign(x + 0.25), weight, None)\n"
        "def make():\n"
        "    return Binary(4, 8, 3)\n"
    )
    before = {path.name for path in networks.iterdir()}
    result = bibench("lint", "own_networks:make", "--input-shape", "1,4,8,8", "--json")
    content = json.loads(result.stdout)
    (found,) = content["results"]
    assert (result.exit_code, found["source"]) == (0, "own_networks:make")
    assert found["binary_layers"] == 1
    assert "BIB101" in [finding["code"] for finding in found["findings"]]
    assert {path.name for path in networks.iterdir()} - before <= {"__pycache__"}
    sys.modules.pop("own_networks", None)


def test_several_files_are_linted_and_the_worst_tells_the_exit_code(networks, bibench) -> None:
    result = bibench("lint", "clean.onnx", "warning.onnx", "error.onnx")
    assert result.exit_code == 1
    ends = [line for line in result.stdout.splitlines() if " for lce: " in line]
    assert [line.partition(" ")[0] for line in ends] == ["clean.onnx", "warning.onnx", "error.onnx"]
    assert bibench("lint", "clean.onnx", "warning.onnx").exit_code == 0


def test_exit_zero_is_0_whatever_is_found(networks, bibench) -> None:
    result = bibench("lint", "error.onnx", "--exit-zero", "--error-on-warning")
    assert result.exit_code == 0
    assert "BIB201" in result.stdout


def test_all_targets_are_a_matrix_of_layers(networks, bibench) -> None:
    from bibench_deploy import targets

    result = bibench("lint", "error.onnx", "--target", "all")
    content = json.loads(bibench("lint", "error.onnx", "--target", "all", "--json").stdout)
    assert [item["target"] for item in content["results"]] == targets.names()
    assert result.exit_code == 1
    if len(targets.names()) > 1:
        head, row, *_ = result.stdout.splitlines()
        assert head.split() == ["layer", *targets.names()]
        # A spatial scale is an error for every target.
        assert row.split()[0] == "c"
        assert row.count("error BIB201") == len(targets.names())


def test_several_targets_are_named_with_commas(networks, bibench) -> None:
    content = json.loads(bibench("lint", "clean.onnx", "--target", "lce, lce", "--json").stdout)
    assert [item["target"] for item in content["results"]] == ["lce"]


def test_scales_that_are_allowed_are_warnings(networks, bibench) -> None:
    result = bibench("lint", "error.onnx", "--allow-unfused-scales")
    assert result.exit_code == 0
    assert "warning: BIB201 scale-granularity" in result.stdout


def test_rules_are_chosen_on_the_command_line(networks, bibench) -> None:
    assert bibench("lint", "error.onnx", "--ignore", "BIB2").exit_code == 0
    assert bibench("lint", "error.onnx", "--select", "BIB1,mean-shift").exit_code == 0
    assert bibench("lint", "error.onnx", "--select", "scale-granularity").exit_code == 1


def test_settings_are_read_from_pyproject(networks, bibench) -> None:
    (networks / "pyproject.toml").write_text('[tool.bibench.lint]\nignore = ["BIB201"]\n')
    assert bibench("lint", "error.onnx").exit_code == 0
    (networks / "pyproject.toml").write_text('[tool.bibench.lint.severity]\nBIB101 = "error"\n')
    assert bibench("lint", "warning.onnx").exit_code == 1


def test_settings_that_say_what_is_not_known_are_one_line(networks, bibench) -> None:
    (networks / "pyproject.toml").write_text('[tool.bibench.lint]\nselct = ["BIB1"]\n')
    result = bibench("lint", "clean.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert 'unknown key "selct" (did you mean "select"?)' in line


def test_a_baseline_hides_what_is_known(networks, bibench) -> None:
    written = bibench("lint", "error.onnx", "--write-baseline")
    assert (written.exit_code, written.stderr.count("\n")) == (0, 1)
    assert "bibench-lint-baseline.json: 1 finding is known from now on" in written.stderr
    assert bibench("lint", "error.onnx").exit_code == 1
    known = bibench("lint", "./error.onnx", "--baseline", "bibench-lint-baseline.json")
    assert known.exit_code == 0
    assert "BIB201" not in known.stdout
    (networks / "pyproject.toml").write_text(
        '[tool.bibench.lint]\nbaseline = "bibench-lint-baseline.json"\n'
    )
    assert bibench("lint", "error.onnx").exit_code == 0


def test_what_is_exact_is_fixed_in_a_new_file(networks, bibench, make_proto) -> None:
    import numpy as np
    import onnx

    from tests.deploy.cli.conftest import SIGN, SIGNS

    text = f"g (float[1,4,8,8] x) => (y) {{ {SIGN}  y = Conv(s, w) }}"
    proto = make_proto(text, w=SIGNS * 0.5, zero=0.0, one=1.0, minus=-1.0)
    onnx.save(proto, networks / "scaled.onnx")
    result = bibench("lint", "scaled.onnx", "--fix", "fixed.onnx")
    assert result.exit_code == 0
    assert "fixed.onnx: rewrote 0 signs, 1 scale and 0 clips; equal on 8 inputs" in result.stderr
    weights = [onnx.numpy_helper.to_array(item) for item in
               onnx.load("fixed.onnx").graph.initializer]  # fmt: skip
    assert any(np.array_equal(np.abs(weight), np.ones_like(SIGNS)) for weight in weights)
    again = bibench("lint", "scaled.onnx", "--fix", "fixed.onnx")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "is there already; name a new file for --fix" in again.stderr
    assert "nothing to fix" in bibench("lint", "clean.onnx", "--fix", "new.onnx").stderr
    assert not (networks / "new.onnx").exists()


def test_one_source_is_fixed_at_a_time(networks, bibench) -> None:
    result = bibench("lint", "clean.onnx", "error.onnx", "--fix", "fixed.onnx")
    assert result.exit_code == 2
    assert "one source is fixed at a time" in " ".join(result.stderr.split())


def test_an_option_that_the_one_target_has_not_is_one_line(networks, bibench) -> None:
    from dataclasses import fields

    from bibench_deploy import targets
    from bibench_deploy.targets._target import WriteOptions

    for name in targets.names():
        for field in fields(WriteOptions):
            flag = f"--{field.name.replace('_', '-')}"
            if not flag.startswith("--allow") or field.name in targets.load(name).options:
                continue
            result = bibench("lint", "clean.onnx", "--target", name, flag)
            assert (result.exit_code, result.stdout) == (2, "")
            assert f"target {name} has no {flag}" in result.stderr
            # Of several targets, each is asked with what it has.
            assert bibench("lint", "clean.onnx", "--target", "all", flag).exit_code == 0
