"""A folder of images as a data set: reader 2, the current reader of folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharedattn.data.folders.listing import Listing, list_folder
from sharedattn.data.samples import (
    HASH_CONTENTS_BELOW_BYTES,
    FileSamples,
    Opened,
    Part,
    Samples,
    hash_contents,
    hash_members,
    with_cuts,
)
from sharedattn.data.source import DataConfig, SplitName


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What identifies labels that are no classes of whole images.

    Attributes:
        digest: a hash of them, without reading every file.
        identity: computes a hash of all that they say; slow.
    """

    digest: str
    identity: Callable[[], str]


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
    return open_listing(config, listing, dict(given))


def open_listing(
    config: DataConfig,
    listing: Listing,
    given: dict[SplitName, Samples],
    labels: Labels | None = None,
) -> Opened:
    """Open the images of a listing, with missing splits cut from train.

    Args:
        config: gives the shares to cut.
        listing: the images.
        given: those of each split, with their labels.
        labels: identity of labels that are no classes, or None.

    Raises:
        InputError: as in `with_cuts`.
    """
    # By which a split is cut: in proportion to classes, or of all images together.
    groups = listing.classes if labels is None else ("images",)
    parts, cuts = with_cuts(given, config, groups)
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
        identity=lambda: _identity(listing, parts, labels),
        label_digest="" if labels is None else labels.digest,
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


def _identity(
    listing: Listing, parts: dict[SplitName, Part], labels: Labels | None
) -> dict[str, Any]:
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
        **(
            {
                "class_counts": {
                    split: list(part.class_counts(len(listing.classes)))
                    for split, part in parts.items()
                }
            }
            if labels is None
            else {"labels": labels.identity()}
        ),
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
