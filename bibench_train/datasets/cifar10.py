"""CIFAR-10: 60 000 colour images of 32×32 pixels in 10 classes, in its binary release.

Source: A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images,
https://www.cs.toronto.edu/~kriz/cifar.html. The Python release is a pickle, which runs code when it
is read; the binary release is bytes: records of 1 label and 3072 pixels (red, green, blue planes).

Split: as published, 50 000 to train on and 10 000 to test. Training images are padded by 4 pixels,
cropped at random and mirrored half of the time.

The data lies in the folder given, or is downloaded once to `data/cifar10` in the current folder.
The archive's sha256 is compared before anything in it is read.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bibench_train.datasets._dataset import Dataset, ImagesInMemory, check_image_size
from bibench_train.errors import DatasetError
from bibench_train.training.atomic import write_atomically
from bibench_train.training.recipe import Recipe


@dataclass(frozen=True)
class Archive:
    """A file to download, and what it must be."""

    url: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    size_bytes=170_052_171,
)
DOWNLOAD_TO = Path("data/cifar10")
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORDS_PER_FILE = 10_000
_PIXELS = 3 * 32 * 32
_TIMEOUT_S = 30


def load(data: Path | None = None, image_size: int | None = None) -> Dataset:
    """The data set.

    Args:
        data: A folder with the six .bin files, with `cifar-10-batches-bin`, or with the archive;
            None uses `data/cifar10`, and downloads to it where it is missing.
        image_size: None or 32.

    Raises:
        DatasetError: The folder has none of these, the archive has another sha256, a file has
            another size, or the download failed. Or another image size than 32.
    """
    check_image_size("cifar10", image_size, 32)
    root = DOWNLOAD_TO if data is None else data
    folder = _find(root)
    if folder is None and data is None:
        _download(root)
        folder = _find(root)
    if folder is None:
        raise DatasetError(
            f"{root}: looked for {TRAIN_FILES[0]} … {TEST_FILES[0]} in it and in {FOLDER}/, and "
            f"for {ARCHIVE.name}, and found none; leave out --data to download CIFAR-10"
        )
    train_images, train_labels = _read(folder, TRAIN_FILES)
    test_images, test_labels = _read(folder, TEST_FILES)
    return ImagesInMemory(
        name="cifar10",
        num_classes=10,
        fp32_recipe=Recipe(),
        binary_recipe=Recipe(),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        crop_padding=4,
        is_flipped=True,
    )


def _find(root: Path) -> Path | None:
    for folder in (root, root / FOLDER):
        if any((folder / name).exists() for name in (*TRAIN_FILES, *TEST_FILES)):
            return folder
    archive = root / ARCHIVE.name
    return _unpack(archive, root / FOLDER) if archive.is_file() else None


def _download(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    target = root / ARCHIVE.name
    beside = root / f".{ARCHIVE.name}.tmp"
    print(
        f"downloading {ARCHIVE.url} ({ARCHIVE.size_bytes / 1e6:.0f} MB) to {root}", file=sys.stderr
    )
    try:
        with (
            urllib.request.urlopen(ARCHIVE.url, timeout=_TIMEOUT_S) as response,  # noqa: S310 - the URL is a constant of this file
            beside.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
        _check_sha256(beside)
        beside.replace(target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DatasetError(
            f"could not download {ARCHIVE.url} ({error}); fetch it by another way and give its "
            "folder with --data"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _check_sha256(archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != ARCHIVE.sha256:
        raise DatasetError(
            f"{archive} is not the published archive: sha256 {digest.hexdigest()[:12]}…, expected "
            f"{ARCHIVE.sha256[:12]}…; nothing of it was read; delete it and download it again"
        )


def _unpack(archive: Path, folder: Path) -> Path:
    _check_sha256(archive)
    wanted = (*TRAIN_FILES, *TEST_FILES)
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in wanted and member.isfile() and member.size == _file_bytes():
                    # Copied by content, so no path, link or mode of the archive is ever applied.
                    source = tar.extractfile(member)
                    if source is not None:
                        contents[name] = source.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{archive} is damaged ({error}); delete it and try again") from error
    missing = [name for name in wanted if name not in contents]
    if missing:
        raise DatasetError(
            f"{archive} holds no {', '.join(missing)} of {_file_bytes()} bytes; delete it and "
            "download it again"
        )
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return folder


def _file_bytes() -> int:
    return RECORDS_PER_FILE * (1 + _PIXELS)


def _read(folder: Path, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for name in names:
        path = folder / name
        if not path.is_file():
            raise DatasetError(f"{path} is missing; the other files of CIFAR-10 are there")
        size = path.stat().st_size
        if size != _file_bytes():
            raise DatasetError(
                f"{path} has {size} bytes, {_file_bytes()} were expected; delete it and unpack the "
                "archive again"
            )
        records = np.fromfile(path, np.uint8).reshape(RECORDS_PER_FILE, 1 + _PIXELS)
        if records[:, 0].max() > 9:
            raise DatasetError(f"{path} has the label {records[:, 0].max()}; labels are 0 to 9")
        labels.append(torch.from_numpy(records[:, 0].astype(np.int64)))
        planes = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32))
        images.append(planes.permute(0, 2, 3, 1))
    return torch.cat(images).contiguous(), torch.cat(labels)
