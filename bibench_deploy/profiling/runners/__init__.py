"""How artifacts are run and timed on a device, one way per file.

Each file holds one subclass of `Runner` as `RUNNER`; it says which target's artifacts it runs.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from bibench_deploy.errors import DeviceError, UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.profiling.environment import Environment
    from bibench_deploy.profiling.runners._runner import Runner


def runner_names() -> tuple[str, ...]:
    """Name every runner, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


@cache
def load_runner(name: str) -> Runner:
    """Give the runner of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in runner_names():
        raise UnknownNameError("runner", name, runner_names())
    runner: Runner = importlib.import_module(f"{__name__}.{name}").RUNNER()
    return runner


def runners_for(target: str) -> tuple[Runner, ...]:
    """Give every runner of a target's artifacts, by name; at least one.

    Raises:
        UnknownNameError: nothing here runs artifacts of this target.
    """
    runners = [load_runner(name) for name in runner_names()]
    found = tuple(runner for runner in runners if runner.target == target)
    if not found:
        targets = sorted({runner.target for runner in runners})
        raise UnknownNameError("runner for target", target, targets)
    return found


def pick_runner(target: str, environment: Environment, device: str) -> Runner:
    """Give the first runner of a target's artifacts that has no obstacle on a device.

    Args:
        target: whose artifacts are to run.
        environment: of the device.
        device: its name, for the error.

    Raises:
        UnknownNameError: nothing here runs artifacts of this target.
        DeviceError: every runner has an obstacle; gives all of them.
    """
    obstacles = []
    for runner in runners_for(target):
        obstacle = runner.obstacle(environment)
        if obstacle is None:
            return runner
        obstacles.append(f"{runner.name}: {obstacle}")
    raise DeviceError(f"device {device} cannot run {target} artifacts: {'; '.join(obstacles)}")
