import errno
import io
import json
import os
from pathlib import Path

import pytest

from bibench_deploy.artifact import (
    MANIFEST_NAME,
    TWIN_DIRECTORY,
    Artifact,
    file_entry,
    sha256_of,
    staged_directory,
    write_manifest,
    write_text_atomically,
    writing,
)
from bibench_deploy.errors import ArtifactError

SHA = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180


def manifest_of(entry: dict) -> dict:
    return {
        "schema_version": 1,
        "kind": "bibench-artifact",
        "name": "tiny",
        "target": "lce",
        "role": "model",
        "source": {"kind": "callable"},
        "input": {"shape": [1, 8, 8, 3]},
        "files": {"model": entry},
        "model_sha256": entry["sha256"],
        "size_bytes": entry["size_bytes"],
        "verification": {"parity": None},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported folder: model.tflite, which holds "abc", and its manifest."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "model.tflite").write_text("abc")
    write_manifest(path, manifest_of(file_entry(path / "model.tflite")))
    return path


def files_below(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_a_file_is_described_by_name_hash_and_size(folder) -> None:
    assert file_entry(folder / "model.tflite") == {
        "path": "model.tflite", "sha256": SHA, "size_bytes": 3,
    }  # fmt: skip


def test_a_file_larger_than_a_block_has_the_same_hash_as_by_hand(tmp_path) -> None:
    import hashlib

    content = os.urandom(3 * 2**20 + 17)
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_an_artifact_reads_what_was_written(folder) -> None:
    artifact = Artifact.load(folder)
    assert (artifact.name, artifact.target, artifact.role) == ("tiny", "lce", "model")
    assert (artifact.size_bytes, artifact.model_sha256) == (3, SHA)
    assert artifact.model_path == folder / "model.tflite"
    artifact.check_files()


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"no readable manifest\.json \(No such file"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("\udcff", "not JSON"),
        ("[]", 'its "kind" is not "bibench-artifact"'),
        ('{"kind": "bibench-run"}', 'its "kind" is not "bibench-artifact"'),
        ('{"kind": "bibench-artifact"}', "schema_version None, this bibench reads 1"),
        ('{"kind": "bibench-artifact", "schema_version": 2}', "schema_version 2"),
        (
            '{"kind": "bibench-artifact", "schema_version": 1, "name": "a", "target": "lce"}',
            "role",
        ),
    ],
)
def test_a_damaged_manifest_is_told(content, words, tmp_path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError) as raised:
        Artifact.load(tmp_path)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"files": {}}, "files"),
        ({"files": []}, "files"),
        ({"files": None}, "files"),
        ({"files": {"keras": {"path": "model.keras"}}}, "files"),
        ({"files": {"model": "model.tflite"}}, "files.model"),
        ({"size_bytes": "large"}, "size_bytes"),
        ({"name": 3}, "name"),
    ],
)
def test_the_first_damaged_field_is_named(change, field, folder) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text()) | change
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=rf"{field}\W.*export the model again"):
        Artifact.load(folder)


def test_a_manifest_nested_beyond_reason_is_told(folder) -> None:
    (folder / MANIFEST_NAME).write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="not JSON"):
        Artifact.load(folder)


def test_a_role_that_the_manifest_has_not_is_named(folder) -> None:
    with pytest.raises(ArtifactError, match='names no "keras" file'):
        Artifact.load(folder).path("keras")


@pytest.mark.parametrize("name", ["../model.tflite", "/etc/passwd", "a/b", "..", ".", ""])
def test_a_manifest_cannot_name_a_file_outside_its_folder(name, folder) -> None:
    artifact = Artifact.load(folder)
    artifact.manifest["files"]["model"]["path"] = name
    with pytest.raises(ArtifactError, match="outside its folder"):
        _ = artifact.model_path


def test_a_changed_file_is_told(folder) -> None:
    artifact = Artifact.load(folder)
    (folder / "model.tflite").write_text("abd")
    with pytest.raises(ArtifactError, match="not the file that was verified"):
        artifact.check_files()


