"""Linting a graph that is written as text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bibench_deploy.lint.finding import Finding
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets.lce import TARGET

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)


@pytest.fixture
def findings_of(make_graph) -> Callable[..., tuple[Finding, ...]]:
    """findings_of(nodes from x to y, rule, **initializers): what is found for LCE; w is ±1.

    Without a rule, everything that is found.
    """

    def lint(nodes: str, rule: str = "", **arrays: object) -> tuple[Finding, ...]:
        text = f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}"
        found = lint_graph(make_graph(text, **{"w": SIGNS, **arrays}), TARGET).findings
        return tuple(item for item in found if rule in ("", item.rule))

    return lint
