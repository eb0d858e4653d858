"""The lease that keeps two hosts off one board; lease.sh holds it there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path

from bibench_deploy.devices.transports._shell import Channel, Ended, Piece, script
from bibench_deploy.errors import DeviceError

_SCRIPT = Path(__file__).with_name("lease.sh").read_text(encoding="utf-8")
# A sign of life, and how old the last one is when a lease counts as left behind.
HEARTBEAT_S = 15.0
EXPIRY_S = 60
# Longer than between two signs of life.
WATCH_S = 20
# How long the device may take to answer, and to let go.
_ANSWER_S = 30.0
_END_S = 5.0
# How often lease.sh may wait for a sign of life before it gives up.
_MAX_LOOKS = 6
_LONGEST_LINE = 1 << 12
_PROC = "/proc"


class NoRoomError(DeviceError):
    """A disk so full that nobody can take the lease."""


class Lease:
    """A device's lease, kept alive by a thread.

    Args:
        device: its name, for messages.
        channel: the `sh` that is to hold the lease; given up with it.
        folder: the work folder on the device.
    """

    def __init__(self, device: str, channel: Channel, folder: str) -> None:
        self._device = device
        self._channel = channel
        self._folder = folder
        self._lost = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"lease of {device}")

    def take(self) -> None:
        """Become the holder.

        Raises:
            DeviceError: somebody else is, or the work folder cannot be made.
            NoRoomError: the disk is full, so nobody is.
        """
        me = f"{secrets.token_hex(8)} {re.sub(r'[^ -~]', '?', socket.gethostname())} {os.getpid()}"
        settings: dict[str, str | float] = {"folder": self._folder, "me": me}
        settings |= {"expiry": EXPIRY_S, "watch": WATCH_S, "proc": _PROC}
        try:
            self._channel.send(script(_SCRIPT, [], **settings))
            answer = self._line(_ANSWER_S + _MAX_LOOKS * WATCH_S)
        except OSError as error:
            raise DeviceError(f"device {self._device}: the link was lost ({error})") from error
        if not answer:
            raise DeviceError(f"device {self._device}: its sh gives no answer; try it by hand")
        word, _, rest = answer.partition(" ")
        if word == "busy":
            age, _, owner = rest.partition(" ")
            _, _, whose = owner.partition(" ")
            host, _, process = whose.rpartition(" ")
            seen = f"last sign of life {age} s ago" if age.isdigit() else "alive"
            raise DeviceError(
                f"device {self._device}: in use by bibench on {host or 'another host'} (process "
                f"{process or 'unknown'}, {seen}); run this again when it is done"
            )
        if answer == "no room":
            raise NoRoomError(
                f"device {self._device}: no room in its work folder {self._folder}; make room "
                f"there, for instance by: bibench devices clean {self._device}"
            )
        if answer == "no folder":
            raise DeviceError(
                f"device {self._device}: its work folder {self._folder} cannot be made or written "
                "to; name another one as work_folder in its connection"
            )
        if word != "held":
            raise DeviceError(
                f"device {self._device}: its login prints {answer[:80]!r} where no text should "
                "be; keep its start-up files, such as .bashrc, quiet for commands"
            )
        self._thread.start()

    def check(self) -> None:
        """Make sure that we still hold it.

        Raises:
            DeviceError: we do not.
        """
        if self._lost:
            raise DeviceError(f"device {self._device}: {self._lost}; run this again")

    def give_back(self) -> None:
        """Let others have it; waits until they can."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_END_S)
        with contextlib.suppress(OSError):
            self._channel.end_input()
            deadline = time.monotonic() + _END_S
            while not isinstance(self._channel.receive(_END_S), Ended | None):
                if time.monotonic() > deadline:
                    break
        self._channel.close()

    def _beat(self) -> None:
        while not self._is_over.wait(HEARTBEAT_S):
            try:
                # Nothing comes back while all is well.
                if self._channel.receive(0.0) is not None:
                    self._lost = "another host took its lease, because this one was silent too long"
                    return
                self._channel.send(b"\n")
            except (OSError, ValueError) as error:  # a closed descriptor is a ValueError
                self._lost = f"the link was lost ({error})"
                return

    def _line(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        text = b""
        while b"\n" not in text and len(text) < _LONGEST_LINE:
            piece = self._channel.receive(max(0.0, deadline - time.monotonic()))
            if not isinstance(piece, Piece):
                return text.decode("utf-8", "replace").strip()
            text += piece.content if piece.stream == "stdout" else b""
        return text.decode("utf-8", "replace").partition("\n")[0].strip()
