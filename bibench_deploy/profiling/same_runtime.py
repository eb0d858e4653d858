"""All blocks of a sweep run on one runtime: a resume after an upgrade would mix two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bibench_deploy.errors import DeviceError

# These are of the model as much as of the runtime.
_KERNELS = ("binary_kernel", "float_kernel")


class SameRuntime:
    """What runtimes have said of themselves so far."""

    def __init__(self) -> None:
        self._of_models: dict[str, Mapping[str, Any]] = {}
        self._of_engines: dict[Any, dict[str, Any]] = {}

    def check(self, artifact: str, name: str, runtime: Mapping[str, Any]) -> None:
        """Compare the runtime of a block with those of the blocks before.

        A model's must be the same in every field; two models on one engine share its version,
        its files and its Python, but not its kernels.

        Args:
            artifact: short id of the model.
            name: of the model, for the error.
            runtime: as in `Block`.

        Raises:
            DeviceError: it is another one; says in what they differ.
        """
        engine = self._of_engines.setdefault(runtime.get("name"), {})
        before = self._of_models.setdefault(
            artifact, {field: engine.get(field, value) for field, value in runtime.items()}
        )
        differences = [
            f"{field} {before.get(field)}, then {runtime.get(field)}"
            for field in {**before, **runtime}
            if before.get(field) != runtime.get(field)
        ]
        if differences:
            raise DeviceError(
                f"{name}: the runtime is not the one that earlier blocks ran on "
                f"({', '.join(differences)}); start a new sweep"
            )
        engine |= {field: value for field, value in runtime.items() if field not in _KERNELS}
