"""What transports to another machine share: everything but the link itself.

A command is a script for the device's `sh`, sent to its stdin: the only word that crosses the
link as a command line is `sh`, so no login shell reads names or arguments. Its stdin stays open
while we wait; run.sh ends the command when it closes.

Files are pushed to the device's work folder under the sha256 of their content, checked there
after the upload, and left for the next time. `bibench devices clean` removes them.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.artifact import sha256_of
from bibench_deploy.devices.transports._lease import Lease, NoRoomError
from bibench_deploy.devices.transports._shell import Channel, Ended, script
from bibench_deploy.devices.transports._transport import CommandResult, Transport
from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from bibench_deploy.devices.registry import Device

_RUN = Path(__file__).with_name("run.sh").read_text(encoding="utf-8")
# How long a command may take to end when it is told to; then it is killed.
GRACE_S = 5
# After its limit and that grace, a command whose end does not come has lost its link.
LINK_S = 20.0
_ASK_S = 30.0
# Of a command in the background: longer than any sweep, and than any line of its own.
_LONGEST_S = 7 * 24 * 3600
_LONGEST_LINE = 1 << 16
# More than any runner prints; what goes on and on is not kept in memory until its time is up.
MAX_OUTPUT_BYTES = 64 * 2**20
# Reading the hash of what was pushed, at the pace of a slow memory card.
_HASH_BYTES_PER_S = 5e6

_HASH = """
hash_of() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
"""
# Prints the folder's path, what df says of it, and the hashes of those files that are there.
_LOOK = f"""{_HASH}
umask 077
mkdir -p -- "$1" && cd -- "$1" || exit 1
shift
pwd
df -Pk . | tail -n 1
hash_of "$@" 2>/dev/null
exit 0
"""
# Gives an upload its name if its hash is what it should be, else removes it.
_KEEP = f"""{_HASH}
cd -- "$1" || exit 1
found=$(hash_of "$2" 2>/dev/null)
if [ "${{found%% *}}" = "$3" ]; then chmod 500 "$2" && mv -f "$2" "$3"
else rm -f "$2"; exit 3; fi
"""
_CLEAN = """
cd -- "$1" 2>/dev/null || { echo 0 0; exit 0; }
count=0 bytes=0
for file in *; do
  case $file in
    part.*) ;;
    stale.*) rm -rf "$file"; continue ;;
    *[!0-9a-f]*) continue ;;
    *) [ "${#file}" = 64 ] || continue ;;
  esac
  [ -f "$file" ] || continue
  size=$(wc -c < "$file")
  rm -f "$file" && count=$((count + 1)) bytes=$((bytes + size))
