from __future__ import annotations

import json
from pathlib import Path

from bibench_deploy.reports import build_report, render


def test_json_as_scripts_read_it(write, header, artifact, cell, snapshot):
    path = write(
        header(),
        artifact("fp32", algorithm="fp32", accuracy=98.06, binary=0, size_bytes=1_094_400),
        artifact("twin", role="fp32_twin", trained=False, binary=0, size_bytes=1_094_400),
        artifact("model", accuracy=98.89, twin="twin"),
        cell("model", 1, 3.61),
        cell("twin", 1, 2.95),
    )
    assert render(build_report([path]), "json") == snapshot


def test_the_promised_names_are_there(demo):
    content = json.loads(render(demo, "json"))
    assert content["accuracy"] == {"fp32": 98.06, "bnn": 96.94, "reactnet": 98.89}
    model = next(m for m in content["models"] if m["title"] == "resnet20 reactnet")
    assert model["accuracy"] == 98.89
    assert model["size_bytes"] == 61_312
    assert len(model["model_sha256"]) == 64
    assert model["parity"]["flip_rate"] == 0.0
    assert model["parity"]["max_abs_error"] == 1.19e-6
    cell = model["cells"][1]
    assert cell["threads"] == 2
    assert cell["verdict"] == "noisy"
    assert {"p50", "p90", "low_ms", "high_ms"} <= cell["latency_ms"].keys()


def test_what_is_unknown_is_null(write, header, artifact, cell):
    block, _ = cell("m", 1, 2.0)
    path = write(header(), artifact("m", parity=None, trained=None), block)
    (model,) = json.loads(render(build_report([path]), "json"))["models"]
    assert model["parity"] is None
    assert model["accuracy"] is None
    assert model["twin"] is None
    assert model["cells"][0]["latency_ms"]["low_ms"] is None
    assert model["cells"][0]["speedup"] is None


def _names(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            # What a machine or a runtime says of itself is theirs to name.
            if name not in ("environment", "runtime", "accuracy"):
                yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def test_every_name_is_documented(demo):
    documented = Path(__file__).parents[4].joinpath("docs", "report.md").read_text(encoding="utf-8")
    for name in set(_names(json.loads(render(demo, "json")))):
        assert f"`{name}`" in documented, name
