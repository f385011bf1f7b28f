"""Name the classes of ImageNet, by the order of a head's outputs or by their folders.

The lists are timm's (`timm.data.ImageNetInfo`): WordNet's noun synsets, by number (`n01440764`),
with their lemmas ("tench, Tinca tinca").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo, infer_imagenet_subset

_SYNSET = re.compile(r"n\d{8}")
_LARGEST = "imagenet-22k"  # any of them knows the lemmas of all


def imagenet_class_names(num_classes: int) -> tuple[str, ...] | None:
    """Names of the outputs of a head that was trained on ImageNet or one of its larger sets.

    Args:
        num_classes: outputs of the head. 1,000 are ImageNet-1k; 11,221 the 21k-P of MIIL; 11,821
            timm's 12k; 21,841 the whole as released in 2011; 21,842 Microsoft's order of it, which
            begins with the 1,000; 21,843 Google's.

    Returns:
        A name for each output, in their order, all different; None: no set of ImageNet has so
        many classes.
    """
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return None if subset is None else wordnet_names(tuple(_info(subset).label_names()))


def wordnet_names(folders: Sequence[str]) -> tuple[str, ...] | None:
    """Names of classes whose folders are called by WordNet's numbers, as ImageNet's are.

    Args:
        folders: names of the folders, such as `n01440764`, in the order of the classes.

    Returns:
        A name for each, all different where the folders are; None: not all are called so.
    """
    lemmas = []
    for folder in folders:
        try:
            known = _SYNSET.fullmatch(folder) is not None
            lemmas.append(_info(_LARGEST).label_name_to_description(folder) if known else None)
        except KeyError:
            lemmas.append(None)
    if not lemmas or None in lemmas:
        return None
    # A crane is a bird and a machine.
    counts = Counter(lemmas)
    return tuple(
        f"{lemma} ({folder})" if counts[lemma] > 1 else str(lemma)
        for lemma, folder in zip(lemmas, folders, strict=True)
    )


@cache
def _info(subset: str) -> ImageNetInfo:
    return ImageNetInfo(subset)
