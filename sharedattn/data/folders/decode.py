"""Decode an image file to pixels of one mode, the same way for every reader.

Three things are fixed here that Pillow's `convert` leaves to the caller: the camera's orientation
is applied, transparency is blended with white, and grey values of 16 or 32 bits are scaled to 8
bits where `convert` would clip them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

# Formats that Pillow knows but does not decode by itself: EPS runs Ghostscript, the others have
# no decoder.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_ORIENTATION = 0x0112  # EXIF tag
_FIRST_TURNED = 5  # its values from here on exchange width and height
T = TypeVar("T")
R = TypeVar("R")
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Entries in which Pillow may keep an orientation, besides a TIFF file's own tags.
_CAMERA_DATA = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
_MOST_OF_16_BITS = 65_535


class ImageReadError(RuntimeError):
    """An image that cannot be read, or only ambiguously; the message names it and the reason."""


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the readable formats."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_DECODED))


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of files that count as images: lower case, with the dot."""
    formats = set(image_formats())
    return frozenset(s for s, name in Image.registered_extensions().items() if name in formats)


def read_image(path: str | Path, mode: str) -> Image.Image:
    """Decode an image file.

    Args:
        path: the file.
        mode: Pillow's mode of the result, `RGB` or `L`.

    Returns:
        The image, upright, with transparency on white.

    Raises:
        ImageReadError: it cannot be decoded completely, or the scale of its values is unknown.
    """
    try:
        with Image.open(path, formats=image_formats()) as image:
            return as_mode(image, mode)
    except ImageReadError as error:
        raise ImageReadError(f"{shown(path)}: {error}") from None
    # What Pillow's plugins raise on damaged files has no common class.
    except Exception as error:
        raise ImageReadError(f"{shown(path)}: {_reason(error)}") from error


def check_header(path: str | Path) -> None:
    """Check that a file begins as an image, without decoding its pixels.

    Raises:
        ImageReadError: it does not.
    """
    try:
        with Image.open(path, formats=image_formats()):
            pass
    except Exception as error:
        raise ImageReadError(f"{shown(path)}: {_reason(error)}") from error


def upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file as `read_image` gives it, by its header.

    Raises:
        ImageReadError: it does not begin as an image.
    """
    try:
        with Image.open(path, formats=image_formats()) as image:
            is_turned = _orientation(image) >= _FIRST_TURNED
            return image.size[::-1] if is_turned else image.size
    except Exception as error:
        raise ImageReadError(f"{shown(path)}: {_reason(error)}") from error


def size_fault(what: str, size: tuple[int, int], own: tuple[int, int]) -> str:
    """That a label is of another size than its image, both width and height."""
    return f"has {own[0]} x {own[1]} pixels (width x height), {what} {size[0]} x {size[1]}"


def in_threads(look: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What `look` says of each item, in order; threads suffice, as decoding frees the lock."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(look, items))


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an opened image to one mode: upright, on white, scaled to 8 bits.

    Args:
        image: opened by Pillow, decoded or not.
        mode: `RGB` or `L`.

    Raises:
        ImageReadError: the scale of its values is unknown.
    """
    image.load()
    file_format = image.format
    turn = _TRANSPOSED.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, file_format)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def shown(path: str | Path) -> str:
    """A path for messages and records, with bytes that are not UTF-8 as `\\xe9`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _orientation(image: Image.Image) -> int:
    # Check the metadata first: Pillow's own look-up takes a tenth of decoding a small image.
    if not hasattr(image, "tag_v2") and _CAMERA_DATA.isdisjoint(image.info):
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    # Damaged metadata says nothing about the pixels, which are intact.
    except Exception:
        return 1


def _eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """Scale an image of one deep channel to 8 bits.

    Raises:
        ImageReadError: the file does not tell the scale of its values.
    """
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0.0 or values.max() > 1.0:
            raise ImageReadError(
                f"floating-point pixels from {values.min():g} to {values.max():g} have no known "
                f"scale; save them as 8 or 16 bits, or scaled to 0..1"
            )
        return Image.fromarray(np.rint(values * 255.0).astype(np.uint8))
    # Pillow reads 16-bit PNG and PGM files as 32-bit integers.
    is_16_bit = image.mode != "I" or file_format in ("PNG", "PPM")
    if is_16_bit:
        # (v + 128) // 257 rounds v / 257, which takes 65,535 to 255.
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    unsigned = values.astype(np.int32).view(np.uint32)
    if unsigned.max() <= _MOST_OF_16_BITS:
        raise ImageReadError(
            f"32-bit integers of at most {int(unsigned.max()):,} have no known scale; save them "
            f"as 8 or 16 bits"
        )
    return Image.fromarray((unsigned >> 24).astype(np.uint8))


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    if isinstance(error, UnidentifiedImageError):
        return "is no image, or begins with a damaged header"
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"has more than {most:,} pixels, Pillow's limit; save it smaller"
    if isinstance(error, FileNotFoundError):
        return "is a link to nothing, or is no longer there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return text or type(error).__name__
