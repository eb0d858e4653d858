"""Results files built in code, as docs/pipeline.md describes them; the numbers are made up."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bibench_deploy.reports import Report, build_report

Record = dict[str, Any]

ENVIRONMENT: Record = {
    "machine": "x86_64",
    "cpu": "Example CPU 2.50GHz",
    "cores": 2,
    "memory_mib": 7936,
    "system": "Linux",
    "kernel": "6.1.0",
    "python": "3.11.7",
    "governor": None,
}

RUNTIME: Record = {
    "name": "larq-compute-engine",
    "version": "0.16.0",
    "sha256": "ab" * 32,
    "binary_kernel": "indirect",
    "float_kernel": "xnnpack",
}

# The artifacts of the cells below that hold no binary layer.
FLOAT = ("fp32", "twin", "bnn-twin", "reactnet-twin", "large-twin")

PARITY: Record = {
    "inputs": 8,
    "seed": 0,
    "torch_to_onnx": {"max_abs_error": 9.5e-7, "top1_agreement": 1.0},
    "onnx_to_target": {
        "max_abs_error": 1.19e-6,
        "max_abs_error_same_signs": 1.19e-6,
        "top1_agreement": 1.0,
        "flip_rate": 0.0,
        "unexplained_flips": 0,
    },
}


def _header(**changes: Any) -> Record:
    return {
        "kind": "header",
        "schema_version": 1,
        "run": "20260102-030405",
        "bibench_version": "0.1.0",
        "command": ["bibench", "profile", "out/my model", "--threads", "1,2"],
        "preset": "quick",
        "seed": 0,
        "started_at": "2026-01-02T03:04:05+00:00",
        "environment": ENVIRONMENT,
        "planned": [],
    } | changes


def _held_out(accuracy: float | None) -> Record | None:
    if accuracy is None:
        return None
    return {"images": 360, "target_percent": accuracy, "same_answers": 359}


def _artifact(
    artifact: str,
    *,
    name: str | None = None,
    target: str = "lce",
    architecture: str | None = "resnet20",
    algorithm: str | None = "reactnet",
    role: str = "model",
    accuracy: float | None = None,
    trained: bool | None = True,
    size_bytes: int = 61_312,
    image: int = 32,
    binary: int = 18,
    twin: str | None = None,
    parity: Record | None = PARITY,
    findings: tuple[Record, ...] = (),
) -> Record:
    digest = hashlib.sha256(artifact.encode()).hexdigest()
    name = name or f"{architecture}-{algorithm}-digits"
    layers = [
        {
            "name": f"block{number}",
            "kind": "binary_conv",
            "weight_shape": [16, 16, 3, 3],
            "intended_bits": 1,
            "actual_bits": 1,
            "kernel": "LceBconv2d",
        }
        for number in range(binary)
    ]
    return {
        "kind": "artifact",
        "artifact": artifact,
        "path": f"out/{artifact}",
        "twin": twin,
        "manifest": {
            "schema_version": 1,
            "kind": "bibench-artifact",
            "name": name,
            "target": target,
            "role": role,
            "source": {
                "kind": "run",
                "name": name,
                "architecture": architecture,
                "algorithm": algorithm,
                "dataset": "digits" if trained else None,
                "accuracy": accuracy,
                "accuracy_images": None if accuracy is None else 360,
                "trained": trained,
                "onnx_sha256": digest,
            },
            "input": {
                "name": "input",
                "shape": [1, image, image, 3],
                "layout": "NHWC",
                "dtype": "float32",
            },
            "output": {"name": "output", "shape": [1, 10], "layout": "NC", "dtype": "float32"},
            "files": {
                "model": {"path": "model.tflite", "sha256": digest, "size_bytes": size_bytes}
            },
            "model_sha256": digest,
            "size_bytes": size_bytes,
            "size_by_part": _size_by_part(size_bytes, binary),
            "layers": layers,
            "verification": {
                "residency": {"intended": binary, "resident": binary},
                "parity": copy.deepcopy(parity),
                "accuracy": _held_out(accuracy),
            },
            "findings": list(findings),
            "versions": {"bibench": "0.1.0"},
        },
    }


def _size_by_part(size_bytes: int, binary: int) -> Record:
    packed = binary * 16 * 3 * 3 * 4
    return {
        "binary_weights": packed // 2,
        "float_weights": size_bytes - packed - 9_000,
        "padding": packed // 2,
        "metadata": 9_000,
    }


def _cell(
    artifact: str,
    threads: int,
    p50: float,
    *,
    device: str = "local",
    verdict: str = "stable",
    reason: str = "95 % interval spans 2.0 % of p50",
    note: str | None = None,
    interval: float = 0.01,
    **shown: float,
) -> list[Record]:
    runtime = RUNTIME | ({"binary_kernel": None} if artifact in FLOAT else {})
    key = {"artifact": artifact, "device": device, "threads": threads, "runtime": runtime}
    block = {
        "kind": "block",
        "block": 0,
        "samples_ms": [p50, p50, p50],
        "warmup_count": 5,
        "warmup_settled": True,
        "other_load": 0.01,
        "init_ms": 12.0,
        "peak_memory_mib": 52.5,
        "note": note,
    }
    cell = {
        "kind": "cell",
        "block_count": 3,
        "sample_count": 90,
        "warmup_count": 15,
        "latency_ms": {
            "p50": p50,
            "p90": round(p50 * 1.1, 4),
            "low_ms": round(p50 * max(1 - interval, 0.01), 4),
            "high_ms": round(p50 * (1 + interval), 4),
            "mad_ms": 0.02,
        },
        "other_load": 0.01,
        "init_ms": 12.0,
        "peak_memory_mib": 52.5,
        "verdict": verdict,
        "reason": reason,
        "note": note,
        **shown,
    }
    return [key | block, key | cell]


FINDING: Record = {
    "code": "BIB101",
    "rule": "activation-rescaling",
    "severity": "warning",
    "layer": "block3",
    "message": "channel scale after the activation",
    "hint": "fold it into batch norm",
}


@pytest.fixture
def header() -> Callable[..., Record]:
    return _header


@pytest.fixture
def artifact() -> Callable[..., Record]:
    return _artifact


@pytest.fixture
def cell() -> Callable[..., list[Record]]:
    return _cell


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write records as a results file; lists of records are laid flat."""

    def write_file(*records: Record | list[Record], name: str = "run.jsonl") -> Path:
        flat = [r for record in records for r in (record if isinstance(record, list) else [record])]
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in flat), encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def demo(write: Callable[..., Path]) -> Report:
    """Two families: ResNet-20 trained in FP32 and binarized twice, ResNet-18 untrained."""
    return build_report([write(*demo_records())])


