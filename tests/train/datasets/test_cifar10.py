"""CIFAR-10 from a made archive of four images a file, served from this machine."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_train.datasets import cifar10
from bibench_train.datasets._dataset import ImagesInMemory, Shard
from bibench_train.errors import DatasetError

RECORDS = 4
NAMES = (*cifar10.TRAIN_FILES, *cifar10.TEST_FILES)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cifar10, "RECORDS_PER_FILE", RECORDS)
    monkeypatch.setattr(cifar10, "DOWNLOAD_TO", tmp_path / "downloaded")


def content(number: int) -> bytes:
    records = np.random.RandomState(number).randint(0, 256, (RECORDS, 3073)).astype(np.uint8)
    records[:, 0] %= 10
    return records.tobytes()


def write_files(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(content(number))
    return folder


def make_archive(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    with tarfile.open(path, "w:gz") as tar:
        for name, value in members.items():
            if isinstance(value, tarfile.TarInfo):
                tar.addfile(value)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(value)
            tar.addfile(info, io.BytesIO(value))
    return path.read_bytes()


def good_members() -> dict[str, bytes | tarfile.TarInfo]:
    return {f"{cifar10.FOLDER}/{name}": content(number) for number, name in enumerate(NAMES)}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "served"
    root.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root))) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def serve(
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    tmp_path: Path,
    members: dict[str, bytes | tarfile.TarInfo],
    sha256: str | None = None,
) -> None:
    archive = make_archive(tmp_path / "served" / "cifar-10-binary.tar.gz", members)
    digest = sha256 or hashlib.sha256(archive).hexdigest()
    url = f"{server}/cifar-10-binary.tar.gz"
    monkeypatch.setattr(cifar10, "ARCHIVE", cifar10.Archive(url, digest, len(archive)))


def check_images(dataset: object) -> None:
    assert isinstance(dataset, ImagesInMemory)
    assert dataset.train_images.shape == (5 * RECORDS, 32, 32, 3)
    assert dataset.test_images.shape == (RECORDS, 32, 32, 3)
    record = np.frombuffer(content(5), np.uint8)[:3073]
    assert dataset.test_labels[0] == record[0]
    # Planes of red, green and blue, each row by row.
    assert dataset.test_images[0, 1, 2].tolist() == [record[1 + 34 + c * 1024] for c in range(3)]


@pytest.mark.parametrize("inner", ["", cifar10.FOLDER])
def test_reads_the_files_in_the_folder_or_one_below(tmp_path: Path, inner: str) -> None:
    write_files(tmp_path / "given" / inner)
    check_images(cifar10.load(tmp_path / "given"))


def test_downloads_checks_and_unpacks_once(
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(monkeypatch, server, tmp_path, good_members())
    check_images(cifar10.load())
    assert "downloading http://127.0.0.1" in capsys.readouterr().err
    (tmp_path / "served" / "cifar-10-binary.tar.gz").unlink()
    check_images(cifar10.load())
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_archive_is_refused_before_it_is_opened(
    monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path
) -> None:
    serve(monkeypatch, server, tmp_path, good_members(), sha256="0" * 64)
    monkeypatch.setattr(tarfile, "open", lambda *_: pytest.fail("the archive was opened"))
    with pytest.raises(DatasetError, match=r"not the published archive: sha256 .* expected 0000"):
        cifar10.load()
    assert list((tmp_path / "downloaded").iterdir()) == []


def test_an_archive_in_the_given_folder_is_checked_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_archive(tmp_path / "cifar-10-binary.tar.gz", good_members())
    with pytest.raises(DatasetError, match="not the published archive"):
        cifar10.load(tmp_path)


def test_no_path_link_or_other_file_of_an_archive_is_applied(
    monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path
) -> None:
    link = tarfile.TarInfo(f"{cifar10.FOLDER}/readme.html")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = {"../../outside.bin": b"x", "/tmp/absolute.bin": b"x", "link": link}  # noqa: S108 - a member's name, never written
    serve(monkeypatch, server, tmp_path, members | good_members())
    check_images(cifar10.load())
    written = {p.name for p in (tmp_path / "downloaded").rglob("*") if p.is_file()}
    assert written == {*NAMES, "cifar-10-binary.tar.gz"}
    assert not list(tmp_path.rglob("outside.bin"))


def test_a_link_in_the_place_of_a_data_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path
) -> None:
    link = tarfile.TarInfo(f"{cifar10.FOLDER}/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = good_members()
    members[link.name] = link
    serve(monkeypatch, server, tmp_path, members)
    with pytest.raises(DatasetError, match=r"holds no test_batch\.bin"):
        cifar10.load()


def test_a_folder_of_another_form_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"a pickle of the Python release")
    with pytest.raises(DatasetError) as caught:
        cifar10.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "data_batch_1.bin" in str(caught.value)
    assert "cifar-10-batches-bin" in str(caught.value)


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(b"short")
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin has 5 bytes, 12292 were expected"):
        cifar10.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "data_batch_2.bin").unlink()
    with pytest.raises(DatasetError, match=r"data_batch_2\.bin is missing"):
        cifar10.load(tmp_path)


def test_labels_beyond_nine_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(bytes([10]) * RECORDS * 3073)
    with pytest.raises(DatasetError, match="has the label 10"):
        cifar10.load(tmp_path)


def test_a_server_that_does_not_answer_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = cifar10.Archive("http://127.0.0.1:9/cifar-10-binary.tar.gz", "0" * 64, 1)
    monkeypatch.setattr(cifar10, "ARCHIVE", archive)
    with pytest.raises(DatasetError, match="give its folder with --data"):
        cifar10.load()


def test_the_published_archive_is_named() -> None:
    assert cifar10.ARCHIVE.url.startswith("https://www.cs.toronto.edu/")
    assert len(cifar10.ARCHIVE.sha256) == 64


def test_the_images_reach_the_network(tmp_path: Path) -> None:
    dataset = cifar10.load(write_files(tmp_path))
    images, labels = next(dataset.train_batches(8, torch.Generator().manual_seed(0)))
    assert images.shape == (8, 3, 32, 32)
    assert labels.dtype == torch.int64


def test_another_image_size_is_refused_before_anything_is_downloaded() -> None:
    with pytest.raises(DatasetError, match="cifar10 has images of 32×32 pixels"):
        cifar10.load(image_size=224)


def test_a_sharded_epoch_is_the_whole_one_image_by_image(tmp_path: Path) -> None:
    dataset = cifar10.load(write_files(tmp_path))

    def epoch(shard: Shard) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(dataset.train_batches(8, torch.Generator().manual_seed(0), shard))

    whole, first, second = epoch(Shard()), epoch(Shard(0, 2)), epoch(Shard(1, 2))
    assert [len(labels) for _, labels in whole] == [8, 8, 4]
    for (images, labels), even, odd in zip(whole, first, second, strict=True):
        assert torch.equal(images[0::2], even[0])
        assert torch.equal(images[1::2], odd[0])
        assert torch.equal(labels[0::2], even[1])
        assert torch.equal(labels[1::2], odd[1])
