"""`bibench devices`: the registry, how to reach a board, what it is, what we left on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_deploy.cli._inputs import say
from bibench_deploy.cli._terminal import printable
from bibench_deploy.errors import DeployError

if TYPE_CHECKING:
    from bibench_deploy.devices.registry import Device
    from bibench_deploy.profiling.environment import Environment

app = typer.Typer(
    no_args_is_help=True,
    help="The boards that models run on.\n\n"
    "Example: [bold]bibench devices add pi4 --ssh pi@raspberrypi.local[/bold]",
)
_Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")
]
_EXIT_FAILED = 2


@app.command("list")
def list_devices(as_json: _Json = False) -> None:
    """List the known devices, and how each is reached.

    Example: [bold]bibench devices list[/bold]
    """
    from bibench_deploy.devices.registry import load_devices

    devices = load_devices().values()
    if as_json:
        typer.echo(json.dumps([_as_json(device) for device in devices], indent=2))
        return
    _print_table(
        ("name", "device", "reached by"),
        [(device.name, device.title, _reached_by(device)) for device in devices],
    )


@app.command("show")
def show_device(name: str, as_json: _Json = False) -> None:
    """Show what is known of a device, without asking it.

    Example: [bold]bibench devices show kirin990[/bold]
    """
    from bibench_deploy.devices.registry import find_device

    device = find_device(name)
    if as_json:
        typer.echo(json.dumps(_as_json(device), indent=2))
        return
    typer.echo(f"{device.name}: {device.title}")
    rows = [("reached by", _reached_by(device))]
    for key, value in device.facts.items():
        if key == "clusters" and (clusters := _tables(value)):
            rows.append((key, ", ".join(_registered_cluster(cluster) for cluster in clusters)))
        elif key not in ("host", "user", "port", "serial"):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((key.replace("_", " "), shown))
    _print_rows(rows)


@app.command("add")
def add_device(
    name: str,
    ssh: Annotated[
        str | None, typer.Option(metavar="[USER@]HOST[:PORT]", help="Reach it over ssh.")
    ] = None,
    adb: Annotated[
        str | None, typer.Option(metavar="SERIAL", help="Reach it over adb, by its serial.")
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The Python there that has the runtimes; python3 unless said.",
            show_default=False,
        ),
    ] = None,
    work_folder: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Where files go there; .cache/bibench, over adb /data/local/tmp/bibench.",
            show_default=False,
        ),
    ] = None,
    ssh_config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="In place of ~/.ssh/config.", show_default=False),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="What people call it.", show_default=False)
    ] = None,
) -> None:
    """Say how to reach a device; kept in your own connections.toml.

    Example: [bold]bibench devices add pi4 --ssh pi@raspberrypi.local[/bold]
    """
    from bibench_deploy.devices.connections import add_connection, parse_ssh_address
    from bibench_deploy.devices.registry import load_devices

    if (ssh is None) == (adb is None):
        raise DeployError(f"say how to reach {name}, in one way: --ssh USER@HOST or --adb SERIAL")
    connection: dict[str, str | int] = {}
    if ssh is not None:
        connection = {"transport": "ssh", **parse_ssh_address(ssh)}
        if ssh_config is not None:
            connection["ssh_config"] = ssh_config
    elif adb is not None:
        if ssh_config is not None:
            raise DeployError("--ssh-config is for --ssh, not for --adb; leave it out")
        if not adb or not adb.isprintable() or any(letter.isspace() for letter in adb):
            raise DeployError(f"--adb {adb!r} is no serial; `adb devices` lists them")
        connection = {"transport": "adb", "serial": adb}
    for key, value in (("python", python), ("work_folder", work_folder)):
        if value is not None:
            if not value or not value.isprintable():
                raise DeployError(f"--{key.replace('_', '-')} {value!r} is no path")
            connection[key] = value
    file = add_connection(name, connection, title)
    device = load_devices()[name]
    say(f"{name} ({device.title}) is reached by {_reached_by(device)}: {file}")
    say(f"see what it can run: bibench devices check {name}")


@app.command("check")
def check_devices(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Devices; all that can be reached unless given.", show_default=False),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Ask devices what they are, and which runtimes can run there.

    Exits with 2 if one of them cannot be reached.
    Example: [bold]bibench devices check pi4[/bold]
    """
    from bibench_deploy.devices.transports import open_transport
    from bibench_deploy.profiling.environment import read_environment

    found: list[dict[str, Any]] = []
    is_failed = False
    for device in _chosen(names):
        try:
            with open_transport(device) as transport:
                environment = read_environment(transport)
        except DeployError as error:
            is_failed = True
            found.append({"name": device.name, "error": _in_one_line(error)})
            say(f"bibench: {found[-1]['error']}")
            continue
        runtimes = _runtimes(environment)
        found.append(
            {
                "name": device.name,
                "title": device.title,
                "environment": environment.as_json(),
                "runtimes": runtimes,
            }
        )
        if not as_json:
            _print_check(device, environment, runtimes)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    if is_failed:
        raise typer.Exit(_EXIT_FAILED)


