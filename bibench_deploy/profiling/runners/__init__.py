"""How a target's artifacts are run and timed on a device, one file per target.

The file's name is the target's name; each holds one subclass of `Runner` as `RUNNER`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from bibench_deploy.errors import UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.profiling.runners._runner import Runner


def runner_names() -> tuple[str, ...]:
    """Name every target that can be profiled, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def find_runner(target: str) -> Runner:
    """Give the runner of a target.

    Raises:
        UnknownNameError: nothing here runs artifacts of this target.
    """
    if target not in runner_names():
        raise UnknownNameError("runner for target", target, runner_names())
    runner: Runner = importlib.import_module(f"{__name__}.{target}").RUNNER()
    return runner
