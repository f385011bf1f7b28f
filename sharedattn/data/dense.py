"""Images whose labels lie on them: masks of classes, and boxes of objects.

An image is resized to the network's size as a whole, whatever its own shape; masks are resized by
the nearest pixel, and boxes scaled. So overlaps of boxes are what they are on the image's own
pixels. In training, crops, flips and colour jitter come before, as the recipe says.

Shape letters: B batch, C channels, Y x X pixels, M most boxes of an image in a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torchvision.transforms import ColorJitter, RandomResizedCrop

from sharedattn.data.folders.boxes import Boxes
from sharedattn.data.folders.decode import ImageReadError, size_fault
from sharedattn.data.folders.readers import folder_reader
from sharedattn.data.images import ImageData
from sharedattn.data.labels import BOX_COLUMNS, CLASS_COLUMN, NO_BOX
from sharedattn.data.loader import ImageItems
from sharedattn.data.pixels import Pixels
from sharedattn.data.samples import Opened
from sharedattn.data.source import DataConfig, SplitName
from sharedattn.errors import InputError
from sharedattn.image_size import ImageSize
from sharedattn.recipe import Recipe

_NOT_SERVED = ("auto_augment", "random_erasing", "mixup", "cutmix")

Region = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in its pixels."""


class LabelKind(ABC):
    """How a kind of labels follows what is done to its image."""

    @abstractmethod
    def size(self, label: Any) -> tuple[int, int]:
        """Width and height of the image that a label is of."""

    @abstractmethod
    def resized(self, label: Any, region: Region, size: ImageSize) -> Any:
        """The label of a part of the image that is resized to a size."""

    @abstractmethod
    def flipped(self, label: Any) -> Any:
        """The label of the image whose left and right are exchanged."""

    @abstractmethod
    def joined(self, labels: Sequence[Any]) -> torch.Tensor:
        """The labels of a batch as a tensor; see `sharedattn.data.labels`."""


class MaskLabels(LabelKind):
    """Masks, of Pillow's mode `L`."""

    def size(self, label: Image.Image) -> tuple[int, int]:
        return label.size

    def resized(self, label: Image.Image, region: Region, size: ImageSize) -> Image.Image:
        return label.resize(size[::-1], Image.Resampling.NEAREST, box=region)

    def flipped(self, label: Image.Image) -> Image.Image:
        return label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def joined(self, labels: Sequence[Image.Image]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.asarray(label) for label in labels]))


class BoxLabels(LabelKind):
    """Boxes; of a part of an image, those whose centres lie in it, cut off at its edges."""

    def size(self, label: Boxes) -> tuple[int, int]:
        return label.size

    def resized(self, label: Boxes, region: Region, size: ImageSize) -> Boxes:
        left, top, right, bottom = region
        rows = label.rows.copy()
        centres = (rows[:, :2] + rows[:, 2:4]) / 2
        inside = ((centres >= (left, top)) & (centres < (right, bottom))).all(axis=1)
        scale = np.array([size.width / (right - left), size.height / (bottom - top)] * 2)
        limits = np.array([size.width, size.height] * 2)
        rows[:, :4] = ((rows[:, :4] - (left, top, left, top)) * scale).clip(0, limits)
        return Boxes((size.width, size.height), rows[inside])

    def flipped(self, label: Boxes) -> Boxes:
        rows = label.rows.copy()
        rows[:, [0, 2]] = label.size[0] - label.rows[:, [2, 0]]
        return Boxes(label.size, rows)

    def joined(self, labels: Sequence[Boxes]) -> torch.Tensor:
        most = max(1, *(len(label.rows) for label in labels))
        joined = np.zeros((len(labels), most, BOX_COLUMNS), dtype=np.float32)
        joined[..., CLASS_COLUMN] = NO_BOX
        for rows, label in zip(joined, labels, strict=True):
            rows[: len(label.rows)] = label.rows
        return torch.from_numpy(joined)


