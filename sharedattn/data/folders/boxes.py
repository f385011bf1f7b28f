"""A folder in COCO's format: images, and annotation files that hold their boxes.

    annotations/instances_train.json   train/*.jpg
    annotations/instances_val.json     val/*.jpg

The files may have further letters after the split's name, as COCO's `instances_train2017.json` and
`train2017/`, and the folders may lie in `images/`. Missing splits are cut from train. Of an
annotation, `bbox` (x, y, width, height in pixels), `category_id` and `iscrowd` are read. Classes
are the categories of the training file by ascending id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sharedattn.data.folders.data import Labels, open_listing
from sharedattn.data.folders.decode import (
    ImageReadError,
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
    listed,
)
from sharedattn.data.labels import BOX_COLUMNS
from sharedattn.data.pixels import is_finite
from sharedattn.data.samples import FileSamples, Opened
from sharedattn.data.source import LAYOUTS, DataConfig, SplitName
from sharedattn.errors import InputError

_FILE_NAME = re.compile(r"instances_(([a-z]+).*)\.json", re.IGNORECASE)
_SLACK = 1.0  # pixels by which a box may leave its image, as COCO's own do by rounding


class Boxes(NamedTuple):
    """The boxes of an image.

    Attributes:
        size: width and height of the image in pixels.
        rows: (n, 6), float32, see `sharedattn.data.labels`.
    """

    size: tuple[int, int]
    rows: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BoxSamples(FileSamples):
    """Images with boxes.

    Attributes:
        root: as in `FileSamples`, as are `paths`; `labels` are 0.
        boxes: those of each image.
    """

    boxes: Sequence[Boxes]

    def label(self, index: int) -> Boxes:
        """The boxes of an image."""
        return self.boxes[index]


@dataclass(frozen=True, slots=True)
class BoxListing:
    """The contents of a folder of images and boxes.

    Attributes:
        images: the images; its classes are the categories.
        boxes: those of each image, by split, in the order of the images.
    """

    images: Listing
    boxes: dict[SplitName, tuple[Boxes, ...]]


def open_boxes(config: DataConfig, listing: BoxListing) -> Opened:
    """Open the images and boxes of a listing.

    Raises:
        InputError: as in `with_cuts`, or a split to measure on has no box.
    """
    images = listing.images
    given = {
        split: BoxSamples(images.root, files.paths, files.labels, listing.boxes[split])
        for split, files in images.splits.items()
    }
    seen = hashlib.sha256()
    for split, files in images.splits.items():
        for path, boxes in zip(files.paths, listing.boxes[split], strict=True):
            seen.update(f"{path!r} {boxes.size}\0".encode() + boxes.rows.tobytes())
    digest = seen.hexdigest()
    labels = Labels(digest=digest, identity=lambda: digest)
    opened = open_listing(config, images, dict(given), labels)
    for split, part in opened.parts.items():
        samples = part.samples
        assert isinstance(samples, BoxSamples)
        if not any(len(samples.boxes[index].rows) for index in part.indices):
            raise InputError(
                f"`--data`: the {split} split of {shown(images.root)} has no box; annotate some "
                f"of its images"
            )
    return opened


def list_boxes(config: DataConfig) -> BoxListing:
    """Read a folder's annotation files, and list the images that they name.

    Raises:
        InputError: the folder has another layout, an annotation file cannot be understood, or
            categories differ between splits; the message says what was found and what to do.
    """
    if config.classes is not None:
        raise InputError(
            "`--classes` orders the classes of folders, and annotation files in COCO's format "
            "number their own; leave it out"
        )
    root = Path(config.name)
    files = _annotation_files(root)
    if config.test_fraction == 0.0:
        files.pop("test", None)
    read = {split: _Annotations.read(root, name) for split, name in files.items()}
    categories = read["train"].categories
    number = {category: index for index, category in enumerate(sorted(categories))}
    _check_categories(read)
    splits: dict[SplitName, SplitFiles] = {}
    boxes: dict[SplitName, tuple[Boxes, ...]] = {}
    problems: list[Problem] = []
    split_of_path: dict[str, str] = {}
    for split, file in read.items():
        named = file.images_by_path(root, frozenset(config.left_out))
        for path in named:
            if split_of_path.setdefault(path, split) != split:
                raise InputError(
                    f"`--data`: {shown(path)} is in the {split_of_path[path]} and the {split} "
                    f"split; take it out of one of the annotation files"
                )
        kept = []
        for path, image in named.items():
            found = _look(root, path, file, image, number)
            if isinstance(found, Problem):
                problems.append(found)
            else:
                kept.append(found)
        splits[split] = SplitFiles.of(file.folder, [f for f, _ in kept], [0] * len(kept))
        boxes[split] = tuple(of_image for _, of_image in kept)
    listing = Listing(
        root=root,
        classes=tuple(categories[category] for category in sorted(categories)),
        splits=splits,
        problems=tuple(sorted(problems, key=lambda problem: problem.path)),
        notes=_notes(read),
    )
    return BoxListing(listing, boxes)


def image_size_problems(listing: BoxListing) -> tuple[Problem, ...]:
    """Check that every image has the size that its annotation file says."""
    images = listing.images
    pairs = [
        (path, boxes.size)
        for split, files in images.splits.items()
        for path, boxes in zip(files.paths, listing.boxes[split], strict=True)
    ]

    def fault(pair: tuple[str, tuple[int, int]]) -> str | None:
        path, size = pair
        try:
            own = upright_size(images.root / path)
        except ImageReadError:
            return None  # the scan of images says so
        return None if own == size else size_fault("its annotation file says", size, own)

    found = zip(pairs, in_threads(fault, pairs), strict=True)
    return tuple(Problem(shown(path), why) for (path, _), why in found if why is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Annotations:
    """An annotation file.

    Attributes:
        name: its path below the data's folder.
        folder: that of its images.
        categories: names by id.
        images: documents of the images by id.
        annotations: documents of the annotations by image id.
    """

    name: str
    folder: str
    categories: Mapping[int, str]
    images: Mapping[int, Mapping[str, Any]]
    annotations: Mapping[int, Sequence[Mapping[str, Any]]]

    @classmethod
    def read(cls, root: Path, name: str) -> _Annotations:
        """Read an annotation file.

        Raises:
            InputError: it cannot be read or understood, or its images are nowhere.
        """
        try:
            document = json.loads((root / name).read_text(encoding="utf-8"))
            if not isinstance(document, dict):
                raise InputError(
                    f"`--data`: {shown(root / name)} is not in COCO's format: it holds no object, "
                    f"with images, annotations and categories, but a JSON "
                    f"{'list' if isinstance(document, list) else 'value'}"
                )
            categories = {int(one["id"]): str(one["name"]) for one in document["categories"]}
            images = {int(one["id"]): one for one in document["images"]}
            of_image: dict[int, list[Mapping[str, Any]]] = {image: [] for image in images}
            for one in document["annotations"]:
                int(one["category_id"])
                of_image.setdefault(int(one["image_id"]), []).append(one)
        except (OSError, ValueError) as error:
            raise InputError(f"`--data`: {shown(root / name)} cannot be read: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"`--data`: {shown(root / name)} is not in COCO's format, with images, "
                f"annotations and categories: {error!r}"
            ) from error
        strangers = [image for image in of_image if image not in images]
        if strangers:
            raise InputError(
                f"`--data`: {shown(name)} annotates {len(strangers):,} images that it does not "
                f"list, the first with the id {strangers[0]}; add them, or take these out"
            )
        if len(images) != len(document["images"]) or len(set(categories.values())) != len(
            document["categories"]
        ):
            raise InputError(
                f"`--data`: {shown(name)} repeats an id of images or categories, or the name of "
                f"a category; give each its own"
            )
        return cls(
            name=name,
            folder=_image_folder(root, name),
            categories=categories,
            images=images,
            annotations=of_image,
        )

    def images_by_path(self, root: Path, left_out: frozenset[str]) -> dict[str, int]:
        """Ids of the images by path below the data's folder, ascending, without those left out.

        Raises:
            InputError: a file name leaves the folder, or repeats.
        """
        found: dict[str, int] = {}
        for image, document in self.images.items():
            name = PurePosixPath(str(document.get("file_name", "")))
            if name.is_absolute() or ".." in name.parts or not name.parts:
                raise InputError(
                    f"`--data`: {shown(self.name)} names the image {shown(str(name))!r}; give "
                    f"paths below {shown(self.folder)}/"
                )
            path = str(PurePosixPath(self.folder) / name)
            if path in found:
                raise InputError(
                    f"`--data`: {shown(self.name)} lists {shown(path)} twice; list each image once"
                )
            if shown(path) not in left_out:
                found[path] = image
        return dict(sorted(found.items()))

    def used(self) -> Counter[int]:
        """Number of annotations of each category."""
        return Counter(int(one["category_id"]) for of in self.annotations.values() for one in of)


def _annotation_files(root: Path) -> dict[SplitName, str]:
    """The annotation file of each split, by its path below the folder, train first.

    Raises:
        InputError: there is none for train, or several are of one split.
    """
    folder = root / "annotations"
    names = sorted(path.name for path in folder.glob("*.json")) if folder.is_dir() else []
    found: dict[SplitName, str] = {}
    for name in names:
        match = _FILE_NAME.fullmatch(name)
        split = None if match is None else SPLIT_OF.get(match[2].lower())
        if split is None:
            continue
        if split in found:
            raise InputError(
                f"`--data`: {found[split]} and annotations/{name} of {shown(root)} are both of "
                f"the {split} split; take one of them out"
            )
        found[split] = f"annotations/{name}"
    if "train" not in found:
        have = listed([f"annotations/{name}" for name in names]) or "no annotations/*.json"
        raise InputError(
            f"`--data`: {shown(root)} has {have}; to detect, it is to hold {LAYOUTS['detect']}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _image_folder(root: Path, name: str) -> str:
    """The folder of an annotation file's images below the data's folder.

    Raises:
        InputError: there is none.
    """
    match = _FILE_NAME.fullmatch(PurePosixPath(name).name)
    assert match is not None
    candidates = (match[1], f"images/{match[1]}", match[2], f"images/{match[2]}", "images")
    for folder in candidates:
        if (root / folder).is_dir():
            return folder
    raise InputError(
        f"`--data`: {shown(root)} has {name} and no folder {candidates[0]}/ or {candidates[1]}/ "
        f"with its images; add it"
    )


def _check_categories(read: Mapping[SplitName, _Annotations]) -> None:
    """Check that all splits have the categories of train, each with a box there.

    Raises:
        InputError: they have not; the message names the first and says how many.
    """
    train = read["train"]
    learnt = train.used()
    for file in read.values():
        known = train.categories
        strange = {c: n for c, n in file.used().items() if c not in known or not learnt[c]}
        if strange:
            category, count = next(iter(sorted(strange.items())))
            title = file.categories.get(category, "without a name")
            raise InputError(
                f"`--data`: {shown(file.name)} has {count:,} boxes of the category "
                f"{category} ({title}), of which {shown(train.name)} has none; {len(strange):,} "
                f"of its categories are so; annotate training images, or take these boxes out"
            )
        other = [c for c, title in file.categories.items() if c in known and known[c] != title]
        if other:
            raise InputError(
                f"`--data`: the category {other[0]} is {file.categories[other[0]]!r} in "
                f"{shown(file.name)} and {known[other[0]]!r} in {shown(train.name)}; give "
                f"both files the same categories"
            )


def _look(
    root: Path, path: str, file: _Annotations, image: int, number: Mapping[int, int]
) -> tuple[File, Boxes] | Problem:
    """An image's file and boxes, or why they cannot be used."""
    try:
        stat = (root / path).stat()
    except OSError:
        return Problem(shown(path), f"is named by {shown(file.name)}, but is not there")
    document = file.images[image]
    width, height = document.get("width"), document.get("height")
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        return Problem(shown(path), f"has no width and height in {shown(file.name)}")
    size, rows = (width, height), []
    for one in file.annotations[image]:
        row = _row(one, size, number)
        if isinstance(row, str):
            return Problem(shown(path), f"annotation {one.get('id', 'without id')}: {row}")
        rows.append(row)
    array = np.array(rows, dtype=np.float32).reshape(-1, BOX_COLUMNS)
    return File(path, stat.st_size, stat.st_mtime_ns), Boxes(size, array)


