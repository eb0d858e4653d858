"""The fingerprint of a device: what a latency depends on, and nothing that names its owner."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from bibench_deploy.devices.transports._transport import Transport

TIMEOUT_S = 60.0
_PROBE = Path(__file__).with_name("probe.sh")
# As `uname -m` names the instruction sets, and bibench the ABIs of a Linux system.
_ABIS = {
    "aarch64": "aarch64", "arm64": "aarch64", "armv7l": "aarch32", "armv8l": "aarch32",
    "x86_64": "x86-64", "amd64": "x86-64",
}  # fmt: skip
_SYSTEM_ABIS = {
    ("Android", "aarch64"): "android-arm64", ("Darwin", "aarch64"): "macos-arm64",
    ("Darwin", "x86-64"): None, ("Android", "aarch32"): None, ("Android", "x86-64"): None,
}  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        cores: how many.
        max_mhz: their highest clock; None where the device does not tell.
        kind: as the device names it, for example "0xd0b" (the part number of an ARM core); None
            where it does not tell.
        numbers: of the cores, as the system counts them; empty where it does not tell.
    """

    cores: int
    max_mhz: int | None
    kind: str | None
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Environment:
    """A device as it was when measured; None, or empty, where it does not tell.

    Attributes:
        machine: instruction set as uname names it, for example x86_64 or aarch64.
        cpu: model of the processor.
        cores: processors that a process may use.
        clusters: its cores by kind.
        memory_mib: main memory.
        system: kind of operating system: Linux, Android or Darwin (macOS).
        release: of the operating system, for example "Debian GNU/Linux 12 (bookworm)".
        kernel: release of its kernel.
        is_emulated: whether another instruction set executes it: its latencies say nothing
            of any hardware.
        python: version of the Python that runs the models.
        packages: version of each runtime's package in that Python, by name.
        governor: frequency governor of the first core.
        clocks_mhz: clock of each core now.
        temperatures_c: by sensor.
        throttled: flags of the Raspberry Pi's firmware, for example "0x0".
        free_mib: free space where pushed files go.
        clock_skew_s: the device's time less ours.
        has_taskset: whether a program can be kept on cores there.
    """

    machine: str | None = None
    cpu: str | None = None
    cores: int | None = None
    clusters: tuple[Cluster, ...] = ()
    memory_mib: int | None = None
    system: str | None = None
    release: str | None = None
    kernel: str | None = None
    is_emulated: bool = False
    python: str | None = None
    packages: dict[str, str] | None = None
    governor: str | None = None
    clocks_mhz: tuple[int, ...] = ()
    temperatures_c: dict[str, float] | None = None
    throttled: str | None = None
    free_mib: int | None = None
    clock_skew_s: int | None = None
    has_taskset: bool = False

    @property
    def abi(self) -> str | None:
        """Which builds of programs run here, as `runtimes.ABIS` names them; None if unknown."""
        instruction_set = _ABIS.get((self.machine or "").lower())
        if instruction_set is None:
            return None
        return _SYSTEM_ABIS.get((self.system or "", instruction_set), instruction_set)

    def package(self, name: str) -> str | None:
        """Version of a runtime's package in the device's Python; None where it is not there."""
        return (self.packages or {}).get(name)

    def as_json(self) -> dict[str, Any]:
        """Give the fields as the header of a results file has them."""
        return asdict(self)


def read_environment(transport: Transport) -> Environment:
    """Ask a device for its fingerprint: one command that Linux, Android and macOS can run.

    Raises:
        DeviceError: the device cannot be reached, or has no working `sh`.
    """
    command = ["sh", "-c", _PROBE.read_text(encoding="utf-8"), "bibench", transport.python]
    asked_at = time.time()
    result = transport.run([*command, transport.work_folder], timeout_s=TIMEOUT_S)
    if result.exit_code != 0 or "@system" not in result.stdout:
        raise DeviceError(
            f"device {transport.device.name}: its sh cannot say what it is: "
            f"{(result.stderr or result.stdout).strip()[:200]!r}",
            exit_code=result.exit_code,
            stderr=result.stderr,
        )
    return parse_environment(result.stdout, asked_at, time.time())