def demo_records() -> list[Record | list[Record]]:
    float20: Record = {"binary": 0, "size_bytes": 1_094_400}
    twin20 = float20 | {"role": "fp32_twin", "trained": False}
    large: Record = {"architecture": "resnet18", "image": 224, "trained": False}
    single = "LCE's indirect kernel uses one thread; only the float layers use more"
    noisy: Record = {
        "verdict": "noisy",
        "reason": "processes differ: 95 % interval spans 14.0% of p50, limit 5%",
        "interval": 0.07,
    }
    return [
        _header(),
        _artifact("fp32", algorithm="fp32", accuracy=98.06, **float20),
        _artifact("bnn", algorithm="bnn", accuracy=96.94, twin="bnn-twin", size_bytes=59_000),
        _artifact("bnn-twin", algorithm="bnn", **twin20),
        _artifact("reactnet", accuracy=98.89, twin="reactnet-twin", findings=(FINDING,)),
        _artifact("reactnet-twin", **twin20),
        _artifact("large", binary=16, size_bytes=4_170_000, twin="large-twin", **large),
        _artifact("large-twin", binary=0, size_bytes=46_800_000, role="fp32_twin", **large),
        _cell("fp32", 1, 2.81),
        _cell("fp32", 2, 1.79),
        _cell("bnn", 1, 3.42),
        _cell("bnn", 2, 3.12, note=single),
        _cell("bnn-twin", 1, 2.80),
        _cell("bnn-twin", 2, 1.80),
        _cell("reactnet", 1, 3.61),
        _cell("reactnet", 2, 3.3, note=single, **noisy),
        _cell("reactnet-twin", 1, 2.95),
        _cell("reactnet-twin", 2, 1.92),
        _cell("large", 1, 24.1),
        _cell("large", 2, 19.4, note=single),
        _cell("large-twin", 1, 36.2),
        _cell("large-twin", 2, 21.0),
    ]