def _row(
    document: Mapping[str, Any], size: tuple[int, int], number: Mapping[int, int]
) -> list[float] | str:
    """A row of `Boxes`, or what is wrong with a box."""
    box = document.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return f"`bbox` is {box!r}, not [x, y, width, height]"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"the box {box} has no area"
    low, high = (x, y), (x + width, y + height)
    if min(low) < -_SLACK or any(
        end > side + _SLACK for end, side in zip(high, size, strict=True)
    ):
        return f"the box {box} leaves the image of {size[0]} x {size[1]} pixels (width x height)"
    x0, y0 = max(0.0, x), max(0.0, y)
    x1, y1 = (min(end, side) for end, side in zip(high, size, strict=True))
    if x1 <= x0 or y1 <= y0:
        return f"the box {box} has no area in the image of {size[0]} x {size[1]} pixels"
    return [x0, y0, x1, y1, number[int(document["category_id"])], bool(document.get("iscrowd"))]


def _notes(read: Mapping[SplitName, _Annotations]) -> tuple[str, ...]:
    """Numbers of boxes, and the categories without one."""
    counts = {split: sum(file.used().values()) for split, file in read.items()}
    notes = ["boxes: " + ", ".join(f"{split} {count:,}" for split, count in counts.items())]
    used = read["train"].used()
    unused = [title for category, title in read["train"].categories.items() if not used[category]]
    if unused:
        notes.append(f"{len(unused):,} categories without a box: {listed(unused)}")
    return tuple(notes)
