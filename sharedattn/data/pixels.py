"""Preprocessing of decoded images to network input, which belongs to the model.

A trained model has seen images resized, cropped and normalised in one way, and other preprocessing
lowers its accuracy. timm records the preprocessing with each set of weights, under their tag
(`vit_base_patch16_224.augreg2_in21k_ft_in1k`); the tags of one architecture may differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
CROP_PCT = 0.9  # share of the resized image's side that the evaluation crop keeps
SMALL_IMAGE_SIZE = 64  # pixels on a side; images up to this size are evaluated whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """How images are resized, cropped and normalised, in timm's terms.

    Attributes:
        mean: subtracted from channels scaled to 0..1, one number per channel.
        std: the divisors after that, one number per channel.
        interpolation: interpolation of every resize, one of `INTERPOLATIONS`.
        crop_pct: side of the evaluation crop over the side of the resized image, in (0, 1].
        crop_mode: `center` resizes the shorter edge and crops; `squash` resizes both edges,
            which changes the aspect ratio; `border` resizes the longer edge and pads with
            the mean.

    Raises:
        InputError: a value is out of its range; the message names it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = CROP_PCT
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        PixelChanges(**asdict(self))
        if len(self.mean) != len(self.std):
            raise InputError(
                f"`mean` has {len(self.mean)} numbers and `std` has {len(self.std)}; "
                f"give one a channel in both"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of every field, tuples as lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def changed(self, changes: PixelChanges) -> Pixels:
        """Apply the changes that are not None.

        Raises:
            InputError: a mean or std for another number of channels.
        """
        given = changes.given()
        for name in ("mean", "std"):
            numbers = given.get(name)
            if numbers is not None and len(numbers) not in (1, len(self.mean)):
                raise InputError(
                    f"`{name}` has {len(numbers)} numbers, but images have {len(self.mean)} "
                    f"channels; give one number, or one a channel"
                )
            if numbers is not None and len(numbers) == 1:
                given[name] = numbers * len(self.mean)
        return replace(self, **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelChanges:
    """Requested changes to a model's own pixels; None leaves a field as it is.

    Attributes:
        mean: one number, or one per channel.
        std: one number, or one per channel.
        interpolation: as in `Pixels`.
        crop_pct: as in `Pixels`.
        crop_mode: as in `Pixels`.

    Raises:
        InputError: a value is out of its range; the message names it.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            numbers = getattr(self, name)
            if numbers is None:
                continue
            if not isinstance(numbers, tuple) or not numbers or not all(map(is_finite, numbers)):
                raise InputError(
                    f"`{name}` is {numbers!r}; give finite numbers, one a channel, of images "
                    f"scaled to 0..1"
                )
            if min(numbers) <= least:
                raise InputError(f"`{name}` is {numbers!r}, and images are divided by it")
            if max(map(abs, numbers)) > 1.0:
                raise InputError(
                    f"`{name}` is {numbers!r}, of images scaled to 0..1; divide numbers of images "
                    f"scaled to 0..255 by 255"
                )
        if self.interpolation not in (None, *INTERPOLATIONS):
            raise InputError(
                f"`interpolation` is {self.interpolation!r}; choose one of "
                f"{', '.join(INTERPOLATIONS)}"
            )
        if self.crop_mode not in (None, *CROP_MODES):
            raise InputError(
                f"`crop_mode` is {self.crop_mode!r}; choose one of {', '.join(CROP_MODES)}"
            )
        if self.crop_pct is not None and not (is_finite(self.crop_pct) and 0 < self.crop_pct <= 1):
            raise InputError(
                f"`crop_pct` is {self.crop_pct!r}; give the share of the resized image's side "
                f"that is kept, above 0 and at most 1"
            )

    def given(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The fields that are not None, tuples as lists."""
        return {name: _plain(value) for name, value in self.given().items()}

    @classmethod
    def from_json(cls, document: Any) -> PixelChanges:
        """Invert `to_json`.

        Raises:
            InputError: not a mapping of the fields' names, or a value is out of its range.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(document, Mapping) or not set(document) <= set(names):
            raise InputError(
                f"`pixels` is {document!r}; give a mapping with some of {', '.join(names)}"
            )
        return cls(**{name: _tuple_of(name, value) for name, value in document.items()})


def default_pixels(image_size: ImageSize, in_chans: int) -> Pixels:
    """The default pixels of a model that is trained from scratch.

    Args:
        image_size: height and width in pixels; small images are evaluated whole.
        in_chans: 1 or 3.
    """
    return Pixels(
        mean=IMAGENET_MEAN if in_chans == 3 else (0.5,),
        std=IMAGENET_STD if in_chans == 3 else (0.5,),
        crop_pct=1.0 if max(image_size) <= SMALL_IMAGE_SIZE else CROP_PCT,
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tuple_of(name: str, value: Any) -> Any:
    if name in ("mean", "std") and value is not None:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value


def is_finite(value: object) -> bool:
    """Whether a value that was read is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
