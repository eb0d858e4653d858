"""The device's side of adb, enough of it to test against: runs on loopback, as this user.

Speaks the transport protocol (CNXN, OPEN, OKAY, WRTE, CLSE) to a real adb server, and offers the
services `shell:` (plain and v2) and `sync:` (STAT, LIST, SEND, RECV).

Source: protocol.txt, SYNC.TXT and shell_protocol.h of packages/modules/adb in Android's sources.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

VERSION = 0x01000000  # the last one whose packets carry a checksum
MAX_PAYLOAD = 256 * 1024
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)


class Stream:
    """One service that the host has opened."""

    def __init__(self, daemon: Connection, local: int, remote: int) -> None:
        self._daemon = daemon
        self.local = local
        self.remote = remote
        self.incoming: SimpleQueue[bytes] = SimpleQueue()  # b"" is the end
        self._ready = threading.Semaphore(0)
        self._unread = b""
        self.is_closed = False

    def acknowledge(self) -> None:
        self._ready.release()

    def write(self, content: bytes) -> None:
        """Send, one packet at a time: each waits for the host's OKAY."""
        for start in range(0, len(content), MAX_PAYLOAD // 4):
            if self.is_closed:
                raise BrokenPipeError("stream closed")
            part = content[start : start + MAX_PAYLOAD // 4]
            self._daemon.send(b"WRTE", self.local, self.remote, part)
            self._ready.acquire()

    def read(self, size: int) -> bytes:
        while len(self._unread) < size:
            part = self.incoming.get()
            if not part:
                raise EOFError
            self._unread += part
        content, self._unread = self._unread[:size], self._unread[size:]
        return content

    def end(self) -> None:
        self.is_closed = True
        self.incoming.put(b"")
        self._ready.release()


class Connection:
    """One adb server that has connected."""

    def __init__(self, link: socket.socket, features: str, daemon: AdbDaemon) -> None:
        self._link = link
        self._daemon = daemon
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._features = features
        self._next = 1

    def send(self, command: bytes, first: int, second: int, content: bytes = b"") -> None:
        word = int.from_bytes(command, "little")
        header = struct.pack(
            "<6I", word, first, second, len(content), sum(content) & 0xFFFFFFFF, word ^ 0xFFFFFFFF
        )
        with self._lock:
            self._link.sendall(header + content)

    def _receive(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            part = self._link.recv(size - len(content))
            if not part:
                raise EOFError
            content += part
        return content

    def serve(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                header = struct.unpack("<6I", self._receive(24))
                self._daemon.received += header[3]
                if self._daemon.received > self._daemon.cut_after:
                    break
                command = header[0].to_bytes(4, "little")
                self._handle(command, header[1], header[2], self._receive(header[3]))
        for stream in list(self._streams.values()):
            stream.end()
        self._link.close()

    def _handle(self, command: bytes, first: int, second: int, content: bytes) -> None:
        if command == b"CNXN":
            banner = f"device::ro.product.name=test;features={self._features}".encode()
            self.send(b"CNXN", VERSION, MAX_PAYLOAD, banner)
        elif command == b"OPEN":
            stream = Stream(self, self._next, first)
            self._next += 1
            self._streams[stream.local] = stream
            name = content.rstrip(b"\0").decode()
            service = self._service(name)
            if service is None:
                self.send(b"CLSE", 0, first)
                return
            self.send(b"OKAY", stream.local, first)
            threading.Thread(target=self._run, args=(service, stream), daemon=True).start()
        elif command == b"WRTE" and second in self._streams:
            self._streams[second].incoming.put(content)
            self.send(b"OKAY", second, first)
        elif command == b"OKAY" and second in self._streams:
            self._streams[second].acknowledge()
        elif command == b"CLSE" and second in self._streams:
            self._streams.pop(second).end()

    def _service(self, name: str) -> Callable[[Stream], None] | None:
        if name.startswith("shell,v2"):
            command = name.partition(":")[2]
            return lambda stream: shell_v2(stream, command)
        if name.startswith(("shell:", "exec:")):
            command = name.partition(":")[2]
            return lambda stream: shell(stream, command)
        return sync if name == "sync:" else None

    def _run(self, service: Callable[[Stream], None], stream: Stream) -> None:
        with suppress(OSError, EOFError):
            service(stream)
        if not stream.is_closed:
            with suppress(OSError):
                self.send(b"CLSE", stream.local, stream.remote)
            self._streams.pop(stream.local, None)


def shell(stream: Stream, command: str) -> None:
    """The service of old: stdout and stderr together, no exit code."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    stream.write(done.stdout)


def shell_v2(stream: Stream, command: str) -> None:
    """stdin, stdout, stderr and the exit code, each in packets of its own."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    lock = threading.Lock()

    def forward(kind: int, descriptor: int) -> None:
        with suppress(OSError):
            while content := os.read(descriptor, 1 << 15):
                with lock:
                    stream.write(struct.pack("<BI", kind, len(content)) + content)

    def feed() -> None:
        assert process.stdin
        with suppress(OSError, EOFError):
            while True:
                kind, size = struct.unpack("<BI", stream.read(5))
                content = stream.read(size)
                if kind == CLOSE_STDIN:
                    break
                if kind == STDIN:
                    process.stdin.write(content)
        with suppress(OSError):
            process.stdin.close()

    outputs = [
        threading.Thread(target=forward, args=(kind, pipe.fileno()), daemon=True)
        for kind, pipe in ((STDOUT, process.stdout), (STDERR, process.stderr))
    ]
    threading.Thread(target=feed, daemon=True).start()
    for thread in outputs:
        thread.start()
    try:
        process.wait()
        for thread in outputs:
            thread.join()
        # As adbd does it: 128 + N where signal N ended the shell itself.
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        stream.write(struct.pack("<BIB", EXIT, 1, code))
    finally:
        for pipe in (process.stdout, process.stderr):
            pipe.close()


def sync(stream: Stream) -> None:
    """Files, until the host says QUIT."""
    while True:
        command, size = struct.unpack("<4sI", stream.read(8))
        if command == b"QUIT":
            return
        path = stream.read(size).decode()
        if command == b"STAT":
            try:
                found = os.stat(path)  # noqa: PTH116 - as the protocol names it
                fields = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
            except OSError:
                fields = (0, 0, 0)
            stream.write(struct.pack("<4s3I", b"STAT", *fields))
        elif command == b"SEND":
            receive_file(stream, path)
        elif command == b"RECV":
            send_file(stream, path)
        else:
            fail(stream, f"unknown command {command!r}")


def fail(stream: Stream, message: str) -> None:
    stream.write(struct.pack("<4sI", b"FAIL", len(message)) + message.encode())


def receive_file(stream: Stream, path: str) -> None:
    name, _, mode = path.rpartition(",")
    problem = ""
    file = None
    try:
        file = Path(name).open("wb")  # noqa: SIM115 - it stays open over several packets
        os.fchmod(file.fileno(), int(mode) & 0o777)
    except OSError as error:
        problem = str(error)
    try:
        while True:
            command, size = struct.unpack("<4sI", stream.read(8))
            if command == b"DONE":
                break
            content = stream.read(size)
            if file and not problem:
                try:
                    file.write(content)
                    file.flush()
                except OSError as error:
                    problem = str(error)
    finally:
        if file:
            with suppress(OSError):
                file.close()
    if problem:
        fail(stream, problem)
    else:
        stream.write(struct.pack("<4sI", b"OKAY", 0))


def send_file(stream: Stream, path: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        fail(stream, str(error))
        return
    for start in range(0, len(content), 1 << 15):
        part = content[start : start + (1 << 15)]
        stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
    stream.write(struct.pack("<4sI", b"DONE", 0))


class AdbDaemon:
    """Listens on loopback; an adb server connects by `adb connect 127.0.0.1:PORT`.

    Attributes:
        received: bytes of content so far.
        cut_after: once more than this has come, the connection is lost.
    """

    def __init__(self, features: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._features = features
        self.received = 0
        self.cut_after = float("inf")
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                self._links.append(link)
                connection = Connection(link, self._features, self)
                threading.Thread(target=connection.serve, daemon=True).start()

    def cut(self) -> None:
        """Lose every connection, as a pulled cable would."""
        for link in self._links:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        self._links.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()
