"""List a folder of images as splits of labelled files, in one order on every disk.

A split is a folder with a split's name (`train`, `Val`, `Testing`) in any case; each folder below
it is a class, with all images below that. If no folder has a split's name, the top folders are the
classes and everything is the training split.

Names are ordered by code point, so that class numbers and cuts do not depend on disk or locale.
Hidden files are left out, and links are followed once. Ambiguous folders are refused, with what
was found; files that were left out are reported.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sharedattn.data.folders.decode import ImageReadError, check_header, image_suffixes, shown
from sharedattn.data.source import SplitName
from sharedattn.errors import InputError

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

SPLIT_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
# Files that systems write beside a user's own, apart from names that begin with a dot.
_SYSTEM_NAMES = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"}
)
# Pictures and films in formats that Pillow does not decode; they may belong to a class.
_UNREAD_SUFFIXES = frozenset(
    ".heic .heif .jxl .svg .eps .ai .cr2 .cr3 .nef .arw .dng .raf .orf .rw2 .raw .exr .hdr .dcm"
    " .npy .mp4 .mov .avi .mkv .webm .wmf .emf".split()
)
MAX_NAMED = 10  # entries that a message lists


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that may be an image and cannot be used as one.

    Attributes:
        path: path below the folder, with `/`.
        reason: what is wrong with it.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The images of one split.

    Attributes:
        folder: the split's folder below the data's folder; empty for that folder itself.
        paths: paths below the data's folder, with `/`, ascending by code point.
        labels: (n,), int64, the class of each image.
        sizes: (n,), int64, bytes of each file.
        times_ns: (n,), int64, modification time of each file.
    """

    folder: str
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    times_ns: npt.NDArray[np.int64]

    @classmethod
    def of(cls, folder: str, files: Sequence[File], labels: Sequence[int]) -> SplitFiles:
        """The split of some files in their order, with the class of each."""
        return cls(
            folder=folder,
            paths=tuple(file.path for file in files),
            labels=np.array(labels, dtype=np.int64),
            sizes=np.array([file.size for file in files], dtype=np.int64),
            times_ns=np.array([file.time_ns for file in files], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """The contents of a folder, before any image is decoded.

    Attributes:
        root: the folder.
        classes: names, in the order of their numbers.
        splits: the existing splits, `train` among them.
        problems: files that may be images and cannot be used.
        notes: remarks, such as on files that were left out, one sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[SplitName, SplitFiles]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def list_folder(
    root: Path,
    classes: Sequence[str] | None = None,
    left_out: Sequence[str] = (),
    *,
    without_test: bool = False,
) -> Listing:
    """List a folder of images.

    Args:
        root: the folder.
        classes: names of the classes in the order of their numbers; defaults to those of train,
            sorted by code point.
        left_out: paths, as in `Problem.path`, to treat as absent.
        without_test: whether to ignore a test split, such as one without labels.

    Raises:
        InputError: the folder cannot be listed, its splits or classes are ambiguous, or a class
            has no training images; the message says what was found and what to do.
    """
    walk = Walk(root, frozenset(left_out))
    top = walk.list_top()
    splits = _splits_of(top)
    if splits is None:
        _refuse_splits_below(top)
        trees: dict[SplitName, Tree] = {"train": Tree("", top.folders, top.files)}
    else:
        trees = {split: splits[split] for split in SPLITS if split in splits}
        walk.note_beside_splits(top, splits)
        if without_test and (test := trees.pop("test", None)) is not None:
            walk.said.append(f"{test.path}/ was left out, as no test split is asked for")
    if "train" not in trees:
        folders = ", ".join(f"{tree.path}/" for tree in trees.values())
        raise InputError(
            f"`--data`: {shown(root)} has {folders} and no training split; add a folder train/, "
            f"or name the folder of classes itself to have it cut"
        )
    names = _class_names(walk, trees, classes)
    parts = {split: walk.files_of(tree, names) for split, tree in trees.items()}
    return Listing(
        root=root,
        classes=names,
        splits=parts,
        problems=tuple(sorted(walk.problems, key=lambda problem: problem.path)),
        notes=walk.notes(),
    )


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be an image.

    Attributes:
        path: path below the data's folder, with `/`.
        size: bytes.
        time_ns: modification time.
    """

    path: str
    size: int
    time_ns: int


@dataclass(slots=True)
class Tree:
    """A folder: its subfolders by name, and its images.

    Attributes:
        path: path below the data's folder, with `/`.
        folders: subfolders by name.
        files: images in the folder itself, by name.
    """

    path: str
    folders: dict[str, Tree] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)

    def all_files(self) -> Iterator[File]:
        """Yield every image below."""
        yield from self.files
        for folder in self.folders.values():
            yield from folder.all_files()

    @property
    def num_images(self) -> int:
        """Number of images below."""
        return len(self.files) + sum(folder.num_images for folder in self.folders.values())


class Walk:
    """One pass over a folder, which records its findings.

    Args:
        root: the folder.
        left_out: paths, as in `Problem.path`, to treat as absent.
        read: paths of files that are read otherwise, and are nothing to remark on.

    Attributes:
        problems: files that may be images and cannot be used.
        left_out: the paths of `left_out` that were found.
        said: remarks, one sentence each.
    """

    def __init__(
        self, root: Path, left_out: frozenset[str], read: frozenset[str] = frozenset()
    ) -> None:
        self.root = root
        self._read = read
        self.problems: list[Problem] = []
        self._left_out = left_out
        self.left_out: list[str] = []
        self._seen: dict[tuple[int, int], str] = {}
        self._files: dict[tuple[int, int], str] = {}
        self._hidden = 0
        self._other: Counter[str] = Counter()
        self.said: list[str] = []

    def list_top(self) -> Tree:
        """The folder itself; once.

        Raises:
            InputError: it cannot be listed, or holds a folder twice by a link.
        """
        return self._list("", (), os.stat(self.root))

    def notes(self) -> tuple[str, ...]:
        """Remarks on what was left out, one sentence each."""
        notes = list(self.said)
        if self._hidden:
            notes.append(f"{counted(self._hidden, 'hidden file', 'hidden files')} left out")
        if self._other:
            kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in self._other.most_common(5))
            files = counted(
                self._other.total(), "file that is no image", "files that are no images"
            )
            notes.append(f"{files} left out: {kinds}")
        if self.left_out:
            notes.append(
                f"{counted(len(self.left_out), 'image')} left out that cannot be used, such as "
                f"{self.left_out[0]}"
            )
        return tuple(notes)

    def note_beside_splits(self, top: Tree, splits: dict[SplitName, Tree]) -> None:
        """Report what lies beside the splits; refuse images there, which may belong to one."""
        used = {tree.path for tree in splits.values()}
        for name, tree in top.folders.items():
            if name in used:
                continue
            if tree.num_images:
                raise InputError(
                    f"`--data`: {shown(self.root)} has {shown(name)}/ with {tree.num_images:,} "
                    f"images beside {', '.join(f'{path}/' for path in sorted(used))}; name it "
                    f"train, val or test, or take it out of the folder"
                )
            self.said.append(f"{shown(name)}/ has no images and was left out")
        if top.files:
            self.said.append(
                f"{counted(len(top.files), 'image')} beside the splits left out, such as "
                f"{shown(top.files[0].path)}"
            )

    def files_of(self, split: Tree, classes: tuple[str, ...]) -> SplitFiles:
        """The labelled images of a split; an image outside the classes' folders is a problem."""
        for file in split.files:
            if self._is_left_out(file.path):
                continue
            self.problems.append(Problem(shown(file.path), "lies in no class's folder"))
        number = {name: index for index, name in enumerate(classes)}
        labelled = [
            (file, number[name])
            for name, folder in split.folders.items()
            if name in number
            for file in folder.all_files()
        ]
        labelled.sort(key=lambda pair: pair[0].path)
        files = [file for file, _ in labelled]
        return SplitFiles.of(split.path, files, [label for _, label in labelled])

    def _list(self, path: str, above: tuple[tuple[int, int], ...], stat: os.stat_result) -> Tree:
        identity = (stat.st_dev, stat.st_ino)
        self._seen[identity] = path
        tree = Tree(path)
        try:
            with os.scandir(self.root / path if path else self.root) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(
                f"`--data`: {shown(self.root / path)} cannot be listed: {error.strerror}"
            ) from error
        for entry in ordered:
            if entry.name.startswith(".") or entry.name in _SYSTEM_NAMES:
                self._hidden += 1
                continue
            below = f"{path}/{entry.name}" if path else entry.name
            if below in self._read:
                continue
            if self._is_left_out(below):
                self.left_out.append(shown(below))
                continue
            try:
                found = entry.stat()
            except OSError:
                # A link to nothing, or to itself.
                self.problems.append(Problem(shown(below), "is a link to nothing"))
                continue
            if entry.is_dir():
                key = (found.st_dev, found.st_ino)
                if key in (*above, identity):
                    self.said.append(f"{shown(below)} links to a folder above it and was left out")
                elif key in self._seen:
                    raise InputError(
                        f"`--data`: {shown(below)} and {shown(self._seen[key] or '.')} of "
                        f"{shown(self.root)} are one folder by a link; its images would count "
                        f"twice, so take one of the two out"
                    )
                else:
                    tree.folders[entry.name] = self._list(below, (*above, identity), found)
            elif entry.is_file():
                key = (found.st_dev, found.st_ino)
                if key in self._files:
                    # Counted twice, it could be both trained and tested on.
                    other = shown(self._files[key])
                    self.problems.append(
                        Problem(shown(below), f"is the same file as {other}, by a link")
                    )
                    continue
                self._files[key] = below
                self._take(tree, File(below, found.st_size, found.st_mtime_ns))
            else:
                self._other["of special kinds"] += 1
        return tree

    def _take(self, tree: Tree, file: File) -> None:
        """Sort a file into the images, the problems, or what is left out."""
        suffix = Path(file.path).suffix.lower()
        if suffix in image_suffixes():
            tree.files.append(file)
        elif suffix in _UNREAD_SUFFIXES:
            self.problems.append(
                Problem(shown(file.path), f"is of a format that Pillow does not decode ({suffix})")
            )
        elif _begins_as_image(self.root / file.path, file.size):
            tree.files.append(file)
        else:
            self._other[shown(suffix) or "without ending"] += 1

    def _is_left_out(self, path: str) -> bool:
        return bool(self._left_out) and shown(path) in self._left_out


