from __future__ import annotations

from typing import Any

import pytest

from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling.same_runtime import SameRuntime

LCE: dict[str, Any] = {
    "name": "larq-compute-engine",
    "version": "0.16.0",
    "binary_kernel": "indirect",
    "float_kernel": "xnnpack",
}


@pytest.fixture
def after_lce() -> SameRuntime:
    known = SameRuntime()
    known.check("model", "net", LCE)
    return known


def test_the_same_again_passes(after_lce: SameRuntime) -> None:
    after_lce.check("model", "net", dict(LCE))


def test_a_twin_has_other_kernels_on_the_same_engine(after_lce: SameRuntime) -> None:
    after_lce.check("twin", "net", LCE | {"binary_kernel": None})


def test_models_on_other_engines_have_nothing_to_share(after_lce: SameRuntime) -> None:
    after_lce.check("other", "net", {"name": "onnxruntime", "version": "1.32.0"})


def test_a_field_that_one_model_needs_alone_is_no_difference() -> None:
    known, stock = SameRuntime(), {"name": "onnxruntime", "version": "1.32.0"}
    known.check("model", "net", stock | {"library_sha256": "00"})
    known.check("twin", "net", stock)
    known.check("model", "net", stock | {"library_sha256": "00"})
    with pytest.raises(DeviceError, match="library_sha256 00, then 11"):
        known.check("second", "net2", stock | {"library_sha256": "11"})


@pytest.mark.parametrize(
    ("artifact", "change", "told"),
    [
        (
            "model",
            {"version": "0.17.0"},
            r"net: .*\(version 0\.16\.0, then 0\.17\.0\); start a new",
        ),
        ("model", {"binary_kernel": "default"}, r"binary_kernel indirect, then default"),
        ("model", {"name": "lce_benchmark_model"}, r"name larq-.*, then lce_benchmark_model"),
        ("model", {"sha256": "00"}, r"sha256 None, then 00"),
        ("twin", {"version": "0.17.0", "binary_kernel": None}, r"\(version 0\.16\.0, then 0\.17"),
    ],
)
def test_another_runtime_is_refused_by_what_differs(
    after_lce: SameRuntime, artifact: str, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(DeviceError, match=told):
        after_lce.check(artifact, "net", LCE | change)
