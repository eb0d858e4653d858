"""Builds the library of the target `native` when bibench is installed or a wheel is made.

Without a C++ compiler, or with one that fails, the rest of bibench installs, and the target says
what it lacks. docs/decisions has the reasons for a hook of our own.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("bibench_deploy", "targets", "native")


class NativeLibraryHook(BuildHookInterface):
    """Puts the library beside the target's Python files, where a source tree has it too."""

    PLUGIN_NAME = "custom"

    def initialize(
        self,
        version: str,  # noqa: ARG002 - hatchling's own signature
        build_data: dict[str, Any],
    ) -> None:
        """Build; a wheel with the library is for this platform, and for every Python 3."""
        if self.target_name != "wheel":
            return
        folder = Path(self.root) / FOLDER
        build = _load(folder / "build.py")
        path = folder / build.NAME
        try:
            # pip asks twice: for the metadata, and for the wheel.
            if not build.is_current(path):
                build.build_library(build.own_abi(), folder)
        except build.BuildError as error:
            self.app.display_warning(f"bibench is installed without the target native: {error}")
            return
        build_data["artifacts"].append(f"/{(FOLDER / path.name).as_posix()}")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False


def _load(path: Path) -> ModuleType:
    """A module from its file: importing its package would need what is not installed yet."""
    spec = importlib.util.spec_from_file_location("build_native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