def _begins_as_image(path: Path, size: int) -> bool:
    """Whether a file without an image's suffix is an image anyway."""
    if not size:
        return False
    try:
        check_header(path)
    except ImageReadError:
        return False
    return True


def _splits_of(top: Tree) -> dict[SplitName, Tree] | None:
    """The top folders that are splits, or None if the top folders are classes.

    Raises:
        InputError: two folders for one split, or splits without class folders.
    """
    named = {name: SPLIT_OF[name.lower()] for name in top.folders if name.lower() in SPLIT_OF}
    if not named:
        return None
    # For example, `train/`, `bus/` and `car/` with images in each are classes of vehicles.
    with_classes = [
        name for name in named if any(t.num_images for t in top.folders[name].folders.values())
    ]
    others = [name for name, tree in top.folders.items() if name not in named and tree.num_images]
    if not with_classes and others:
        return None
    splits: dict[SplitName, Tree] = {}
    for name, split in named.items():
        if split in splits:
            raise InputError(
                f"`--data`: {splits[split].path}/ and {name}/ are both named as the {split} "
                f"split; put their images together, or rename one"
            )
        splits[split] = top.folders[name]
    if not with_classes and any(top.folders[name].num_images for name in named):
        names = ", ".join(f"{name}/" for name in named)
        raise InputError(
            f"`--data`: {names} hold images, but no folder a class; put each image into a folder "
            f"that is named as its class"
        )
    return splits


