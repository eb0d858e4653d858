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


# SIGHUP tells that the terminal was closed; Windows has no such signal.
_ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def ending_on_terminate() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a command as Ctrl-C does.

    Children are ended then, and nothing half-written is left. A signal that is ignored stays
    so: that is what `nohup` asks for.
    """

    def interrupt(signum: int, frame: object) -> NoReturn:  # noqa: ARG001 - a handler's signature
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    heard = [number for number in _ENDINGS if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be collected, in a command that is over in seconds.

    It takes a sixth of the time of a lint and a tenth of an export's, most of it to look again
    and again through what PyTorch loads and never gives back.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
