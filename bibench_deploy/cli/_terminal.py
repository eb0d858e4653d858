"""What every command owes the terminal that it runs in."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


def printable(text: str) -> str:
    r"""A text without control characters: names in a file could otherwise steer the terminal.

    Example:
        >>> printable("node\x1b[31m")
        'node?[31m'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


@contextmanager
def ending_on_terminate() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: children ended, nothing half-written left."""

    def interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be collected: in a command that is over in a second it takes a sixth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
