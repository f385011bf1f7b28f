"""The size of images in pixels."""

from __future__ import annotations

import re
from typing import NamedTuple

from sharedattn.errors import InputError

AnySize = int | tuple[int, int]
"""A size as it is given: the side of a square, or height and width."""


class ImageSize(NamedTuple):
    """Height and width of images.

    Attributes:
        height: pixels from top to bottom.
        width: pixels from left to right.
    """

    height: int
    width: int

    @classmethod
    def of(cls, size: AnySize) -> ImageSize:
        """Read a size.

        Args:
            size: the side of a square, or height and width.

        Raises:
            InputError: it is not one or two whole numbers above 0.
        """
        sides = (size, size) if type(size) is int else size
        if not isinstance(sides, tuple | list) or len(sides) != 2:
            raise _refused(size)
        if any(type(side) is not int or side < 1 for side in sides):
            raise _refused(size)
        return cls(*sides)

    @classmethod
    def parse(cls, text: str) -> ImageSize:
        """Read `224` or `800x1280`, height first.

        Raises:
            InputError: the text is neither.
        """
        match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip())
        if match is None:
            raise InputError(
                f"{text!r} is no image size; write pixels on a side, or height x width: 800x1280"
            )
        return cls.of((int(match[1]), int(match[2])) if match[2] else int(match[1]))

    @property
    def given(self) -> AnySize:
        """The shortest form of the same size: a number for a square."""
        return self.height if self.height == self.width else (self.height, self.width)

    @property
    def spaced(self) -> str:
        """`800 x 1280`, and `224 x 224` for a square."""
        return f"{self.height} x {self.width}"

    @property
    def num_pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    def to_json(self) -> int | list[int]:
        """A number for a square, else `[height, width]`; read again by `of`."""
        return self.height if self.height == self.width else [self.height, self.width]

    def __str__(self) -> str:
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"


def _refused(size: object) -> InputError:
    return InputError(
        f"`image_size` is {size!r}; it is a whole number of at least 1, or two of them, height "
        f"and width"
    )
