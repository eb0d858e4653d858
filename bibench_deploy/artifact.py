"""An exported model: a folder with the model's files and manifest.json.

The manifest's fields are listed in docs/pipeline.md. A folder appears whole or not at
all: it is written beside its place and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bibench_deploy.errors import ArtifactError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
ARTIFACT_KIND = "bibench-artifact"
TWIN_DIRECTORY = "fp32"
# What every step after the export relies on.
_FIELDS = {"name": str, "target": str, "role": str, "files": dict, "model_sha256": str,
           "size_bytes": int}  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """A folder of model files, and the manifest that describes and proves them.

    Attributes:
        directory: the folder.
        manifest: the content of manifest.json, as docs/pipeline.md lists it.
    """

    directory: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Artifact:
        """Read the manifest of an exported folder.

        Raises:
            ArtifactError: there is no manifest, or it is not one that this version reads.
        """
        path = directory / MANIFEST_NAME
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(
                f"{directory}: no readable {MANIFEST_NAME} ({error.strerror}); "
                "name a folder that bibench export wrote"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: not JSON ({error}); export the model again") from error
        if not isinstance(manifest, dict) or manifest.get("kind") != ARTIFACT_KIND:
            raise ArtifactError(
                f'{path}: its "kind" is not "{ARTIFACT_KIND}"; export the model again'
            )
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise ArtifactError(
                f"{path}: schema_version {manifest.get('schema_version')!r}, this bibench reads "
                f"{SCHEMA_VERSION}; export the model again"
            )
        missing = _FIELDS.keys() - manifest.keys()
        files = manifest.get("files")
        if missing or not isinstance(files, dict) or "model" not in files:
            lacks = ", ".join(sorted(missing)) or "files.model"
            raise ArtifactError(f"{path}: lacks {lacks}; export the model again")
        wrong = [name for name, kind in _FIELDS.items() if not isinstance(manifest[name], kind)]
        wrong += [f"files.{role}" for role, entry in files.items() if not isinstance(entry, dict)]
        if wrong:
            raise ArtifactError(f"{path}: {', '.join(wrong)} is damaged; export the model again")
        return cls(directory, manifest)

    @property
    def name(self) -> str:
        """What the model is called, for example resnet20-reactnet-digits."""
        return str(self.manifest["name"])

    @property
    def target(self) -> str:
        """The runtime that the files are for."""
        return str(self.manifest["target"])

    @property
    def role(self) -> str:
        """`model`, or `fp32_twin` for the same topology in float."""
        return str(self.manifest["role"])

    @property
    def size_bytes(self) -> int:
        """Size of the deployed model file alone."""
        return int(self.manifest["size_bytes"])

    @property
    def model_sha256(self) -> str:
        """Hash of the deployed model file."""
        return str(self.manifest["model_sha256"])

    @property
    def model_path(self) -> Path:
        """The deployed model file."""
        return self.path("model")

    def path(self, role: str) -> Path:
        """The file that plays `role`: model, keras or onnx.

        Raises:
            ArtifactError: the manifest has no such file, or names one outside its folder.
        """
        try:
            name = str(self.manifest["files"][role]["path"])
        except (KeyError, TypeError) as error:
            raise ArtifactError(f'{self.directory}: the manifest names no "{role}" file') from error
        if Path(name).name != name or name in ("", ".."):
            raise ArtifactError(f"{self.directory}: the manifest names {name}, outside its folder")
        return self.directory / name

    def check_files(self) -> None:
        """Check that every file is there and unchanged since the export.

        Raises:
            ArtifactError: a file is missing, or its sha256 is not the manifest's.
        """
        for role, entry in self.manifest["files"].items():
            path = self.path(role)
            if not path.is_file():
                raise ArtifactError(f"{path}: missing; export the model again")
            if sha256_of(path) != entry.get("sha256"):
                raise ArtifactError(
                    f"{path}: its sha256 is not the manifest's, so it is not the file that was "
                    "verified; export the model again"
                )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of one file: name, sha256 and size."""
    return {"path": path.name, "sha256": sha256_of(path), "size_bytes": path.stat().st_size}


def write_manifest(directory: Path, manifest: dict[str, Any]) -> Artifact:
    """Write manifest.json into a folder that already holds the files it names."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(directory / MANIFEST_NAME) as path:
        path.write_text(text, encoding="utf-8")
    return Artifact(directory, manifest)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Name the file in what a full disk raises: the system names it in `open` alone."""
    try:
        yield path
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def staged_directory(destination: Path) -> Iterator[Path]:
    """Give a scratch folder that takes the place of `destination` when the block succeeds.

    An artifact that was at `destination` is replaced; on any error, Ctrl-C included, it
    stays as it was, and the scratch folder goes with every folder that was made for it.
    A link stays a link: the folder that it points to is replaced.

    Raises:
        ArtifactError: `destination` exists and holds other files than an artifact's, so
            replacing it could lose somebody's files; or nothing can be made there.
    """
    named, destination = destination, Path(os.path.realpath(destination))
    _check_replaceable(destination, named)
    made = [parent for parent in destination.parents if not parent.exists()]
    with _making(named):
        destination.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        staged = scratch / "new"
        staged.mkdir()
        yield staged
        old = scratch / "old"
        _check_replaceable(destination, named)  # somebody may have put a file there meanwhile
        try:
            if destination.exists():
                destination.rename(old)
            staged.rename(destination)
        except BaseException:
            if old.exists() and not destination.exists():
                old.rename(destination)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # it holds the artifact, or what another run wrote
                parent.rmdir()


@contextlib.contextmanager
def _making(place: Path) -> Iterator[None]:
    """Refuse a place in a file system that makes no files for us, such as /proc."""
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{place}: nothing can be made there ({error.strerror}); choose another --out"
        ) from error


def _check_replaceable(directory: Path, named: Path) -> None:
    """Refuse to replace what is neither an empty folder nor an artifact alone.

    Args:
        directory: what would be replaced.
        named: the same place as the user named it.
    """
    if not os.path.lexists(directory):  # a link that leads nowhere is there
        return
    if not directory.is_dir() or (any(directory.iterdir()) and _written_files(directory) is None):
        raise ArtifactError(f"{named} exists and is not an exported folder; choose another --out")
    for other in _other_files(directory):
        raise ArtifactError(
            f"{named} holds {other.relative_to(directory)}, which bibench did not write; "
            "move it away or choose another --out"
        )


def _other_files(directory: Path) -> Iterator[Path]:
    """What lies in an artifact's folder, or in its twin's, and is named by no manifest."""
    written = _written_files(directory) or frozenset()
    for path in sorted(directory.iterdir()):
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and path.name == TWIN_DIRECTORY:
            yield from _other_files(path)
        elif is_folder or path.name not in written:
            yield path


def _written_files(directory: Path) -> frozenset[str] | None:
    """The names of an artifact's files; None where there is no artifact of any version."""
    try:
        manifest = json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or manifest.get("kind") != ARTIFACT_KIND:
        return None
    files = manifest.get("files")
    entries = files.values() if isinstance(files, dict) else ()
    names = {str(entry.get("path")) for entry in entries if isinstance(entry, dict)}
    return frozenset(names | {MANIFEST_NAME})


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place, then rename it: it appears whole or not at all.

    Raises:
        ArtifactError: nothing can be made there.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _making(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