def parse_environment(printed: str, asked_at: float, answered_at: float) -> Environment:
    """Read what probe.sh printed.

    Args:
        printed: all of it; sections may be empty or missing.
        asked_at: our time when it was asked, in seconds since 1970.
        answered_at: our time when all of it was there.
    """
    # It is shown on terminals, which a device shall not steer.
    printed = "".join(letter if letter.isprintable() or letter in "\n\t" else "?"
                      for letter in printed)  # fmt: skip
    found = _sections(printed)
    system, sysctl = found.get("system") or None, _keyed(found.get("sysctl", ""), ":")
    android = found.get("android", "").splitlines()[1:]  # the first is getprop's own path
    clocks = _clocks(found.get("clocks", ""))
    cpu = _cpu_model(found)
    cores = found.get("cores", "")
    memory_mib = _whole(_keyed(found.get("memory", ""), ":").get("MemTotal"), 1024)
    release = found.get("release", "").removeprefix("PRETTY_NAME=").strip('"') or None
    if android:
        system, release = "Android", f"Android {android[0]}"
        cpu = next((name for name in android[1:] if name), cpu)
    if sysctl:
        cpu = sysctl.get("machdep.cpu.brand_string")
        cores = sysctl.get("hw.logicalcpu", "")
        memory_mib = _whole(sysctl.get("hw.memsize"), 2**20)
    python, packages = _python(found.get("python", ""))
    now = _whole(found.get("time"), 1)
    executable = found.get("executable", "")
    free = re.search(r"\s(\d+)\s+\d+%\s", found.get("folder", ""))
    current = [_whole(clock.get("scaling_cur_freq"), 1000) for clock in clocks.values()]
    return Environment(
        machine=found.get("machine") or None,
        cpu=cpu,
        cores=_whole(cores, 1),
        clusters=_clusters(found.get("cpuinfo", ""), clocks, sysctl),
        memory_mib=memory_mib,
        system=system,
        release=release,
        kernel=found.get("kernel") or None,
        is_emulated=re.search(r"/qemu-[^/]*$|/qemu-binfmt/", executable) is not None,
        python=python,
        packages=packages,
        governor=next(iter(clocks.values()), {}).get("scaling_governor"),
        clocks_mhz=tuple(mhz for mhz in current if mhz is not None),
        temperatures_c=_temperatures(found.get("temperatures", "")),
        throttled=found.get("throttled", "").removeprefix("throttled=") or None,
        free_mib=_whole(free[1], 1024) if free else None,
        # The device's clock was read somewhere between, in whole seconds.
        clock_skew_s=None
        if now is None
        else min(now - int(asked_at), 0) or max(now - int(answered_at), 0),
        has_taskset=bool(found.get("taskset")),
    )  # fmt: skip


def _sections(printed: str) -> dict[str, str]:
    parts = re.split(r"^@(\w+)\n", printed, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _keyed(text: str, separator: str) -> dict[str, str]:
    pairs = (line.partition(separator) for line in text.splitlines())
    return {key.strip(): value.strip() for key, found, value in pairs if found}


def _whole(text: str | None, divisor: int) -> int | None:
    number = re.match(r"[0-9]{1,18}(?![0-9])", text or "")
    return int(number.group()) // divisor if number else None


def _cpu_model(found: dict[str, str]) -> str | None:
    # x86 says "model name"; ARM boards say "Model" or, on older Android, "Hardware".
    for key in ("model name", "Model", "Hardware"):
        value = re.search(rf"^{key}[ \t]*:[ \t]*(.+)$", found.get("cpuinfo", ""), re.MULTILINE)
        if value:
            return value.group(1).strip()
    return found.get("model") or None


def _clocks(text: str) -> dict[int, dict[str, str]]:
    """What each core says of its clock, by number: file name → content."""
    clocks: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        words = line.split()
        core = _whole(words[0], 1) if len(words) == 3 else None
        if core is not None:
            clocks.setdefault(core, {})[words[1]] = words[2]
    return dict(sorted(clocks.items()))


def _clusters(
    cpuinfo: str, clocks: dict[int, dict[str, str]], sysctl: dict[str, str]
) -> tuple[Cluster, ...]:
    """Cores of one kind together, the slowest first."""
    levels = [_whole(sysctl.get(f"hw.perflevel{level}.logicalcpu"), 1) for level in (1, 0)]
    if sysctl:
        names = ("efficiency", "performance")
        named = zip(levels, names, strict=True)
        return tuple(Cluster(cores, None, name) for cores, name in named if cores)
    kinds: dict[int, str | None] = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        keys = _keyed(block, ":")
        core = _whole(keys.get("processor"), 1)
        if core is not None:
            kinds[core] = keys.get("CPU part")
    cores = sorted(kinds.keys() | clocks.keys())
    # An old kernel lists only cores that are awake; a clock that is not told is no kind of its own.
    alike: dict[tuple[int | None, str | None], list[int]] = {}
    for core in cores:
        max_mhz = _whole(clocks.get(core, {}).get("cpuinfo_max_freq"), 1000)
        alike.setdefault((max_mhz, kinds.get(core)), []).append(core)
    return tuple(
        Cluster(len(numbers), max_mhz, kind, tuple(numbers))
        for (max_mhz, kind), numbers in sorted(alike.items(), key=lambda item: item[0][0] or 0)
    )


def _temperatures(text: str) -> dict[str, float]:
    """Degrees Celsius by sensor; of sensors of one name, the hottest."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        value, _, name = line.partition(" ")
        if re.fullmatch(r"-?[0-9]{1,18}", value) and name:
            # Linux gives thousandths of a degree; some vendors give whole degrees.
            degrees = int(value) / 1000 if abs(int(value)) >= 1000 else float(value)
            found[name] = max(degrees, found.get(name, degrees))
    return found


def _python(text: str) -> tuple[str | None, dict[str, str]]:
    """Its version, and those of the packages that matter; the first in its path comes last."""
    version, *lines = text.splitlines() or [""]
    packages = {}
    for line in lines:
        name, _, package_version = line.partition(" ")
        packages[name] = package_version
    return version or None, dict(sorted(packages.items()))
