"""The fingerprint of a device: what a latency depends on, and nothing that names its owner."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from bibench_deploy.devices.transports._transport import Transport

TIMEOUT_S = 20.0
_GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"


@dataclass(frozen=True)
class Environment:
    """A device as it was when measured; None where it does not tell.

    Attributes:
        machine: instruction set as uname names it, for example x86_64 or aarch64.
        cpu: model of the processor.
        cores: processors that a process may use.
        memory_mib: main memory.
        system: kind of operating system, for example Linux.
        kernel: its release.
        python: version of the Python that runs the models.
        governor: frequency governor of the first core.
    """

    machine: str | None
    cpu: str | None
    cores: int | None
    memory_mib: int | None
    system: str | None
    kernel: str | None
    python: str | None
    governor: str | None

    def as_json(self) -> dict[str, Any]:
        """Give the fields as the header of a results file has them."""
        return asdict(self)


def read_environment(transport: Transport) -> Environment:
    """Ask a device for its fingerprint, by commands that Linux, Android and macOS have.

    Raises:
        DeviceError: the device cannot be reached.
    """
    system = _ask(transport, "uname", "-s")
    cpu_info = _ask(transport, "cat", "/proc/cpuinfo") or ""
    memory_info = _ask(transport, "cat", "/proc/meminfo") or ""
    memory_kib = _first_field(memory_info, "MemTotal")
    cores = _ask(transport, "nproc")
    cpu = _cpu_model(cpu_info)
    memory_mib = int(memory_kib.split()[0]) // 1024 if memory_kib else None
    if system == "Darwin":
        cpu = _ask(transport, "sysctl", "-n", "machdep.cpu.brand_string")
        cores = _ask(transport, "sysctl", "-n", "hw.logicalcpu")
        memory_bytes = _ask(transport, "sysctl", "-n", "hw.memsize")
        memory_mib = int(memory_bytes) // 2**20 if memory_bytes else None
    python = _ask(transport, transport.python, "--version")
    return Environment(
        machine=_ask(transport, "uname", "-m"),
        cpu=cpu,
        cores=int(cores) if cores and cores.isdigit() else None,
        memory_mib=memory_mib,
        system=system,
        kernel=_ask(transport, "uname", "-r"),
        python=python.removeprefix("Python ") if python else None,
        governor=_ask(transport, "cat", _GOVERNOR),
    )


def _ask(transport: Transport, *arguments: str) -> str | None:
    try:
        result = transport.run(arguments, timeout_s=TIMEOUT_S)
    except DeviceError:
        # A device without this command does not tell; one that is out of reach fails at the
        # first push all the same.
        return None
    return result.stdout.strip() or None if result.exit_code == 0 else None


def _cpu_model(cpu_info: str) -> str | None:
    # x86 says "model name"; ARM boards say "Model" or, on Android, "Hardware".
    for key in ("model name", "Model", "Hardware"):
        value = _first_field(cpu_info, key)
        if value:
            return value
    return None


def _first_field(text: str, key: str) -> str | None:
    found = re.search(rf"^{re.escape(key)}[ \t]*:[ \t]*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None