@app.command("clean")
def clean_devices(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Devices; all that can be reached unless given.", show_default=False),
    ] = None,
) -> None:
    """Remove the files that were pushed to devices.

    Example: [bold]bibench devices clean pi4[/bold]
    """
    from bibench_deploy.devices.transports import open_transport

    is_failed = False
    for device in _chosen(names):
        try:
            with open_transport(device) as transport:
                count, size = transport.clean()
        except DeployError as error:
            is_failed = True
            say(f"bibench: {_in_one_line(error)}")
            continue
        plural = "" if count == 1 else "s"
        typer.echo(f"{device.name}: {count} file{plural} removed, {size / 1e6:.1f} MB")
    if is_failed:
        raise typer.Exit(_EXIT_FAILED)


def _in_one_line(error: DeployError) -> str:
    return printable(" ".join(str(error).split()))


def _chosen(names: list[str] | None) -> list[Device]:
    from bibench_deploy.devices.registry import find_device, load_devices

    if names:
        return [find_device(name) for name in dict.fromkeys(names)]
    return [device for device in load_devices().values() if device.transport is not None]


def _as_json(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "title": device.title,
        "transport": device.transport,
        **{key: value for key, value in device.facts.items() if key != "name"},
    }


def _reached_by(device: Device) -> str:
    facts = device.facts
    if device.transport is None:
        return "nothing yet; bibench devices add"
    if device.transport == "ssh":
        user = f"{facts['user']}@" if "user" in facts else ""
        port = f":{facts['port']}" if "port" in facts else ""
        return f"ssh {user}{facts.get('host', '?')}{port}"
    if device.transport == "adb":
        return f"adb {facts.get('serial', '?')}"
    return str(device.transport)


def _registered_cluster(cluster: dict[str, Any]) -> str:
    clock = f" at {cluster['max_mhz']} MHz" if "max_mhz" in cluster else ""
    return f"{cluster.get('cores', '?')} × {cluster.get('core', 'core')}{clock}"


def _runtimes(environment: Environment) -> list[dict[str, str | None]]:
    """For each runner what stands in its way on a device, or None."""
    from bibench_deploy.profiling.runners import load_runner, runner_names

    runners = [load_runner(name) for name in runner_names()]
    return [
        {"runner": one.name, "target": one.target, "obstacle": one.obstacle(environment)}
        for one in runners
    ]


def _print_check(
    device: Device, environment: Environment, runtimes: list[dict[str, str | None]]
) -> None:
    typer.echo(f"{device.name}: {device.title}, by {_reached_by(device)}")
    clusters = [
        f"{cluster.cores} × {cluster.kind or 'core'}"
        + (f" at {cluster.max_mhz} MHz" if cluster.max_mhz else "")
        for cluster in environment.clusters
    ]
    rows = [
        ("architecture", environment.machine),
        ("processor", environment.cpu),
        ("cores", _joined(environment.cores, ", ".join(clusters))),
        ("memory", _with_unit(environment.memory_mib, "MiB")),
        ("system", _joined(environment.release or environment.system, environment.kernel)),
        ("governor", environment.governor),
        ("clocks", environment.clocks_mhz and f"{', '.join(map(str, environment.clocks_mhz))} MHz"),
        (
            "temperature",
            ", ".join(
                f"{name} {c:.1f} °C" for name, c in (environment.temperatures_c or {}).items()
            ),
        ),
        ("throttled", environment.throttled),
        ("free space", _with_unit(environment.free_mib, "MiB")),
        ("Python", environment.python),
        ("packages", ", ".join(f"{k} {v}" for k, v in (environment.packages or {}).items())),
        ("clock skew", _with_unit(environment.clock_skew_s, "s")),
    ]
    _print_rows([(name, str(value)) for name, value in rows if value])
    if environment.is_emulated:
        typer.echo("  emulated: what is measured here says nothing of any hardware")
    for line in _differences(device, environment):
        typer.echo(f"  {line}")
    width = max(len(str(one["runner"])) for one in runtimes)
    for one in runtimes:
        typer.echo(f"  {one['runner']:{width}}  {one['obstacle'] or 'can run'}")


def _differences(device: Device, environment: Environment) -> list[str]:
    """What the device says of itself that devices.toml says otherwise."""
    told = [cluster.get("cores") for cluster in _tables(device.facts.get("clusters"))]
    cores = sum(count for count in told if isinstance(count, int))
    differences = []
    if cores and environment.cores and cores != environment.cores:
        differences.append(f"devices.toml says {cores} cores: is this a {device.title}?")
    architecture = device.facts.get("architecture")
    if architecture and environment.machine and architecture != environment.machine:
        differences.append(f"devices.toml says {architecture}: is this a {device.title}?")
    return differences


def _tables(value: object) -> list[dict[str, Any]]:
    """A registered list of tables; none where a user's file says something else."""
    is_list = isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    return value if is_list else []  # type: ignore[return-value]  # checked on the line before


def _with_unit(number: int | None, unit: str) -> str | None:
    return None if number is None else f"{number} {unit}"


def _joined(*parts: object) -> str | None:
    return ", ".join(str(part) for part in parts if part) or None


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"  {name:{width}}  {value}")


def _print_table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in [headings, *rows]:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
