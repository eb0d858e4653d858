"""A `sh` on a device, which is all that a transport to another machine has to give.

It reads a script from its stdin, and what follows on stdin is for the script to read; see run.sh
and lease.sh.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Piece:
    """What a command wrote."""

    stream: Literal["stdout", "stderr"]
    content: bytes


@dataclass(frozen=True)
class Ended:
    """A command's end."""

    exit_code: int


class Channel(ABC):
    """A `sh` that runs on a device and reads what we send."""

    @abstractmethod
    def send(self, content: bytes) -> None:
        """Write to its stdin.

        Raises:
            OSError: the link is cut.
        """

    @abstractmethod
    def end_input(self) -> None:
        """Let its stdin end.

        Raises:
            OSError: the link is cut.
        """

    @abstractmethod
    def receive(self, timeout_s: float) -> Piece | Ended | None:
        """Wait for what comes next; None if nothing does in time.

        Raises:
            OSError: the link is cut.
        """

    @abstractmethod
    def close(self) -> None:
        """Give it up: its stdin ends, whatever it is doing. Raises nothing."""


def script(text: str, arguments: Sequence[str], **settings: str | float) -> bytes:
    """Give a script its settings and arguments, ready to be sent.

    Args:
        text: the script.
        arguments: its `"$@"`.
        settings: variables that it reads.

    Raises:
        ValueError: a NUL byte, which no argument of a command can hold.
    """
    if any("\0" in argument for argument in arguments):
        raise ValueError("an argument of a command holds a NUL byte")
    lines = [f"{name}={shlex.quote(f'{value}')}" for name, value in settings.items()]
    lines.append(f"set -- {shlex.join(arguments)}")
    # Where a name of the file system is no UTF-8, Python holds its bytes as surrogates.
    return "\n".join([*lines, text]).encode("utf-8", "surrogateescape")
