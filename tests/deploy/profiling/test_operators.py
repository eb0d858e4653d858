"""--operators, with ONNX Runtime's own profiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from bibench_deploy.cli.app import app
from bibench_deploy.errors import ResultsError
from bibench_deploy.export.pipeline import export_source
from bibench_deploy.export.source import resolve_source
from bibench_deploy.profiling.journal import read_results
from bibench_deploy.profiling.operators import OperatorTime, operators_from, shares
from bibench_deploy.profiling.presets import PRESETS, Preset


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.0, 0.1, 3, 0.0, 0.2))


@pytest.fixture
def net(make_proto: Callable[..., onnx.ModelProto]) -> Path:
    """Three convolutions, and an operator that is no layer and has next to nothing to do."""
    generator = np.random.default_rng(0)
    proto = make_proto(
        "g (float[1,4,32,32] x) => (y) { a = Conv<pads=[1,1,1,1]>(x, v)"
        " b = Conv<pads=[1,1,1,1]>(a, w)  c = Conv(b, u)  y = Sin(c) }",
        v=generator.standard_normal((64, 4, 3, 3)) / 10,
        w=generator.standard_normal((64, 64, 3, 3)) / 100,
        u=generator.standard_normal((4, 64, 1, 1)) / 10,
    )
    onnx.save(proto, "net.onnx")
    export_source(resolve_source("net.onnx", None), target="onnx", out=Path("out/net"))
    return Path("out/net")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_operators_of_a_model_are_counted_and_shown(net: Path) -> None:
    words = ("profile", net, "--threads", "1,2", "--operators", "--out", "run.jsonl")
    done = run(*words)
    assert done.exit_code == 0, done.output
    results = read_results(Path("run.jsonl"))
    ((key, operators),) = results.operators.items()
    assert key.threads == 1
    # ONNX Runtime adds changes of layout, which depend on the processor.
    assert {"Conv": 3, "Sin": 1}.items() <= {one.type: one.count for one in operators}.items()
    assert operators[0].type == "Conv"
    times_ms = [one.ms for one in operators]
    assert times_ms == sorted(times_ms, reverse=True)
    assert all(one.ms > 0 for one in operators)
    text = run("report", "run.jsonl", "--format", "text").stdout
    assert "Operators" in text
    assert "part of no latency" in text
    document = json.loads(run("report", "run.jsonl", "--format", "json").stdout)
    shown = document["models"][0]["operators"]
    assert sum(one["share"] for one in shown) == pytest.approx(1)
    # It is not done twice.
    assert run(*words, "--resume").exit_code == 0
    assert Path("run.jsonl").read_text().count('"kind":"operators"') == 1


def test_a_runtime_without_a_profiler_is_said_in_one_line(make_lce_artifact) -> None:
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    done = run("profile", "out/tiny", "--threads", "1", "--operators")
    assert done.exit_code == 0, done.output
    assert "tiny has no profile of operators: its runtime has no profiler" in done.stderr


@pytest.mark.parametrize(
    "rows", [[{"type": "Conv"}], [{"type": "", "count": 1, "ms": 1.0}], "Conv",
             [{"type": "Conv", "count": 1, "ms": -1.0}], [{"type": "A", "count": 1, "ms": 10**400}],
             [{"type": "Conv", "count": 1, "ms": "1"}]]
)  # fmt: skip
def test_a_damaged_list_is_named_with_its_line(net: Path, rows: Any) -> None:
    assert run("profile", net, "--threads", "1", "--out", "run.jsonl").exit_code == 0
    key = json.loads(Path("run.jsonl").read_text().splitlines()[-1])
    line = {name: key[name] for name in ("artifact", "device", "threads")}
    with Path("run.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "operators", **line, "operators": rows}) + "\n")
    with pytest.raises(ResultsError, match=r"run\.jsonl, line 7: .*operators"):
        read_results(Path("run.jsonl"))


def test_shares_are_of_the_whole() -> None:
    found = operators_from([{"type": "A", "count": 1, "ms": 3.0},
                            {"type": "B", "count": 2, "ms": 1.0}])  # fmt: skip
    assert shares(found) == [0.75, 0.25]
    assert shares([OperatorTime("A", 1, 0.0)]) == [0.0]
