"""Import sympy when it is used, not when onnx-ir is imported.

onnx-ir computes with symbolic sizes by sympy, which takes a fifth of the time of `bibench lint`
to import; a network whose sizes are numbers needs none of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    """Stands for sympy until an attribute of it is used, then gives its place to it."""

    def __getattr__(self, name: str) -> Any:
        # While onnx-ir is imported it lists functions, to call them later.
        if "onnx_ir" not in sys.modules or _is_being_imported("onnx_ir"):
            return lambda *arguments, **options: getattr(_sympy(), name)(*arguments, **options)
        return getattr(_sympy(), name)


def delay_sympy() -> None:
    """Delay it; does nothing where sympy or onnx-ir is there already."""
    if "sympy" in sys.modules or "onnx_ir" in sys.modules:
        return
    spec = importlib.util.find_spec("sympy")
    if spec is not None:
        late = _Late("sympy")
        late.__spec__ = spec
        sys.modules["sympy"] = late


def _is_being_imported(name: str) -> bool:
    return bool(getattr(sys.modules[name].__spec__, "_initializing", False))


def _sympy() -> ModuleType:
    if isinstance(sys.modules.get("sympy"), _Late):
        del sys.modules["sympy"]
    return importlib.import_module("sympy")
