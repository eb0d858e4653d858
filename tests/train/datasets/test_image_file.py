import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bibench_train.datasets import _image_file
from bibench_train.datasets._image_file import random_box, read_for_testing, read_for_training
from bibench_train.errors import DatasetError

BILINEAR = Image.Resampling.BILINEAR


def photo(width: int, height: int) -> Image.Image:
    """Waves in three colours: every part looks different, and JPEG keeps them well."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + y / 23), np.cos(x / 31 - y / 7), np.sin((x + y) / 50)]
    return Image.fromarray((np.stack(waves, -1) * 110 + 128).astype(np.uint8))


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - no secret


def saved(folder: Path, image: Image.Image, name: str = "photo.png", **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_the_test_image_is_resized_whole_and_cropped_at_its_centre(tmp_path: Path) -> None:
    path = saved(tmp_path, photo(500, 375))
    whole = photo(500, 375).resize((341, 256), BILINEAR)
    left, top = round((341 - 224) / 2), round((256 - 224) / 2)
    expected = np.array(whole.crop((left, top, left + 224, top + 224))).astype(int)
    found = read_for_testing(path, 224)
    assert (found.shape, found.dtype) == ((224, 224, 3), torch.uint8)
    # Pillow rounds the coefficients of a filter, so that a few pixels differ by one.
    assert np.abs(found.numpy() - expected).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(500, 30), (30, 500), (1, 1), (2, 301), (224, 224)])
@pytest.mark.parametrize("size", [1, 3, 32, 65])
def test_images_of_every_shape_come_out_in_the_size_asked_for(
    tmp_path: Path, width: int, height: int, size: int
) -> None:
    path = saved(tmp_path, photo(width, height))
    assert read_for_testing(path, size).shape == (size, size, 3)
    for seed in range(5):
        assert read_for_training(path, size, seeded(seed)).shape == (size, size, 3)


def test_a_very_long_image_takes_no_more_memory_than_a_square_one(tmp_path: Path) -> None:
    # Resized whole it would be 256 × 25 million pixels.
    path = saved(tmp_path, Image.new("RGB", (100_000, 1), (9, 8, 7)))
    assert read_for_testing(path, 224).unique(dim=0).unique().tolist() == [7, 8, 9]


def test_the_training_image_is_its_random_box_resized_and_perhaps_mirrored(tmp_path: Path) -> None:
    image = photo(300, 200)
    path = saved(tmp_path, image)
    are_mirrored = set()
    for seed in range(20):
        found = read_for_training(path, 32, seeded(seed)).numpy()
        expected = np.array(
            image.crop(random_box(300, 200, seeded(seed))).resize((32, 32), BILINEAR)
        )
        is_mirrored = not np.array_equal(found, expected)
        assert np.array_equal(found[:, ::-1] if is_mirrored else found, expected)
        are_mirrored.add(is_mirrored)
    assert are_mirrored == {True, False}


def test_one_random_state_gives_one_image(tmp_path: Path) -> None:
    path = saved(tmp_path, photo(60, 40))
    first, again, other = (read_for_training(path, 16, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_boxes_have_the_area_and_the_shape_of_the_recipe() -> None:
    random = seeded(0)
    boxes = [random_box(1000, 1000, random) for _ in range(2000)]
    sizes = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes])
    areas, ratios = sizes.prod(1) / 1e6, sizes[:, 0] / sizes[:, 1]
    assert 0.079 < areas.min() < 0.1
    assert 0.9 < areas.max() <= 1
    assert 0.745 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.345
    # As many high boxes as wide ones: ratios are drawn on a logarithmic scale.
    assert 0.45 < (ratios > 1).mean() < 0.55
    lefts = {left for left, _, _, _ in boxes}
    assert min(lefts) < 10
    assert max(lefts) > 650
    assert all(left >= 0 and right <= 1000 for left, _, right, _ in boxes)
    assert all(top >= 0 and bottom <= 1000 for _, top, _, bottom in boxes)


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(1000, 30, (480, 0, 520, 30)), (30, 1000, (0, 480, 30, 520)), (1, 1, (0, 0, 1, 1))],
)
def test_where_no_box_fits_in_it_is_the_largest_centre(
    width: int, height: int, box: tuple[int, int, int, int]
) -> None:
    class Largest(Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    # The whole area at 4:3 is higher or wider than these images are.
    assert random_box(width, height, Largest(0)) == box


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("I;16", 77 * 256 + 9, (77, 77, 77)),
    ],
)
def test_pixels_are_rgb_whatever_the_file_holds(
    tmp_path: Path, mode: str, colour: Any, expected: tuple[int, int, int]
) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((9, 9), colour, np.uint16))
    else:
        image = Image.new(mode, (9, 9), colour)
    path = saved(tmp_path, image, "photo.tiff" if mode == "CMYK" else "photo.png")
    for pixels in (read_for_testing(path, 4), read_for_training(path, 4, seeded(0))):
        assert pixels.reshape(-1, 3).unique(dim=0).tolist() == [list(expected)]


def test_a_palette_with_transparency_gives_its_colours_without_a_word(tmp_path: Path) -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = saved(tmp_path, image, transparency=b"\x80\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_for_testing(path, 4)[0, 0].tolist() == [10, 20, 30]


def test_a_cmyk_jpeg_gives_its_colours(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "photo.jpg")
    red, green, blue = read_for_testing(path, 4)[0, 0].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


def test_the_orientation_that_exif_notes_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    plain = saved(tmp_path, photo(40, 40), "plain.jpg")
    turned = saved(tmp_path, photo(40, 40), "turned.jpg", exif=exif)
    assert torch.equal(read_for_testing(plain, 32), read_for_testing(turned, 32))


def test_metadata_that_makes_pillow_warn_is_read_in_silence(tmp_path: Path) -> None:
    # A tag that says it has more bytes than there are.
    tag = struct.pack("<HHLL", 0x011A, 5, 1, 65535)
    exif = b"Exif\x00\x00II*\x00" + struct.pack("<LH", 8, 1) + tag
    path = saved(tmp_path, photo(40, 40), "photo.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_for_testing(path, 32)


def difference(path: Path, read: Callable[[Path], torch.Tensor]) -> tuple[float, int]:
    fast = read(path).int()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_image_file, "_REDUCING_GAP", 1e9)  # decode everything at its full size
        exact = read(path).int()
    return float((fast - exact).abs().float().mean()), int((fast - exact).abs().max())


def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, photo(1601, 1203), "large.jpg", quality=95)
    sizes: list[tuple[int, int]] = []
    convert = _image_file._rgb
    monkeypatch.setattr(_image_file, "_rgb", lambda x: sizes.append(x.size) or convert(x))
    mean, largest = difference(path, lambda path: read_for_testing(path, 112))
    assert sizes == [(401, 301), (1601, 1203)]
    assert mean < 1
    assert largest <= 5
    mean, largest = difference(path, lambda path: read_for_training(path, 64, seeded(3)))
    assert 2 * sizes[2][0] - 1 <= sizes[3][0]
    assert min(sizes[2]) >= 2 * 64
    assert mean < 1
    assert largest <= 10


def test_a_photograph_of_the_usual_size_is_decoded_whole(tmp_path: Path) -> None:
    path = saved(tmp_path, photo(500, 375), "usual.jpg")
    assert difference(path, lambda path: read_for_testing(path, 224)) == (0, 0)
    assert difference(path, lambda path: read_for_training(path, 224, seeded(1))) == (0, 0)


def damaged_png() -> bytes:
    content = io.BytesIO()
    photo(40, 40).save(content, "PNG")
    return content.getvalue()[:60] + b"damaged" + content.getvalue()[67:]


def huge_png() -> bytes:
    """A few bytes that claim to be two billion pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 40_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )  # fmt: skip


def half_jpeg() -> bytes:
    content = io.BytesIO()
    photo(200, 200).save(content, "JPEG")
    return content.getvalue()[: len(content.getvalue()) // 2]


def float_tiff() -> bytes:
    content = io.BytesIO()
    Image.new("F", (4, 4)).save(content, "TIFF")
    return content.getvalue()


def postscript() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "EPS")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged_png(), "damaged"),
        (half_jpeg(), r"damaged \(.*truncated"),
        (b"", "no image, or of none of the formats BMP, GIF, JPEG"),
        (b"<html>404</html>", "no image, or of none of the formats"),
        (postscript(), "no image, or of none of the formats"),
        (huge_png(), "more than 89,478,485 pixels"),
        (float_tiff(), "its pixels are 32-bit numbers of no known range"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    for read in (read_for_testing, lambda path, size: read_for_training(path, size, seeded(0))):
        with pytest.raises(DatasetError, match=message) as caught:
            read(path, 32)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_an_image_that_is_large_but_no_bomb_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, photo(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DatasetError, match="more than 1,000 pixels"):
        read_for_testing(path, 32)


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.jpg: cannot be read \(No such file"):
        read_for_testing(tmp_path / "gone.jpg", 32)