done
echo "$count" "$bytes"
"""


class RemoteTransport(Transport):
    """A way to another machine that has a `sh`."""

    DEFAULT_WORK_FOLDER = ".cache/bibench"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._lease: Lease | None = None
        # Pushed files that a kernel runs itself, by their path on the device.
        self._programs: set[str] = set()

    @property
    def work_folder(self) -> str:
        """Where pushed files go; a relative path is in the home folder there."""
        # Commands start in the home folder, and no shell reads a "~".
        return str(self.device.facts.get("work_folder", self.DEFAULT_WORK_FOLDER)).removeprefix(
            "~/"
        )

    @property
    def python(self) -> str:
        """The Python that has the runtimes; a path that begins with "~/" is in the home folder."""
        return super().python.removeprefix("~/")

    @abstractmethod
    def open_channel(self) -> Channel:
        """Start a `sh` on the device.

        Raises:
            OSError: the link is cut.
        """

    @abstractmethod
    def upload(self, file: Path, path: str) -> None:
        """Copy a file to an absolute path on the device, whose folder exists.

        Raises:
            OSError: the file cannot be written there, or the link is cut.
        """

    @abstractmethod
    def download(self, path: str, file: Path) -> None:
        """Copy a file of the device here.

        Raises:
            OSError: it cannot be read, or the link is cut.
        """

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> CommandResult:
        """Run a command; when the link is cut or we are interrupted, it is killed there."""
        if self._lease:
            self._lease.check()
        begun_at = time.monotonic()
        with self._reached(), contextlib.closing(self.open_channel()) as channel:
            # Not every `timeout` reads fractions.
            limit_s = math.ceil(timeout_s)
            channel.send(script(_RUN, arguments, limit=limit_s, grace=GRACE_S))
            result = self._collect(channel, timeout_s + GRACE_S + LINK_S)
        has_timed_out = time.monotonic() - begun_at >= timeout_s
        # TERM by `timeout`, its KILL after the grace, and the alarm of a Mac.
        if has_timed_out and result.exit_code in (124, -9, -14, -15):
            raise self.timeout_error(arguments, timeout_s)
        is_pushed = arguments[0] in self._programs
        if reason := _why_not_started(arguments[0], result, is_pushed=is_pushed):
            raise DeviceError(
                f"device {self.device.name}: cannot start {arguments[0]}: {reason}",
                exit_code=result.exit_code,
                stderr=result.stderr,
            )
        return result

    @contextlib.contextmanager
    def listening(self, arguments: Sequence[str], hear: Callable[[str], object]) -> Iterator[None]:
        """Run a command in a channel of its own."""
        try:
            channel = self.open_channel()
        except OSError:  # whoever runs a command next says it
            yield
            return
        reader = threading.Thread(target=_hear_lines, args=(channel, hear), daemon=True)
        try:
            with contextlib.suppress(OSError):
                channel.send(script(_RUN, arguments, limit=_LONGEST_S, grace=GRACE_S))
                reader.start()
            yield
        finally:
            with contextlib.suppress(OSError):
                channel.end_input()
            if reader.ident is not None:
                reader.join(2 * GRACE_S)
            channel.close()

    def push(self, file: Path) -> str:
        """Upload a file, unless its content is there."""
        return self.push_all([file])[file]

    def push_all(self, files: Sequence[Path]) -> dict[Path, str]:
        """Upload files whose content is not there; asks for all of them at once."""
        hashes, sizes = {}, {}
        for file in files:
            try:
                hashes[file], sizes[file] = sha256_of(file), file.stat().st_size
            except OSError as error:
                raise DeviceError(
                    f"device {self.device.name}: cannot push {file}: {error.strerror}"
                ) from error
        timeout_s = _ASK_S + sum(sizes.values()) / _HASH_BYTES_PER_S
        folder, _, there = self._look(list(hashes.values()), timeout_s)
        for file, sha256 in hashes.items():
            if sha256 not in there:
                self._upload(file, sizes[file], folder, sha256, timeout_s)
                there.add(sha256)
        paths = {file: f"{folder}/{sha256}" for file, sha256 in hashes.items()}
        self._programs |= {path for file, path in paths.items() if _is_program(file)}
        return paths

    def _upload(self, file: Path, size: int, folder: str, sha256: str, timeout_s: float) -> None:
        part = f"part.{secrets.token_hex(8)}"
        self._check_room(folder, size)
        try:
            self.upload(file, f"{folder}/{part}")
            kept = self._sh(_KEEP, folder, part, sha256, timeout_s=timeout_s)
        except BaseException as error:
            lost = self._remove(f"{folder}/{part}")
            if not isinstance(error, OSError):
                raise
            if lost:
                raise lost from error
            self._check_room(folder, size)  # not every server says why it cannot write
            raise DeviceError(
                f"device {self.device.name}: cannot write to {folder}: {error}"
            ) from error
        if kept.exit_code != 0:
            raise DeviceError(
                f"device {self.device.name}: {file.name} arrived with another content; check its "
                "memory card and its cable, and run this again",
                exit_code=kept.exit_code,
                stderr=kept.stderr,
            )

    def pull(self, path: str, file: Path) -> None:
        """Download a file; it appears whole or not at all."""
        scratch = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            with self._reached():
                try:
                    self.download(path, scratch)
                except FileNotFoundError as error:
                    message = f"device {self.device.name}: no file {path} to pull"
                    raise DeviceError(message) from error
                scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)

    def check_pushed(self, paths: Sequence[str]) -> None:
        """Check that pushed files are still there, as they are not after some restarts."""
        try:
            result = self.run(["ls", "-d", "--", *paths], timeout_s=_ASK_S)
        except DeviceError:
            return  # whoever asks has an error of its own, which says more
        if result.exit_code != 0:
            raise DeviceError(
                f"device {self.device.name}: pushed files are gone from its work folder "
                f"{self.work_folder}: it was restarted or cleaned meanwhile; run this again"
            )

    def clean(self) -> tuple[int, int]:
        """Remove what was pushed."""
        with contextlib.ExitStack() as held:
            # Where a full disk keeps everybody from the lease, this is what makes room.
            with contextlib.suppress(NoRoomError):
                held.enter_context(self.hold())
            result = self._sh(_CLEAN, self.work_folder, timeout_s=10 * _ASK_S)
        counted = re.fullmatch(r"([0-9]{1,18}) ([0-9]{1,18})\n", result.stdout)
        if result.exit_code != 0 or counted is None:
            raise DeviceError(
                f"device {self.device.name}: its sh cannot clean {self.work_folder}: "
                f"{(result.stderr or result.stdout).strip()[:200]!r}",
                exit_code=result.exit_code,
                stderr=result.stderr,
            )
        return int(counted[1]), int(counted[2])

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the device's lease."""
        with self._reached():
            lease = Lease(self.device.name, self.open_channel(), self.work_folder)
        try:
            lease.take()
            self._lease = lease
            yield
        finally:
            self._lease = None
            lease.give_back()

    def _look(self, names: Sequence[str], timeout_s: float) -> tuple[str, int, set[str]]:
        """The work folder's path, its free KiB, and which files hold what their name says."""
        result = self._sh(_LOOK, self.work_folder, *names, timeout_s=timeout_s)
        lines = result.stdout.splitlines()
        # … blocks, used, available, per cent: the first column may have spaces in it.
        free = re.search(r"\s([0-9]{1,18})\s+\d+%\s", lines[1]) if len(lines) > 1 else None
        if result.exit_code != 0 or free is None:
            reason = (result.stderr or result.stdout).strip().splitlines()[-1:] or ["it is silent"]
            raise DeviceError(
                f"device {self.device.name}: its work folder {self.work_folder} cannot be used: "
                f"{reason[0][:200]}; name another one as work_folder in its connection",
                exit_code=result.exit_code,
                stderr=result.stderr,
            )
        hashed = [line.split() for line in lines[2:]]
        found = {words[0] for words in hashed if len(words) == 2 and words[0] == words[1]}
        return lines[0].rstrip("/"), int(free[1]), found

    def _remove(self, part: str) -> DeviceError | None:
        """Remove half an upload; gives what kept us, and then the next `clean` finds it."""
        try:
            self.run(["rm", "-f", "--", part], timeout_s=_ASK_S)
        except DeviceError as error:
            return error
        return None

    def _check_room(self, folder: str, size: int) -> None:
        _, free_kib, _ = self._look([], _ASK_S)
        if size > 1024 * free_kib:
            raise DeviceError(
                f"device {self.device.name}: no room for {size / 1e6:.1f} MB in {folder}, "
                f"{1024 * free_kib / 1e6:.1f} MB are free; make room there, for instance by: "
                f"bibench devices clean {self.device.name}"
            )

    def _sh(self, text: str, *arguments: str, timeout_s: float) -> CommandResult:
        return self.run(["sh", "-c", text, "bibench", *arguments], timeout_s=timeout_s)

    def _collect(self, channel: Channel, patience_s: float) -> CommandResult:
        deadline = time.monotonic() + patience_s
        written: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        size = 0
        while True:
            left_s = deadline - time.monotonic()
            piece = channel.receive(left_s) if left_s > 0 else None
            if piece is None:
                raise TimeoutError(f"no end for {patience_s:.0f} s")
            if isinstance(piece, Ended):
                stdout, stderr = (b"".join(parts).decode("utf-8", "replace")
                                  for parts in written.values())  # fmt: skip
                # A shell says 128 + N of a command that signal N ended.
                code = piece.exit_code
                return CommandResult(128 - code if 128 < code < 193 else code, stdout, stderr)
            written[piece.stream].append(piece.content)
            size += len(piece.content)
            if size > MAX_OUTPUT_BYTES:
                raise DeviceError(
                    f"device {self.device.name}: a command printed more than "
                    f"{MAX_OUTPUT_BYTES / 2**20:.0f} MiB, so it was ended"
                )

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeviceError(
                f"device {self.device.name}: the link was lost ({error or 'cut'}); what ran there "
                "was ended; run this again when it is back"
            ) from error


