"""A folder of images with a mask of each: the class of every pixel.

    images/train/*.jpg   masks/train/*.png   classes.txt
    images/val/*.jpg     masks/val/*.png

An image and its mask have one name, apart from the ending, in folders of one name. `masks` may be
called `annotations` or `labels`, as ADE20K's are; splits are named and missing ones cut as in
folders of classes, and without folders of splits all is training data. A mask is a picture of 8
bits, grey or of a palette, whose values are the numbers of classes, or 255 where a pixel counts
nowhere. `classes.txt` names the classes, one a line; without it, they are the numbers from 0 to
the largest of the training masks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sharedattn.data.folders.data import Labels, open_listing
from sharedattn.data.folders.decode import (
    ImageReadError,
    image_formats,
    in_threads,
    shown,
    size_fault,
    upright_size,
)
from sharedattn.data.folders.listing import (
    SPLIT_OF,
    SPLITS,
    File,
    Listing,
    Problem,
    SplitFiles,
    Tree,
    Walk,
    listed,
)
from sharedattn.data.labels import IGNORED
from sharedattn.data.samples import (
    HASH_CONTENTS_BELOW_BYTES,
    FileSamples,
    Opened,
    hash_contents,
)
from sharedattn.data.source import LAYOUTS, DataConfig, SplitName
from sharedattn.errors import InputError

CLASSES_FILE = "classes.txt"
_IMAGE_FOLDERS = ("images",)
_MASK_FOLDERS = ("masks", "annotations", "labels")
_MASK_MODES = ("L", "P")


@dataclass(frozen=True, slots=True)
class MaskSamples(FileSamples):
    """Images with masks of the same size.

    Attributes:
        root: as in `FileSamples`, as are `paths`; `labels` are 0.
        mask_paths: paths of the masks below `root`.
        num_classes: number of classes.
    """

    mask_paths: Sequence[str]
    num_classes: int

    def label(self, index: int) -> Image.Image:
        """The mask of an image, of Pillow's mode `L`.

        Raises:
            ImageReadError: it cannot be read, or has a label beyond the classes.
        """
        path = self.root / self.mask_paths[index]
        mask = read_mask(path)
        if (fault := _label_fault(mask, self.num_classes)) is not None:
            raise ImageReadError(f"{shown(path)}: {fault}")
        return mask


@dataclass(frozen=True, slots=True)
class MaskListing:
    """The contents of a folder of images and masks.

    Attributes:
        images: the images; its classes are those of the masks.
        masks: path of each image's mask, by split, in the order of the images.
        sizes: bytes of each mask, by path.
    """

    images: Listing
    masks: dict[SplitName, tuple[str, ...]]
    sizes: dict[str, int]


def open_masks(config: DataConfig, listing: MaskListing) -> Opened:
    """Open the images and masks of a listing, without reading any that is not needed.

    Raises:
        InputError: as in `with_cuts`.
    """
    images = listing.images
    given = {
        split: MaskSamples(
            images.root, files.paths, files.labels, listing.masks[split], len(images.classes)
        )
        for split, files in images.splits.items()
    }
    sizes = sorted(listing.sizes.items())
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()

    def identity() -> str:
        if sum(listing.sizes.values()) >= HASH_CONTENTS_BELOW_BYTES:
            return digest
        return hash_contents(images.root, [path for path, _ in sizes])

    labels = Labels(digest=digest, identity=identity)
    return open_listing(config, images, dict(given), labels)


def list_masks(config: DataConfig) -> MaskListing:
    """List a folder of images and masks, and number its classes.

    Raises:
        InputError: the folder cannot be listed, has another layout, its splits are ambiguous, or
            its classes cannot be read; the message says what was found and what to do.
    """
    root = Path(config.name)
    walk = Walk(root, frozenset(config.left_out), read=frozenset({CLASSES_FILE}))
    top = walk.list_top()
    image_splits = splits_below(root, _only(root, top, _IMAGE_FOLDERS), config)
    mask_tree = _only(root, top, _MASK_FOLDERS)
    mask_splits = splits_below(root, mask_tree, config)
    if "train" not in image_splits:
        raise InputError(
            f"`--data`: {shown(root)} has no training split in images/; add a folder images/train/"
        )
    splits: dict[SplitName, SplitFiles] = {}
    masks: dict[SplitName, tuple[str, ...]] = {}
    sizes: dict[str, int] = {}
    for split in (split for split in SPLITS if split in image_splits):
        tree = image_splits[split]
        paired = _paired(walk, tree, mask_splits.get(split), mask_tree.path, config.left_out)
        splits[split] = SplitFiles.of(tree.path, [image for image, _ in paired], [0] * len(paired))
        masks[split] = tuple(mask.path for _, mask in paired)
        sizes |= {mask.path: mask.size for _, mask in paired}
    if not masks["train"]:
        raise InputError(
            f"`--data`: {shown(root)} has no training image with a mask; it is to hold "
            f"{LAYOUTS['segment']}"
        )
    listing = Listing(
        root=root,
        classes=_classes(config, root, masks["train"]),
        splits=splits,
        problems=tuple(sorted(walk.problems, key=lambda problem: problem.path)),
        notes=walk.notes(),
    )
    return MaskListing(listing, masks, sizes)


def mask_problems(listing: MaskListing) -> tuple[Problem, ...]:
    """Check every mask: it can be read, has its image's size, and labels of the classes alone."""
    images = listing.images
    pairs = [
        (images.root / image, mask)
        for split, files in images.splits.items()
        for image, mask in zip(files.paths, listing.masks[split], strict=True)
    ]

    def fault(pair: tuple[Path, str]) -> str | None:
        image, path = pair
        try:
            mask = read_mask(images.root / path)
        except ImageReadError as error:
            return str(error).removeprefix(f"{shown(images.root / path)}: ")
        try:
            size = upright_size(image)
        except ImageReadError:
            return None  # the scan of images says so
        if size != mask.size:
            return size_fault("its image", size, mask.size)
        return _label_fault(mask, len(images.classes))

    found = zip(pairs, in_threads(fault, pairs), strict=True)
    return tuple(Problem(shown(path), why) for (_, path), why in found if why is not None)


