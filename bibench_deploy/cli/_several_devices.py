"""Sweeps on several devices at once: each in a bibench of its own.

A process for each device, since Ctrl-C, a lost link or a crash of one then ends as it does for
one device alone, and the others go on. Each has its own results file.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from bibench_deploy.profiling.session import ProfileRun, Progress

_Queue: TypeAlias = "queue.Queue[tuple[str, dict[str, Any] | None]]"  # None: nothing follows

EVENTS = "--events"
# How long a sweep may take to end what runs on its device when it is told to.
_END_S = 60.0
# How long what a process wrote before it ended may take to be read.
_LAST_WORDS_S = 5.0


@dataclass(frozen=True)
class Sweep:
    """A sweep on one of several devices that has ended.

    Attributes:
        device: its name.
        path: the results file; None where it failed.
        error: why it failed, in one line; empty where it did not.
        remarks: what was asked for and could not be done, a sentence each.
    """

    device: str
    path: Path | None
    error: str
    remarks: tuple[str, ...] = ()


def run_sweeps(
    commands: Mapping[str, Sequence[str]], progress: Callable[[str, Progress], None]
) -> list[Sweep]:
    """Run `bibench profile` once for each device, all at the same time.

    Args:
        commands: by device, the words after `bibench profile`.
        progress: called with a device and what its sweep says.

    Returns:
        How each ended, in the order of `commands`.
    """
    said: _Queue = queue.Queue()
    paths: dict[str, Path] = {}
    remarks: dict[str, tuple[str, ...]] = {}
    running = set(commands)

    def listen(timeout_s: float | None = None) -> None:
        while running:
            device, event = said.get(timeout=timeout_s)
            if event is None:
                running.remove(device)
            elif "results" in event:
                paths[device] = Path(event["results"])
                remarks[device] = tuple(event["remarks"])
            else:
                progress(device, _progress_of(event))

    with tempfile.TemporaryDirectory() as folder:
        try:
            with _started(commands, Path(folder), said) as processes:
                listen()
        except KeyboardInterrupt:
            # All have ended, and said meanwhile which blocks they keep.
            with contextlib.suppress(queue.Empty):
                listen(_LAST_WORDS_S)
            raise
        codes = {device: process.wait() for device, process in processes.items()}
        errors = {
            device: _last_line(Path(folder) / f"{number}.txt")
            for number, device in enumerate(commands)
        }
    return [
        Sweep(device, paths[device], "", remarks[device])
        if codes[device] == 0 and device in paths
        else Sweep(device, None, errors[device] or f"ended with exit code {codes[device]}")
        for device in commands
    ]


def print_event(event: Progress) -> None:
    """Say on stdout how far a sweep has come, for `run_sweeps`."""
    _say(asdict(event))


def print_end(run: ProfileRun) -> None:
    """Say on stdout where a sweep's results are, and what it could not do, for `run_sweeps`."""
    _say({"results": str(run.path), "remarks": run.remarks})


def _say(event: dict[str, Any]) -> None:
    # In one call: print() may be interrupted between a text and the end of its line.
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _progress_of(event: dict[str, Any]) -> Progress:
    from bibench_deploy.profiling.journal import CellKey
    from bibench_deploy.profiling.session import Finished, Progress

    key, finished = event["key"], event["finished"]
    if finished is not None:
        finished = Finished(CellKey(**finished["key"]), finished["middle_ms"], finished["verdict"])
    return Progress(event["done"], event["total"], key and CellKey(**key), event["name"], finished)


@contextlib.contextmanager
def _started(
    commands: Mapping[str, Sequence[str]],
    folder: Path,
    said: _Queue,
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The processes; leaving early, by Ctrl-C or an error, interrupts them and waits."""
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for number, (device, words) in enumerate(commands.items()):
            with (folder / f"{number}.txt").open("wb") as errors:
                # A session of its own: Ctrl-C in a terminal must reach it once, and from here.
                running[device] = subprocess.Popen(
                    [sys.executable, "-m", "bibench_deploy", "profile", EVENTS, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,
                )
            stream = running[device].stdout
            assert stream is not None
            threading.Thread(target=_read, args=(device, stream, said), daemon=True).start()
        yield running
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()  # ends as by Ctrl-C, which a shell's background job ignores
        for process in running.values():
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _read(device: str, stream: IO[str], said: _Queue) -> None:
    try:
        with stream:
            for line in stream:
                said.put((device, json.loads(line)))
    finally:
        said.put((device, None))


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.startswith("bibench: ")), "")
    return last.removeprefix("bibench: ") or "".join(lines[-1:])
