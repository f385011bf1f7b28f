"""A folder of images that nothing is said of, such as those that a generator learns from.

    any/folders/*.jpg            or   train/*.jpg   val/*.jpg   test/*.jpg

All images below a folder count, whatever its folders are called; those of splits are named as in
folders of classes, missing splits are cut, and without any all is training data.
"""

from __future__ import annotations

from pathlib import Path

from sharedattn.data.folders.decode import shown
from sharedattn.data.folders.listing import SPLITS, Listing, SplitFiles, Walk
from sharedattn.data.folders.masks import splits_below
from sharedattn.data.source import DataConfig
from sharedattn.errors import InputError

GROUP = "images"  # what all images are, in place of classes


def list_images(config: DataConfig) -> Listing:
    """List a folder of images, of one group.

    Raises:
        InputError: the folder cannot be listed, or its splits are ambiguous.
    """
    root = Path(config.name)
    walk = Walk(root, frozenset(config.left_out))
    trees = splits_below(root, walk.list_top(), config)
    if "train" not in trees:
        raise InputError(
            f"`--data`: {shown(root)} has {', '.join(f'{t.path}/' for t in trees.values())} and "
            f"no training split; add a folder train/"
        )
    splits = {}
    for split in (split for split in SPLITS if split in trees):
        files = sorted(trees[split].all_files(), key=lambda file: file.path)
        splits[split] = SplitFiles.of(trees[split].path, files, [0] * len(files))
    return Listing(
        root=root,
        classes=(GROUP,),
        splits=splits,
        problems=tuple(sorted(walk.problems, key=lambda problem: problem.path)),
        notes=walk.notes(),
    )
