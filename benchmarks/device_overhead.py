"""What a board over ssh costs beside the measuring itself. Promise: 0.3 s and 1.0 s.

Push: of a model of 4 MB whose content is there. Run: a fresh process connects, takes the lease,
checks what the board is, finds model and script there, starts one command, reads what it printed
and gives the lease back; the command's own time is not counted. On loopback, so that no network
is in the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks._sshd import ssh_device

REPEATS = 7
SIZE = 4_000_000
OWN_S = 0.2
# Prints the time of a second push, and of everything but the command.
PROGRAM = """
import json, sys, time
from pathlib import Path
begun_at = time.perf_counter()
from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import open_transport
from bibench_deploy.profiling.environment import read_environment
model, script, own_s = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
device = Device("board", "board", "ssh", json.loads(sys.argv[1]))
with open_transport(device) as transport, transport.hold():
    read_environment(transport)
    pushed_at = time.perf_counter()
    files = transport.push_all([model, script])
    push_s = time.perf_counter() - pushed_at
    result = transport.run([files[script], own_s, files[model]], timeout_s=60)
    json.loads(result.stdout)
print(json.dumps([push_s, time.perf_counter() - begun_at - float(own_s)]))
"""


def measure() -> str:
    """Medians over fresh processes, the first one left out: it uploads."""
    with ssh_device() as device, tempfile.TemporaryDirectory() as name:
        model, script = Path(name, "model"), Path(name, "script")
        model.write_bytes(os.urandom(SIZE))
        script.write_text('#!/bin/sh\nsleep "$1"\necho "{}"\n')
        command = [sys.executable, "-c", PROGRAM, json.dumps(dict(device.facts))]
        command += [str(model), str(script), str(OWN_S)]
        times = []
        for _ in range(1 + REPEATS):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            times.append(json.loads(done.stdout))
    pushes, runs = zip(*times[1:], strict=True)
    return (
        f"second push of {SIZE / 1e6:.0f} MB over ssh: {median(pushes):.2f} s (promise 0.3 s); "
        f"one run beside the runner's own time: {median(runs):.2f} s (promise 1.0 s)"
    )
