"""JSON for scripts and CI: the names in it are listed in docs/report.md and stay."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from bibench_deploy.profiling.journal import Cell
from bibench_deploy.profiling.operators import shares
from bibench_deploy.reports import wording
from bibench_deploy.reports.content import Family, Model, Parity, Report
from bibench_deploy.reports.document import Document

SCHEMA_VERSION = 1


def render(report: Report) -> str:
    """Give the report as one JSON object; null stands for what is not known."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "bibench-report",
        "summary": wording.summary(report),
        "is_host_check": report.is_host_check,
        "problems": report.problems,
        "accuracy": report.accuracy,
        "mean_size_ratio": report.mean_size_ratio,
        "mean_speedups": [asdict(mean) for mean in report.mean_speedups],
        "hardware": {
            "scores": [own.to_json() for own in report.scores],
            "published": [theirs.to_json() for theirs in report.published],
            "printed": [asdict(theirs) for theirs in report.printed],
        },
        "models": [_model(family, model) for family in report.families for model in family.models],
        "runs": [asdict(run) for run in report.runs],
    }
    return _dumps(content)


def render_document(document: Document) -> str:
    """Give a document's data as one JSON object."""
    return _dumps(document.data)


def _dumps(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _model(family: Family, model: Model) -> dict[str, Any]:
    return {
        "artifact": model.artifact,
        "title": model.title,
        "name": model.name,
        "family": family.title,
        "role": "fp32_twin" if model.is_twin else "model",
        "twin": model.twin,
        "target": model.target,
        "architecture": model.architecture,
        "algorithm": model.algorithm,
        "dataset": model.dataset,
        "trained": model.is_trained,
        "accuracy": model.accuracy,
        "accuracy_images": model.images if model.accuracy is not None else None,
        "held_out": asdict(model.held_out) if model.held_out else None,
        "input_shape": model.input_shape,
        "model_sha256": model.model_sha256,
        "size_bytes": model.size_bytes,
        "size_ratio": model.size_ratio,
        "storage": asdict(model.storage) if model.storage else None,
        "storage_in_theory": asdict(model.storage_in_theory) if model.storage_in_theory else None,
        "residency": {
            "intended": model.residency.intended,
            "resident": model.residency.resident,
            "kernel": model.residency.kernel,
        },
        "parity": _parity(model.parity) if model.parity else None,
        "findings": [finding.to_json() for finding in model.findings],
        "cells": [_cell(model, cell) for cell in model.cells],
        "operators": [
            {"device": key.device, "threads": key.threads, **asdict(operator), "share": share}
            for key, operators in model.operators.items()
            for operator, share in zip(operators, shares(operators), strict=True)
        ],
        "fastest": [asdict(speedup) for speedup in model.fastest],
    }


def _parity(parity: Parity) -> dict[str, Any]:
    torch, target = parity.torch_to_onnx, parity.onnx_to_target
    return {
        "is_agreed": parity.is_agreed,
        "max_abs_error": parity.max_abs_error,
        "max_abs_error_same_signs": parity.max_abs_error_same_signs,
        "top1_agreement": parity.top1_agreement,
        "flip_rate": parity.flip_rate,
        "unexplained_flips": parity.unexplained_flips,
        "inputs": parity.inputs,
        "seed": parity.seed,
        "torch_to_onnx": asdict(torch) if torch else None,
        "onnx_to_target": asdict(target) if target else None,
    }


def _cell(model: Model, cell: Cell) -> dict[str, Any]:
    fields = asdict(cell)
    speedup = model.speedup(cell.key.device, cell.key.threads)
    key = fields.pop("key")
    return {
        "device": key["device"],
        "threads": key["threads"],
        **fields,
        "speedup": speedup.ratio if speedup else None,
    }
