"""What a rule reports: one defect of one layer, how bad it is, and what to do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How bad a finding is for one target."""

    ERROR = "error"  # it will not run there, or it is wrong
    WARNING = "warning"  # it runs slower, larger, or differs in rare cases
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One defect of one layer.

    Attributes:
        code: of the rule, such as BIB201.
        rule: its name, such as scale-granularity.
        severity: for the target that was asked about.
        layer: name of the node in the .onnx file; empty where it is the file as a whole.
        message: what was found.
        hint: what to do.
    """

    code: str
    rule: str
    severity: Severity
    layer: str
    message: str
    hint: str

    @property
    def fingerprint(self) -> str:
        """Of the rule and the layer alone: it stays when a message or a severity changes."""
        return hashlib.sha256(f"{self.rule}\n{self.layer}".encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as JSON output and manifests hold them."""
        return {
            "code": self.code,
            "rule": self.rule,
            "severity": self.severity.value,
            "layer": self.layer,
            "message": self.message,
            "hint": self.hint,
        }
