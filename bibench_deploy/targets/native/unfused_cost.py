"""Measure what scales cost that run as float operators behind their binary layers.

The same graph is written once more without them, and both are run in turn: what slows the machine
down for a while slows both of a pair.
"""

from __future__ import annotations

import time
from collections import Counter
from statistics import median
from typing import Any

import onnx_ir as ir

from bibench_deploy.targets.onnx.run_model import load_session, make_inputs

WARMUP_RUNS = 3
RUNS = 40
LONGEST_S = 10.0


def extra_operators(model: ir.Model, bare: ir.Model) -> dict[str, int]:
    """How many operators of each kind `model` has more than `bare`, most first."""
    more = Counter(node.op_type for node in model.graph)
    more.subtract(node.op_type for node in bare.graph)
    return {name: count for name, count in more.most_common() if count > 0}


def latency_ratio(model: ir.Model, bare: ir.Model, library: str) -> float:
    """Latency of one graph over another's, one thread each: the median over pairs of runs.

    Args:
        model: with the library's operators.
        bare: likewise, with the same input.
        library: path of it.
    """
    sessions = [
        load_session(ir.to_proto(graph).SerializeToString(), custom_ops_library=library)
        for graph in (model, bare)
    ]
    inputs = make_inputs(sessions[0], 0)
    pairs: list[list[float]] = []
    begun_at = time.perf_counter()
    while len(pairs) < WARMUP_RUNS + RUNS:
        pairs.append([_seconds(session, inputs) for session in sessions])
        if len(pairs) > WARMUP_RUNS and time.perf_counter() - begun_at > LONGEST_S:
            break
    return round(median(own / other for own, other in pairs[WARMUP_RUNS:]), 3)


def _seconds(session: Any, inputs: dict[str, Any]) -> float:
    begun_at = time.perf_counter()
    session.run(None, inputs)
    return time.perf_counter() - begun_at
