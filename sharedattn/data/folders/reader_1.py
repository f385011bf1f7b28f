"""Reader 1: read folders as before our own scan, to verify older evaluations.

timm lists the folders, validation is cut regardless of classes, the held-out one of two splits is
the test split, and Pillow's default conversion is used. Where the result depended on the process
or the disk, the data is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_dataset
from timm.utils.misc import natural_key

from sharedattn.data.folders.decode import ImageReadError, shown
from sharedattn.data.folders.listing import SPLITS
from sharedattn.data.named import classes_of, files_hash, open_splits
from sharedattn.data.samples import HASH_CONTENTS_BELOW_BYTES, FileSamples, Opened, Part, Samples
from sharedattn.data.source import DataConfig, SplitName, hash_files
from sharedattn.errors import InputError

_SPLIT_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, slots=True)
class _PlainFiles(FileSamples):
    """Files converted by Pillow's defaults."""

    def read(self, index: int, mode: str) -> Image.Image:
        path = self.root / self.paths[index]
        try:
            with Image.open(path) as image:
                return image.convert(mode)
        except Exception as error:
            raise ImageReadError(f"{shown(path)}: {error or type(error).__name__}") from error


def open_reader_1(config: DataConfig) -> Opened:
    """Open data as reader 1 did.

    Raises:
        InputError: the data is absent, or reader 1 was ambiguous on it.
    """
    root = Path(config.name)
    is_folder = root.is_dir()
    if is_folder:
        given, names = _folders(root)
        hashes = {split: _hash_of(root, part) for split, part in given.items()}
    else:
        library = open_splits(config)
        known, num = classes_of(library["train"].dataset)
        names = known or tuple(map(str, range(num)))
        hashes = {s: files_hash(config.name, part.dataset) for s, part in library.items()}
        given = dict(library)
    if set(given) == {"train", "validation"}:
        # Of two splits the held-out one was the test split, whatever its name.
        given["test"] = given.pop("validation")
        hashes["test"] = hashes.pop("validation")
    missing: list[SplitName] = [s for s in ("test", "validation") if s not in given]
    train = given["train"]
    parts = {s: Part(samples, np.arange(len(samples.labels))) for s, samples in given.items()}
    order = np.random.default_rng(config.split_seed).permutation(len(train.labels))
    cut = int(config.val_fraction * len(order))
    for split in missing:
        parts[split] = Part(train, np.sort(order[:cut]))
        hashes[split] = hashes["train"]
        order = order[cut:]
    parts["train"] = Part(train, np.sort(order))

    def identity() -> dict[str, Any]:
        return {
            **({} if is_folder else {"name": config.name}),
            "version": 1,
            "files": {split: hashes[split] for split in parts},
            "images": {split: len(part) for split, part in parts.items()},
            "split_seed": config.split_seed,
            "val_fraction": config.val_fraction,
        }

    return Opened(
        parts=parts,
        class_names=names,
        num_classes=len(names),
        origins={s: "its own split" if s not in missing else "cut from train" for s in SPLITS},
        cuts=frozenset(missing),
        notes=("read as before our own scan of folders (reader 1)",),
        identity=identity,
    )


def _folders(root: Path) -> tuple[dict[SplitName, Samples], tuple[str, ...]]:
    given: dict[SplitName, Samples] = {}
    folders = {
        split: next((root / n for n in names if (root / n).is_dir()), None)
        for split, names in _SPLIT_FOLDERS.items()
    }
    if all(folder is None for folder in folders.values()):
        folders["train"] = root
    if folders["train"] is None:
        raise InputError(f"`--data`: {shown(root)} has no training split")
    classes: dict[str, int] | None = None
    for split, folder in folders.items():
        if folder is None:
            continue
        dataset = _timm_folder(folder, classes)
        classes = classes or dict(dataset.reader.class_to_idx)
        _refuse_ties(f"classes of {shown(folder)}", classes)
        files = [str(Path(path).relative_to(folder)) for path, _ in dataset.reader.samples]
        _refuse_ties(f"files of {shown(folder)}", files)
        labels = np.array([label for _, label in dataset.reader.samples], dtype=np.int64)
        given[split] = _PlainFiles(folder, files, labels)
    assert classes is not None
    return given, tuple(classes)


def _timm_folder(folder: Path, classes: dict[str, int] | None) -> Any:
    try:
        dataset = create_dataset("", str(folder), split="train", search_split=False)
        own = dataset.reader.class_to_idx
        if classes is None or own == classes:
            return dataset
        if set(own) - set(classes):
            raise InputError(
                f"`--data`: {shown(folder)} has classes without training images: "
                f"{', '.join(sorted(set(own) - set(classes)))}"
            )
        return create_dataset(
            "", str(folder), split="train", search_split=False, class_map=classes
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"`--data`: {shown(folder)} cannot be read: {error}") from error


def _refuse_ties(what: str, names: Iterable[str]) -> None:
    """Refuse names that timm's natural order leaves in the order of disk or process.

    Raises:
        InputError: two names have the same sort key.
    """
    by_key: dict[Any, str] = {}
    for name in names:
        # timm sorts whole paths; equal parent folders do not break a tie.
        key = tuple(natural_key(name))
        if key in by_key:
            raise InputError(
                f"`--data`: {what} were numbered differently from process to process before "
                f"folders were scanned by sharedattn itself, as {by_key[key]!r} and {name!r} tie "
                f"in the order used then; train again on this data"
            )
        by_key[key] = name


def _hash_of(root: Path, samples: Samples) -> str:
    assert isinstance(samples, FileSamples)
    files = [samples.root / path for path in samples.paths]
    size = sum(path.stat().st_size for path in files)
    return hash_files(files, root, with_contents=size < HASH_CONTENTS_BELOW_BYTES)
