"""Tables under a title: what a report is that describes no single sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bibench_deploy.reports.tables import Table


@dataclass(frozen=True)
class Document:
    """What every format can draw.

    Attributes:
        title: what it is.
        lead: sentences to read first.
        tables: in reading order.
        data: the same for scripts, ready for JSON.
    """

    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    data: dict[str, Any]
