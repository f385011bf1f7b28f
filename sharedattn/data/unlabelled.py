"""Images of any folder or named data set without their labels, for generators.

An image is resized as a whole and cut to the network's shape; its pixels go from -1 to 1 unless
`--mean` and `--std` say otherwise, since what is drawn has to be turned back into pixels. The
target of an image is its number in its split, by which evaluation draws its noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from sharedattn.data.folders.readers import folder_reader
from sharedattn.data.images import ImageData
from sharedattn.data.loader import ImageItems
from sharedattn.data.pixels import Pixels, default_pixels
from sharedattn.data.samples import Opened
from sharedattn.data.source import DataConfig, SplitName
from sharedattn.errors import InputError
from sharedattn.recipe import Recipe

_NOT_SERVED = ("auto_augment", "random_erasing", "mixup", "cutmix")


class UnlabelledData(ImageData):
    """A folder of images, or a named data set, whose labels are not used.

    Args:
        config: configuration of the data, with its task.

    Raises:
        InputError: as of `ImageData`; or `--classes`, which nothing is sorted by.
    """

    least_classes = 1

    def __init__(self, config: DataConfig) -> None:
        if config.classes is not None:
            raise InputError(
                f"`--classes` orders classes, but to {config.task} images have none; leave it out"
            )
        self.task = config.task
        super().__init__(config)
        self.num_classes = 1

    def _own_pixels(self) -> Pixels:
        halves = (0.5,) * self.in_chans
        pixels = default_pixels(self.image_size, self.in_chans)
        pixels = replace(pixels, mean=halves, std=halves, crop_pct=1.0)
        return pixels.changed(self.config.pixels)

    def _open(self) -> Opened:
        config = self.config
        return folder_reader(config).open(config) if config.is_folder else super()._open()

    @property
    def class_names(self) -> None:
        """None: an image has no class."""

    def class_counts(self, split: SplitName) -> None:
        """None: an image has no class."""

    def check_recipe(self, recipe: Recipe) -> None:
        for name in _NOT_SERVED:
            if value := getattr(recipe, name):
                raise InputError(
                    f"`{name}` of the recipe is {value!r}, which a generator would learn to draw; "
                    f"leave it out to {self.task}, or choose the recipe small-{self.task}"
                )

    def _train_data(self, recipe: Recipe) -> ImageItems:
        return ImageItems(_Numbered(self._read), self._train_transform(recipe))

    def _eval_data(self) -> ImageItems:
        return ImageItems(_Numbered(self._read), self._eval_transform())


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Reads images, each with its number in its split in place of its label."""

    read: Callable[[SplitName, int], tuple[Image.Image, Any]]

    def __call__(self, split: SplitName, index: int) -> tuple[Image.Image, int]:
        return self.read(split, index)[0], index