def test_a_file_without_a_hash_is_not_verified(folder) -> None:
    artifact = Artifact.load(folder)
    del artifact.manifest["files"]["model"]["sha256"]
    with pytest.raises(ArtifactError, match="not the file that was verified"):
        artifact.check_files()


def test_a_file_that_is_gone_is_told(folder) -> None:
    artifact = Artifact.load(folder)
    (folder / "model.tflite").unlink()
    with pytest.raises(ArtifactError, match=r"model\.tflite: missing"):
        artifact.check_files()


def test_a_manifest_holds_no_number_that_json_has_not(tmp_path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, {"error": float("nan")})


def test_a_staged_folder_appears_whole(tmp_path) -> None:
    place = tmp_path / "deep" / "out"
    with staged_directory(place) as scratch:
        (scratch / "model").write_text("new")
        assert not place.exists()
    assert files_below(tmp_path) == {"deep/out/model": b"new"}


def test_a_folder_that_others_may_read_stays_so(tmp_path) -> None:
    (tmp_path / "plain").mkdir()
    with staged_directory(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_artifact_that_was_there_is_replaced(folder) -> None:
    with staged_directory(folder) as scratch:
        (scratch / "other").write_text("new")
        assert (folder / "model.tflite").exists()
    assert files_below(folder.parent) == {"out/other": b"new"}


def test_an_empty_folder_is_filled(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    with staged_directory(tmp_path / "out") as scratch:
        (scratch / "model").write_text("new")
    assert files_below(tmp_path) == {"out/model": b"new"}


@pytest.mark.parametrize("is_file", [True, False])
def test_somebodys_files_are_never_replaced(is_file, tmp_path) -> None:
    place = tmp_path / "out"
    if is_file:
        place.write_text("thesis")
    else:
        place.mkdir()
        (place / "thesis").write_text("thesis")
    before = files_below(tmp_path)
    with (
        pytest.raises(ArtifactError, match="is not an exported folder; choose another --out"),
        staged_directory(place),
    ):
        pytest.fail("the block must not run")
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    ['{"name": "my app", "icons": []}', '{"kind": "bibench-run"}', "[]", "not json", "[" * 100_000],
)
def test_a_folder_with_a_manifest_of_something_else_is_never_replaced(content, tmp_path) -> None:
    place = tmp_path / "extension"
    place.mkdir()
    (place / "thesis").write_text("thesis")
    (place / MANIFEST_NAME).write_text(content)
    before = files_below(tmp_path)
    with (
        pytest.raises(ArtifactError, match="is not an exported folder; choose another --out"),
        staged_directory(place),
    ):
        pytest.fail("the block must not run")
    assert files_below(tmp_path) == before


@pytest.fixture
def folder_with_twin(folder) -> Path:
    twin = folder / TWIN_DIRECTORY
    twin.mkdir()
    (twin / "model.tflite").write_text("abc")
    write_manifest(twin, manifest_of(file_entry(twin / "model.tflite")))
    return folder


def test_an_artifact_with_its_twin_is_replaced(folder_with_twin) -> None:
    with staged_directory(folder_with_twin) as scratch:
        (scratch / "other").write_text("new")
    assert files_below(folder_with_twin) == {"other": b"new"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("thesis", "thesis"),
        ("notes/thesis", "notes"),
        ("fp32/thesis", "fp32/thesis"),
        ("fp32/notes/thesis", "fp32/notes"),
        ("fp32/fp32/thesis", "fp32/fp32/thesis"),
    ],
)
def test_a_file_beside_an_artifact_is_told_and_kept(name, told, folder_with_twin) -> None:
    folder = folder_with_twin
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("thesis")
    before = files_below(folder)
    with (
        pytest.raises(ArtifactError, match=f"holds {told}, which bibench did not write; move it"),
        staged_directory(folder),
    ):
        pytest.fail("the block must not run")
    assert files_below(folder) == before