_KINDS: dict[str, LabelKind] = {"segment": MaskLabels(), "detect": BoxLabels()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done to an image in training; nothing by default.

    Attributes:
        hflip: probability of a horizontal flip.
        crop_scale_min: least share of the image's area in a random crop, 1 for no crop.
        color_jitter: strength of colour jitter.
    """

    hflip: float = 0.0
    crop_scale_min: float = 1.0
    color_jitter: float = 0.0

    def region(self, image: Image.Image, size: ImageSize) -> Region:
        """The part of the image that is used: all of it, or one about as wide as the network."""
        if self.crop_scale_min >= 1.0:
            return (0.0, 0.0, float(image.width), float(image.height))
        own = size.width / size.height
        top, left, height, width = RandomResizedCrop.get_params(
            image, scale=[self.crop_scale_min, 1.0], ratio=[3 / 4 * own, 4 / 3 * own]
        )
        return (float(left), float(top), float(left + width), float(top + height))


class LabelledItems(ImageItems):
    """Images and the labels on them, of one size.

    Args:
        read: as of `ImageItems`.
        kind: the kind of labels.
        size: the network's image size.
        interpolation: how images are resized, in timm's terms.
        augmentation: what is done in training.
    """

    def __init__(
        self,
        read: Callable[[SplitName, int], tuple[Any, Any]],
        kind: LabelKind,
        *,
        size: ImageSize,
        interpolation: str,
        augmentation: Augmentation,
    ) -> None:
        super().__init__(read, np.asarray)
        self._kind = kind
        self._size = size
        self._interpolation = str_to_pil_interp(interpolation)
        self._augmentation = augmentation
        jitter = augmentation.color_jitter
        self._jitter = ColorJitter(jitter, jitter, jitter) if jitter else None

    def transformed(self, image: Image.Image, label: Any) -> tuple[npt.NDArray[np.uint8], Any]:
        region = self._augmentation.region(image, self._size)
        image = image.resize(self._size[::-1], self._interpolation, box=region)
        label = self._kind.resized(label, region, self._size)
        if self._augmentation.hflip and torch.rand(()).item() < self._augmentation.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label = self._kind.flipped(label)
        if self._jitter is not None:
            image = self._jitter(image)
        pixels_YXC = np.asarray(image).reshape(*self._size, -1)
        return np.ascontiguousarray(pixels_YXC.transpose(2, 0, 1)), label

    def joined(self, labels: Sequence[Any]) -> torch.Tensor:
        return self._kind.joined(labels)


class DenseData(ImageData):
    """A folder of images and masks, or of images and boxes in COCO's format.

    Args:
        config: configuration of the data, with its task.

    Raises:
        InputError: no such folder, or its reader refuses what it holds.
    """

    def __init__(self, config: DataConfig) -> None:
        self.task = config.task
        self._kind = _KINDS[config.task]
        self.least_classes = 1 if config.task == "detect" else 2
        super().__init__(config)

    def _own_pixels(self) -> Pixels:
        # Whole: of what is cut off, nobody would know where it is or what it is.
        return replace(super()._own_pixels(), crop_pct=1.0, crop_mode="squash")

    def _open(self) -> Opened:
        return folder_reader(self.config).open(self.config)

    def class_counts(self, split: SplitName) -> None:
        """None: an image has no class."""

    def check_recipe(self, recipe: Recipe) -> None:
        for name in _NOT_SERVED:
            if value := getattr(recipe, name):
                raise InputError(
                    f"`{name}` of the recipe is {value!r}, which changes images without their "
                    f"masks or boxes; leave it out to {self.task}, or choose the recipe "
                    f"small-{self.task}"
                )

    def _train_data(self, recipe: Recipe) -> ImageItems:
        return self._items(
            Augmentation(
                hflip=recipe.hflip,
                crop_scale_min=recipe.crop_scale_min,
                color_jitter=recipe.color_jitter,
            )
        )

    def _eval_data(self) -> ImageItems:
        return self._items(Augmentation())

    def _items(self, augmentation: Augmentation) -> ImageItems:
        return LabelledItems(
            _Checked(self._read, self._kind),
            self._kind,
            size=self.image_size,
            interpolation=self._pixels.interpolation,
            augmentation=augmentation,
        )


@dataclass(frozen=True, slots=True)
class _Checked:
    """Reads images of the size that their labels are of."""

    read: Callable[[SplitName, int], tuple[Image.Image, Any]]
    kind: LabelKind

    def __call__(self, split: SplitName, index: int) -> tuple[Image.Image, Any]:
        image, label = self.read(split, index)
        size = self.kind.size(label)
        if image.size != size:
            raise ImageReadError(
                f"image {index:,} of {split} {size_fault('its label is of', size, image.size)}"
            )
        return image, label
