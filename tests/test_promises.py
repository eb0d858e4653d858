"""What README and docs promise: commands that exist, a row for every plug-in."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from bibench_deploy import targets
from bibench_deploy.cli.app import app
from bibench_deploy.devices.transports import transport_names
from bibench_deploy.lint.rules import load_all
from bibench_deploy.profiling.runners import runner_names
from bibench_train import algorithms, datasets

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(app).commands


def fenced_commands(path: Path) -> list[str]:
    """The lines of a page's code blocks that call bibench."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("bibench ")]


def examples() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [(page.name, line) for page in pages for line in fenced_commands(page)]


def test_the_readme_shows_commands() -> None:
    assert len(fenced_commands(ROOT / "README.md")) >= 6


@pytest.mark.parametrize(("page", "line"), examples())
def test_a_command_of_the_docs_exists_with_its_options(page: str, line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    if name.startswith("-"):
        return
    assert name in COMMANDS, f"{page}: {line}"
    command = COMMANDS[name]
    if hasattr(command, "commands"):  # a command of commands, such as `bibench devices add`
        assert arguments[0] in command.commands, f"{page}: {line}"
        command = command.commands[arguments[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    assert used <= known | {"--help"}, f"{page}: {line}"


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_readme_or_the_quickstart(name: str) -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "docs/quickstart.md").read_text()
    assert f"bibench {name}" in text


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("algorithms.md", algorithms.names()),
        ("datasets.md", datasets.names()),
        ("targets.md", targets.names()),
        ("transports.md", transport_names()),
        ("devices.md", runner_names()),
        ("rules.md", [rule.code for rule in load_all()]),
    ],
)
def test_every_plug_in_has_a_row(page: str, names: list[str]) -> None:
    rows = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line[:1] == "|"]
    first_cells = {row.split("|")[1].strip().strip("`[").partition("`")[0] for row in rows}
    assert set(names) <= first_cells


@pytest.mark.parametrize("page", ["algorithms.md", "targets.md", "rules.md"])
def test_every_row_of_a_plug_in_links_its_source(page: str) -> None:
    rows = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line[:1] == "|"]
    plug_ins = [row for row in rows[2:] if "---" not in row]
    assert plug_ins
    assert all("](" in row or "bibench_" in row for row in plug_ins)


@pytest.mark.parametrize("page", ["README.md", "docs"])
def test_every_link_inside_the_repository_leads_somewhere(page: str) -> None:
    pages = [ROOT / page] if page.endswith(".md") else sorted((ROOT / page).rglob("*.md"))
    for path in pages:
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            assert "://" in link or (path.parent / link).exists(), f"{path.name}: {link}"
