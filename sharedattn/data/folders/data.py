"""A folder of images as a data set: reader 2, the current reader of folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharedattn.data.folders.listing import Listing, list_folder
from sharedattn.data.samples import (
    HASH_CONTENTS_BELOW_BYTES,
    FileSamples,
    Opened,
    Part,
    hash_contents,
    hash_members,
    with_cuts,
)
from sharedattn.data.source import DataConfig, SplitName


def open_folder(config: DataConfig) -> Opened:
    """Open a folder of images, without decoding any.

    Raises:
        InputError: as in `list_folder` and `with_cuts`.
    """
    listing = listing_of(config)
    given = {
        split: FileSamples(listing.root, files.paths, files.labels)
        for split, files in listing.splits.items()
    }
    parts, cuts = with_cuts(dict(given), config, listing.classes)
    folders = {
        split: f"{files.folder}/" if files.folder else "the folder"
        for split, files in listing.splits.items()
    }
    return Opened(
        parts=parts,
        class_names=listing.classes,
        num_classes=len(listing.classes),
        origins=folders | {s: f"{share:.0%} of {folders['train']}" for s, share in cuts.items()},
        cuts=frozenset(cuts),
        notes=listing.notes,
        identity=lambda: _identity(listing, parts),
    )


def listing_of(config: DataConfig) -> Listing:
    """List the folder with the config's classes, without the files that it leaves out.

    Raises:
        InputError: as in `list_folder`.
    """
    return list_folder(
        Path(config.name),
        config.classes,
        config.left_out,
        without_test=config.test_fraction == 0.0,
    )


def _identity(listing: Listing, parts: dict[SplitName, Part]) -> dict[str, Any]:
    # The folder's own name is not included: a moved or renamed copy holds the same data.
    sizes = {
        path: int(size)
        for files in listing.splits.values()
        for path, size in zip(files.paths, files.sizes, strict=True)
    }
    paths = {split: _paths(part) for split, part in parts.items()}
    with_contents = sum(sizes.values()) < HASH_CONTENTS_BELOW_BYTES
    return {
        "reader": 2,
        "classes": list(listing.classes),
        "images": {split: len(part) for split, part in parts.items()},
        "class_counts": {
            split: list(part.class_counts(len(listing.classes))) for split, part in parts.items()
        },
        "files": {
            split: hash_members(
                (path, sizes[path], int(label))
                for path, label in zip(paths[split], part.labels, strict=True)
            )
            for split, part in parts.items()
        },
        "contents": (
            {split: hash_contents(listing.root, paths[split]) for split in parts}
            if with_contents
            else None
        ),
    }


def _paths(part: Part) -> list[str]:
    samples = part.samples
    assert isinstance(samples, FileSamples)
    return [samples.paths[index] for index in part.indices]
