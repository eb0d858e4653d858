from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bibench_deploy.errors import MissingLibraryError
from bibench_deploy.targets import native
from bibench_deploy.targets.native import shared_library as module
from bibench_deploy.targets.native.build import NAME


def test_the_library_is_there_and_small() -> None:
    path = Path(native.library())
    assert path.name == NAME
    assert path.stat().st_size <= 400_000


def test_it_needs_nothing_but_the_c_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", native.library()],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    content = Path(native.library()).read_bytes()
    assert b"libstdc++.so" not in content
    assert b"libgcc_s.so" not in content


def test_it_exports_two_functions() -> None:
    done = subprocess.run(
        ["nm", "-D", "--defined-only", native.library()], check=True, capture_output=True, text=True
    )
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    assert names == {"RegisterCustomOps", "bibench_instruction_sets"}


def test_the_fastest_instruction_set_comes_first_and_the_portable_one_last() -> None:
    sets = module.instruction_sets()
    assert sets[-1] == "portable"
    assert len(sets) == len(set(sets))


def test_a_library_that_was_not_built_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NAME", "libmissing.so")
    with pytest.raises(MissingLibraryError, match=r"install g\+\+.*targets\.native") as told:
        module.find_library()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"\x7fELF damaged", b"no library at all"])
def test_a_damaged_library_is_told_in_one_line(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / NAME
    path.write_bytes(content)
    monkeypatch.setattr(module, "find_library", lambda: path)
    with pytest.raises(MissingLibraryError, match="does not work here") as told:
        module.library.__wrapped__()
    assert "\n" not in str(told.value)


def test_a_wrong_instruction_set_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.VARIABLE, "mmx")
    with pytest.raises(MissingLibraryError) as told:
        module.library.__wrapped__()
    assert str(told.value).endswith("portable; unset BIBENCH_NATIVE_ISA, or name one of these")


def test_an_operator_that_computes_something_else_is_found_at_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = module.pack_signs

    def pack_wrongly(signs: np.ndarray) -> np.ndarray:
        return pack(-signs) if signs.ndim == 1 else pack(signs)

    monkeypatch.setattr(module, "pack_signs", pack_wrongly)
    with pytest.raises(MissingLibraryError, match="one operator gave"):
        module.library.__wrapped__()
