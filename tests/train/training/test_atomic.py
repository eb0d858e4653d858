import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_train.training.atomic import write_atomically


def test_writes_the_content_and_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_file_and_names_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill_disk_after: Callable[[pytest.MonkeyPatch, int], None],
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    fill_disk_after(monkeypatch, 0)
    with pytest.raises(OSError, match=r"a\.json") as caught:
        write_atomically(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    monkeypatch.setattr("bibench_train.training.atomic.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"