def read_mask(path: Path) -> Image.Image:
    """Decode a mask, without a change of its values.

    Returns:
        The mask, of Pillow's mode `L`.

    Raises:
        ImageReadError: it cannot be decoded, or has more than one channel or more than 8 bits.
    """
    try:
        with Image.open(path, formats=image_formats()) as mask:
            mask.load()
            mode = mask.mode
            values = np.asarray(mask)
    except Exception as error:  # Pillow's plugins have no common class
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ImageReadError(f"{shown(path)}: {why}") from error
    if mode not in _MASK_MODES:
        raise ImageReadError(
            f"{shown(path)}: is no mask of 8 bits, grey or of a palette, but of Pillow's mode "
            f"{mode}"
        )
    return Image.fromarray(values)


def _label_fault(mask: Image.Image, num_classes: int) -> str | None:
    """What is wrong with a mask's labels, or None."""
    labels = np.flatnonzero(mask.histogram())
    beyond = [int(label) for label in labels if num_classes <= label != IGNORED]
    if not beyond:
        return None
    return (
        f"has the label {beyond[0]}, but there are {num_classes} classes, numbered from 0, and "
        f"{IGNORED} for pixels that count nowhere"
    )


def _only(root: Path, top: Tree, names: Sequence[str]) -> Tree:
    """The one top folder of some names.

    Raises:
        InputError: there is none, or several.
    """
    found = [tree for name, tree in top.folders.items() if name.lower() in names]
    if len(found) != 1:
        have = listed(list(top.folders)) or "no folder"
        raise InputError(
            f"`--data`: {shown(root)} has {have}; to segment, it is to hold "
            f"{LAYOUTS['segment']}, with one folder {' or '.join(names)}"
        )
    return found[0]


def splits_below(root: Path, tree: Tree, config: DataConfig) -> dict[SplitName, Tree]:
    """The folders of splits below a folder; the whole is training data without any.

    Raises:
        InputError: two folders are of one split, or some of splits and some not.
    """
    splits: dict[SplitName, Tree] = {}
    for name, below in tree.folders.items():
        split = SPLIT_OF.get(name.lower())
        if split is None or not below.num_images:
            continue
        if split in splits:
            raise InputError(
                f"`--data`: {splits[split].path}/ and {below.path}/ of {shown(root)} are both "
                f"named as the {split} split; put their images together, or rename one"
            )
        splits[split] = below
    if not splits:
        return {"train": tree}
    others = [
        below.path
        for name, below in tree.folders.items()
        if name.lower() not in SPLIT_OF and below.num_images
    ]
    if others or tree.files:
        one = others[0] if others else tree.files[0].path
        raise InputError(
            f"`--data`: {shown(root / tree.path)} has images beside its splits, such as "
            f"{shown(one)}; put them into a split, or take them out"
        )
    if config.test_fraction == 0.0:
        splits.pop("test", None)
    return splits


def _paired(
    walk: Walk, images: Tree, masks: Tree | None, where: str, left_out: Sequence[str]
) -> list[tuple[File, File]]:
    """The images of a split with their masks, by path; an image without one is a problem."""
    by_stem: dict[str, File] = {}
    masks = masks if masks is not None else Tree(where)
    for mask in masks.all_files():
        stem = _stem(mask.path, masks.path)
        if stem in by_stem:
            other = shown(by_stem[stem].path)
            walk.problems.append(Problem(shown(mask.path), f"is a second mask beside {other}"))
        by_stem[stem] = mask
    gone = {str(PurePosixPath(path).with_suffix("")) for path in left_out}
    paired = []
    for image in sorted(images.all_files(), key=lambda file: file.path):
        stem = _stem(image.path, images.path)
        if stem in by_stem:
            paired.append((image, by_stem.pop(stem)))
        elif f"{masks.path}/{stem}" not in gone:
            walk.problems.append(Problem(shown(image.path), f"has no mask in {where}/"))
    if by_stem:
        one = next(iter(by_stem.values()))
        walk.said.append(f"{len(by_stem):,} masks without an image, such as {shown(one.path)}")
    return paired


def _stem(path: str, folder: str) -> str:
    """A file's path below a folder, without its ending."""
    return str(PurePosixPath(path).relative_to(folder).with_suffix(""))


def _classes(config: DataConfig, root: Path, masks: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes by number.

    Raises:
        InputError: the names cannot be read or repeat, or no training mask can.
    """
    if config.classes is not None:
        return config.classes
    file = root / CLASSES_FILE
    if file.is_file():
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"`--data`: {shown(file)} cannot be read: {error}") from error
        names = tuple(line.strip() for line in lines if line.strip())
        if len(set(names)) != len(names):
            raise InputError(f"`--data`: {shown(file)} names a class twice; name each once")
        return names

    def largest(path: str) -> int:
        try:
            labels = np.flatnonzero(read_mask(root / path).histogram())
        except ImageReadError:
            return -1  # the scan says so
        return int(max((label for label in labels if label != IGNORED), default=-1))

    return tuple(str(n) for n in range(1 + max(in_threads(largest, masks))))