def _hear_lines(channel: Channel, hear: Callable[[str], object]) -> None:
    text = b""
    try:
        while not isinstance(piece := channel.receive(_ASK_S), Ended):
            if piece is None or piece.stream != "stdout":
                continue
            *lines, text = (text + piece.content).split(b"\n")
            for line in lines:
                hear(line.decode("utf-8", "replace"))
            text = text[-_LONGEST_LINE:]
    except (OSError, ValueError):  # the link was cut, or closed under us
        return


def _is_program(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _why_not_started(program: str, result: CommandResult, *, is_pushed: bool) -> str | None:
    """What kept a program from starting; None where it started.

    Args:
        program: as it was called.
        result: how that ended.
        is_pushed: whether it is a file of ours that a kernel runs itself.
    """
    last = (result.stderr.splitlines() or [""])[-1]
    if result.exit_code in (126, 127) and last.startswith(("timeout: ", "taskset: ")):
        return last.rpartition(": ")[2]
    # The C library hands a program of another instruction set to sh, as if it were a script; what
    # sh makes of it has a line number, or says so. A missing library has neither.
    told = re.escape(program) + r": (\d+: |line \d+: |cannot execute|not executable)"
    first = result.stderr.partition("\n")[0]
    if is_pushed and result.exit_code > 0 and re.search(told, first):
        return "Exec format error: it is built for another instruction set or system"
    return None