def _refuse_splits_below(top: Tree) -> None:
    """Refuse a folder without splits if one of its subfolders has them.

    Raises:
        InputError: there is such a subfolder.
    """
    for name, tree in top.folders.items():
        below = [inner for inner in tree.folders if inner.lower() in SPLIT_OF]
        if not below:
            continue
        if len([folder for folder in top.folders.values() if folder.num_images]) == 1:
            advice = f"give the folder {shown(name)} itself"
        else:
            advice = "put the splits on top: train/CLASS, val/CLASS, test/CLASS"
        raise InputError(
            f"`--data`: no folder is named as a split, but {shown(name)}/ holds "
            f"{', '.join(f'{inner}/' for inner in below)}, which would be pooled as one class; "
            f"{advice}"
        )


def _class_names(
    walk: Walk, trees: dict[SplitName, Tree], asked: Sequence[str] | None
) -> tuple[str, ...]:
    """The classes: folders of train that hold images, in the given order or by code point.

    Raises:
        InputError: a folder that is not a class of train or not among those given; a class name
            that is not UTF-8; a class without a usable image.
    """
    train = trees["train"]
    where = f"{train.path}/" if train.path else "the folder"
    found = [name for name, tree in train.folders.items() if tree.num_images]
    for name in found:
        if shown(name) != name:
            raise InputError(
                f"`--data`: the class {shown(name)} has a name that is no UTF-8; rename its folder"
            )
    _refuse_classes_without_images(walk, train, found)
    names = tuple(found if asked is None else asked)
    missing = [name for name in found if name not in set(names)]
    if missing:
        raise InputError(
            f"`--classes`: it does not name {listed(missing)}, which {where} has; add them, or "
            f"take their folders out"
        )
    if len(found) < 2:
        loose = len(train.files)
        inside = [n for n in (train.folders[found[0]].folders if found else {})]
        hint = ""
        if loose:
            hint = f" ({counted(loose, 'image')} in {where} itself, in no class's folder)"
        elif len(inside) > 1:
            hint = (
                f" (it holds {listed(inside)}; if those are the classes, name {found[0]} itself)"
            )
        raise InputError(
            f"`--data`: {shown(walk.root)} has {counted(len(found), 'class', 'classes')} with "
            f"images in {where}: {listed(found) or 'none'}{hint}; at least two are "
            f"needed, each a folder of its own"
        )
    unseen = [name for name in names if name not in set(found)]
    if unseen:
        walk.said.append(
            f"{counted(len(unseen), 'class', 'classes')} without images: {listed(unseen)}"
        )
    for split, tree in trees.items():
        if not tree.num_images:
            raise InputError(
                f"`--data`: {tree.path}/ has no images; put some there, or take the folder out to "
                f"have the split cut from {where}"
            )
        unknown = [n for n, t in tree.folders.items() if t.num_images and n not in set(found)]
        if split != "train" and unknown:
            raise InputError(
                f"`--data`: {tree.path}/ has {listed(unknown)}, of which {where} has no images; "
                f"add training images, or take these folders out"
            )
        if split != "train" and (absent := [n for n in found if not _has_images(tree, n)]):
            walk.said.append(f"{tree.path}/ has no images of {listed(absent)}")
    return names


def _has_images(tree: Tree, name: str) -> bool:
    return name in tree.folders and tree.folders[name].num_images > 0


def _refuse_classes_without_images(walk: Walk, train: Tree, found: list[str]) -> None:
    """Refuse a class that would vanish, since no file in its folder can be read as an image."""
    for name, tree in train.folders.items():
        if name in found:
            continue
        lost = [f"{problem.path} {problem.reason}" for problem in walk.problems]
        lost += [f"{path} was left out" for path in walk.left_out]
        lost = [text for text in lost if text.startswith(f"{shown(tree.path)}/")]
        if lost:
            raise InputError(
                f"`--data`: no file of the class {shown(name)} can be used: {lost[0]}"
                + (f", and {len(lost) - 1:,} more" if len(lost) > 1 else "")
                + "; save its images as PNG or JPEG, or take the folder out"
            )
        walk.said.append(f"{shown(tree.path)}/ has no images and is no class")


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(shown(name) for name in names[:MAX_NAMED]) + more


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with the word for one or for many, by default with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
