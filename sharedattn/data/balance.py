"""Warn of class sizes that make a split hard to train on or to measure with."""

from __future__ import annotations

from collections.abc import Sequence

MIN_IMAGES = 5  # per class; with fewer, its accuracy says next to nothing
MAX_RATIO = 10.0  # of the largest class to the smallest
_MAX_NAMED = 5  # classes listed in one sentence


def guessing_level(num_classes: int, class_counts: Sequence[int] | None = None) -> float:
    """The accuracy of guessing: by chance, or always the largest class, whichever is higher.

    Args:
        num_classes: number of classes.
        class_counts: images of each class in the split; defaults to equal counts.

    Returns:
        A fraction.
    """
    total = sum(class_counts or ())
    largest = max(class_counts) / total if class_counts and total else 0.0
    return max(1.0 / num_classes, largest)


def imbalance_warnings(
    class_counts: Sequence[int], class_names: Sequence[str] = (), split: str = "validation"
) -> list[str]:
    """Warn of classes that are too small, or too different in size.

    Args:
        class_counts: images of each class in the split.
        class_names: names of the classes; defaults to their numbers, from 0.
        split: name of the split.

    Returns:
        One sentence per warning.
    """
    names = [repr(name) for name in class_names] or [str(i) for i in range(len(class_counts))]
    sentences = []
    small = [i for i, count in enumerate(class_counts) if count < MIN_IMAGES]
    if small:
        named = ", ".join(f"{names[i]} ({class_counts[i]})" for i in small[:_MAX_NAMED])
        more = f" and {len(small) - _MAX_NAMED} more" if len(small) > _MAX_NAMED else ""
        classes = "1 class has" if len(small) == 1 else f"{len(small)} classes have"
        sentences.append(
            f"{classes} fewer than {MIN_IMAGES} {split} images: {named}{more}; how well they are "
            f"told apart is not measured, so give them more images"
        )
    if not class_counts:
        return sentences
    # Empty classes are reported above, and say nothing about the sizes of the others.
    present = [i for i, count in enumerate(class_counts) if count]
    if not present:
        return sentences
    least = min(present, key=class_counts.__getitem__)
    most = max(range(len(class_counts)), key=class_counts.__getitem__)
    if class_counts[most] > MAX_RATIO * class_counts[least]:
        share = class_counts[most] / sum(class_counts)
        sentences.append(
            f"the classes differ much in size: {names[most]} has {class_counts[most]:,} {split} "
            f"images and {names[least]} {class_counts[least]:,}; always answering {names[most]} "
            f"would be right for {share:.1%} of them"
        )
    return sentences
