"""An image file to the pixels that a network sees: decode, crop, resize.

Pixels are RGB bytes. Grey, palette and CMYK images are converted, transparency is dropped, 16-bit
grey keeps its upper byte. The orientation that EXIF notes is ignored, as the usual loaders do.
Resizing is bilinear, with antialiasing.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bibench_train.errors import DatasetError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""As Pillow names them. It knows others, some of which run a program to be read."""
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

AREA = (0.08, 1.0)
ASPECT_RATIO = (3 / 4, 4 / 3)
_TRIES = 10
_SHORT_SIDE = 256 / 224  # of the resized test image, to the crop out of its centre
_REDUCING_GAP = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 where at least this many times the output remains."""


def read_for_training(path: Path, size: int, random: Random) -> Tensor:
    """A random part of the image, resized, and mirrored half of the time.

    C. Szegedy et al. (2015), Going Deeper with Convolutions, section 6: 8 % to 100 % of the area,
    aspect ratio 3/4 to 4/3.

    Args:
        path: The file.
        size: Pixels of each side of the result.
        random: Draws the part and the mirroring.

    Returns:
        [size, size, 3] uint8.

    Raises:
        DatasetError: The file is damaged, too large, no image, or cannot be read.
    """
    with _opened(path) as image:
        box = random_box(image.width, image.height, random)
        scale = _draft(image, min(box[2] - box[0], box[3] - box[1]) / size)
        left, top, right, bottom = (edge * scale for edge in box)
        x, y = math.floor(left), math.floor(top)
        part = _rgb(image.crop((x, y, math.ceil(right), math.ceil(bottom))))
        inside = (left - x, top - y, right - x, bottom - y)
        part = part.resize((size, size), Image.Resampling.BILINEAR, inside)
        if random.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _pixels(part)


def read_for_testing(path: Path, size: int) -> Tensor:
    """The centre of the image, whose shorter side is first resized to 256/224 of `size`.

    As `read_for_training` in everything else.
    """
    with _opened(path) as image:
        short = round(size * _SHORT_SIDE)
        shorter = min(image.width, image.height)
        width, height = short * image.width // shorter, short * image.height // shorter
        left, top = round((width - size) / 2), round((height - size) / 2)
        x, y = image.width / width, image.height / height
        scale = _draft(image, shorter / short)
        x, y = x * scale, y * scale
        # Only what remains is computed: the rest of a very long image could fill the memory.
        right, bottom = min((left + size) * x, image.width), min((top + size) * y, image.height)
        box = (left * x, top * y, right, bottom)
        return _pixels(_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box))


def random_box(width: int, height: int, random: Random) -> tuple[int, int, int, int]:
    """A random part of an image, or the largest fitting centre where ten tries did not fit in.

    Returns:
        Left, top, right, bottom.
    """
    for _ in range(_TRIES):
        area = width * height * random.uniform(*AREA)
        ratio = math.exp(random.uniform(math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = random.randint(0, width - across), random.randint(0, height - down)
            return left, top, left + across, top + down
    across = max(min(width, round(height * ASPECT_RATIO[1])), 1)
    down = max(min(height, round(width / ASPECT_RATIO[0])), 1)
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _draft(image: Image.Image, reduction: float) -> float:
    """Let a large JPEG be decoded smaller; returns its scale: 1, 1/2, 1/4 or 1/8."""
    width, height = image.size
    factor = reduction / _REDUCING_GAP
    if image.format != "JPEG" or factor < 2:
        return 1.0
    drafted = image.draft(None, (math.ceil(width / factor), math.ceil(height / factor)))
    # Not the new width by the old one: it is rounded up, and would move the image by a pixel.
    return 1.0 if drafted is None else drafted[1][2] / width


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would cut everything above 255 off.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers of no known range; save it with 8 bits")
    return image.convert("RGB")


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Of odd metadata, on which no pixel depends. Too many pixels are an error here.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(
            f"{path}: more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, or made to look so; save "
            "it smaller, or delete it"
        ) from error
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path}: no image, or of none of the formats {', '.join(FORMATS)}; replace or delete "
            "it"
        ) from error
    except Exception as error:
        # Damaged files make decoders raise almost anything.
        if isinstance(error, OSError) and error.strerror:
            raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
        raise DatasetError(
            f"{path}: damaged ({' '.join(str(error).split())}); replace or delete it"
        ) from error
