"""Name the classes of ImageNet by their folders.

The list is timm's (`timm.data.ImageNetInfo`): WordNet's noun synsets, by number (`n01440764`),
with their lemmas ("tench, Tinca tinca").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo

_SYNSET = re.compile(r"n\d{8}")


def wordnet_names(folders: Sequence[str]) -> tuple[str, ...] | None:
    """Names of classes whose folders are WordNet numbers, such as ImageNet's.

    Args:
        folders: names of the folders, such as `n01440764`, in the order of the classes.

    Returns:
        A name for each, distinct if the folders are, or None if a folder is no such number.
    """
    info = _info()
    lemmas = []
    for folder in folders:
        try:
            known = _SYNSET.fullmatch(folder) is not None
            lemmas.append(info.label_name_to_description(folder) if known else None)
        except KeyError:
            lemmas.append(None)
    if not lemmas or None in lemmas:
        return None
    # One lemma may name several classes: a crane is a bird and a machine.
    counts = Counter(lemmas)
    return tuple(
        f"{lemma} ({folder})" if counts[lemma] > 1 else str(lemma)
        for lemma, folder in zip(lemmas, folders, strict=True)
    )


@cache
def _info() -> ImageNetInfo:
    return ImageNetInfo("imagenet-22k")  # any of timm's sets knows the lemmas of all