def test_a_file_that_comes_while_the_block_runs_is_kept(folder) -> None:
    def export() -> None:
        with staged_directory(folder) as scratch:
            (scratch / "model").write_text("new")
            (folder / "thesis").write_text("thesis")

    with pytest.raises(ArtifactError, match="holds thesis, which bibench did not write"):
        export()
    assert files_below(folder)["thesis"] == b"thesis"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out"]


def test_a_file_of_another_version_of_bibench_is_replaced(folder) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text()) | {"schema_version": 99}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    with staged_directory(folder) as scratch:
        (scratch / "other").write_text("new")
    assert files_below(folder) == {"other": b"new"}


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_the_folder_that_it_points_to_is_written(is_there, tmp_path) -> None:
    if is_there:
        (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with staged_directory(tmp_path / "out") as scratch:
        (scratch / "model").write_text("new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "model").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out"]


def test_links_that_lead_to_each_other_are_refused(tmp_path) -> None:
    (tmp_path / "out").symlink_to("back")
    (tmp_path / "back").symlink_to("out")
    with (
        pytest.raises(ArtifactError, match="out exists and is not an exported folder"),
        staged_directory(tmp_path / "out"),
    ):
        pytest.fail("the block must not run")


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """A place in a folder that makes nothing, as /proc does for whoever may write to it."""
    place, mkdir, open_ = tmp_path / "proc" / "x", os.mkdir, io.open
    place.parent.mkdir()

    def refused(call):
        def maybe(path, *arguments, **keywords):
            if str(path).startswith(f"{place.parent}{os.sep}"):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            return call(path, *arguments, **keywords)

        return maybe

    monkeypatch.setattr(os, "mkdir", refused(mkdir))
    monkeypatch.setattr(io, "open", refused(open_))
    return place


@pytest.mark.parametrize("name", ["", "deep/out"])
def test_a_place_where_nothing_can_be_made_is_refused(name, nowhere) -> None:
    place = nowhere / name
    words = r"x.*: nothing can be made there \(No such file or directory\); choose another --out"
    with pytest.raises(ArtifactError, match=words), staged_directory(place):
        pytest.fail("the block must not run")
    with pytest.raises(ArtifactError, match=words):
        write_text_atomically(place, "text")


FAILURES = [ValueError("half-way"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failure_leaves_no_folder_that_was_made_for_it(error, tmp_path) -> None:
    (tmp_path / "there").mkdir()
    with (
        pytest.raises(type(error)),
        staged_directory(tmp_path / "there" / "deep" / "deeper" / "out"),
    ):
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failure_half_way_leaves_what_was_there(error, folder) -> None:
    before = files_below(folder.parent)

    def export() -> None:
        with staged_directory(folder) as scratch:
            (scratch / "model").write_text("half")
            raise error

    with pytest.raises(type(error)):
        export()
    assert files_below(folder.parent) == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out"]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failure_while_replacing_brings_the_old_artifact_back(error, folder, monkeypatch) -> None:
    before = files_below(folder.parent)
    rename = Path.rename

    def fail_for_the_new_one(self, target):
        if self.name == "new":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(type(error)), staged_directory(folder) as scratch:
        (scratch / "model").write_text("new")
    assert files_below(folder.parent) == before


def test_a_text_appears_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    path = tmp_path / "deep" / "report.md"
    write_text_atomically(path, "old ü\n")
    assert path.read_text(encoding="utf-8") == "old ü\n"

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_text_atomically(path, "new")
    monkeypatch.undo()
    assert files_below(tmp_path) == {"deep/report.md": "old ü\n".encode()}


def test_a_full_disk_names_the_file_that_was_being_written(tmp_path) -> None:
    with pytest.raises(OSError, match="No space left on device") as raised, writing(tmp_path / "m"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "m")


def test_a_file_that_the_system_named_keeps_its_name(tmp_path) -> None:
    with pytest.raises(FileNotFoundError) as raised, writing(tmp_path / "m") as path:
        path.with_name("other").read_text()
    assert raised.value.filename == str(tmp_path / "other")
