"""The reader of a folder for each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sharedattn.data.folders.boxes import image_size_problems, list_boxes, open_boxes
from sharedattn.data.folders.data import listing_of, open_folder, open_listing
from sharedattn.data.folders.listing import Listing, Problem
from sharedattn.data.folders.masks import list_masks, mask_problems, open_masks
from sharedattn.data.folders.scan import refuse_problems
from sharedattn.data.folders.unlabelled import list_images
from sharedattn.data.samples import FileSamples, Opened
from sharedattn.data.source import LAYOUTS, DataConfig
from sharedattn.errors import InputError
from sharedattn.tasks import CLASSIFY, DENOISE


class FolderReader(Protocol):
    """Reads a folder of images and the labels of a task.

    All of its methods raise an `InputError` if the folder has another layout.
    """

    def listing(self, config: DataConfig) -> Listing:
        """The folder's images."""

    def label_problems(self, config: DataConfig) -> tuple[Problem, ...]:
        """Check every label, beyond what listing and opening check."""

    def open(self, config: DataConfig) -> Opened:
        """The data, without decoding any image.

        Raises:
            InputError: images or labels that the config does not leave out cannot be used.
        """


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """Folders of classes."""

    def listing(self, config: DataConfig) -> Listing:
        return listing_of(config)

    def label_problems(self, config: DataConfig) -> tuple[Problem, ...]:
        return ()

    def open(self, config: DataConfig) -> Opened:
        return open_folder(config)


@dataclass(frozen=True, slots=True)
class MaskFolders:
    """Images and masks."""

    def listing(self, config: DataConfig) -> Listing:
        return list_masks(config).images

    def label_problems(self, config: DataConfig) -> tuple[Problem, ...]:
        return mask_problems(list_masks(config))

    def open(self, config: DataConfig) -> Opened:
        listing = list_masks(config)
        refuse_problems(listing.images.problems)
        return open_masks(config, listing)


@dataclass(frozen=True, slots=True)
class BoxFolders:
    """Images and annotation files in COCO's format."""

    def listing(self, config: DataConfig) -> Listing:
        return list_boxes(config).images

    def label_problems(self, config: DataConfig) -> tuple[Problem, ...]:
        return image_size_problems(list_boxes(config))

    def open(self, config: DataConfig) -> Opened:
        listing = list_boxes(config)
        refuse_problems(listing.images.problems)
        return open_boxes(config, listing)


@dataclass(frozen=True, slots=True)
class AnyFolders:
    """Images that nothing is said of."""

    def listing(self, config: DataConfig) -> Listing:
        return list_images(config)

    def label_problems(self, config: DataConfig) -> tuple[Problem, ...]:
        return ()

    def open(self, config: DataConfig) -> Opened:
        listing = list_images(config)
        refuse_problems(listing.problems)
        given = {
            split: FileSamples(listing.root, files.paths, files.labels)
            for split, files in listing.splits.items()
        }
        return open_listing(config, listing, dict(given))


def folder_reader(config: DataConfig) -> FolderReader:
    """The reader of a folder for the config's task.

    Raises:
        InputError: the data is no folder, and its task needs one.
    """
    if config.task != CLASSIFY and not config.is_folder:
        raise InputError(
            f"`--data` {config.name!r} is no folder here; to {config.task}, name one that holds "
            f"{LAYOUTS[config.task]}"
        )
    readers: dict[str, FolderReader] = {
        CLASSIFY: ClassFolders(),
        "segment": MaskFolders(),
        "detect": BoxFolders(),
        DENOISE: AnyFolders(),
    }
    return readers[config.task]
