"""What a network is built to say of an image, and the heads that say it."""

from __future__ import annotations

from dataclasses import dataclass

from sharedattn.errors import InputError

CLASSIFY = "classify"
"""Name of the default head, the family's own classifier, and of its task."""

DENOISE = "denoise"
"""Task of the networks that generate images: to tell the noise in an image from the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadKind:
    """A head by name.

    Attributes:
        name: value of a backbone's key `head`.
        task: what it says: `classify`, `detect`, `segment` or `denoise`.
        title: its name in texts.
        num_classes: number of classes unless a network says another: of ImageNet, COCO or ADE20K;
            1 of networks that say nothing of classes.
    """

    name: str
    task: str
    title: str
    num_classes: int

    @property
    def quality(self) -> str:
        """Name of what is measured of a network with it."""
        return QUALITIES[self.task]


HEADS = {
    head.name: head
    for head in (
        HeadKind(name=CLASSIFY, task=CLASSIFY, title="classifier", num_classes=1000),
        HeadKind(name="retinanet", task="detect", title="RetinaNet", num_classes=80),
        HeadKind(name="semantic_fpn", task="segment", title="Semantic FPN", num_classes=150),
        HeadKind(name="upernet", task="segment", title="UperNet", num_classes=150),
        HeadKind(name="eanet", task="segment", title="EANet", num_classes=150),
        HeadKind(name="noise", task=DENOISE, title="noise prediction", num_classes=1),
    )
}
"""Heads by name; the first of a task is its default."""

OWN_HEADS = {"unet2d": "noise", "ddpm_cifar10": "noise"}
"""Heads of backbones whose own is no classifier, by the backbone's name."""

QUALITIES = {CLASSIFY: "top1", "detect": "map50", "segment": "miou", DENOISE: "denoise_r2"}
"""What is measured of a network, 0 to 1 and the more the better, by its task: accuracy, mean
average precision at an intersection over union of 0.5, mean intersection over union, or the share
of noise that is predicted, R^2."""

NETWORKS = {
    CLASSIFY: "An image classifier",
    "detect": "An object detector",
    "segment": "An image segmenter",
    DENOISE: "A generator of images by diffusion",
}
"""What a network of a task is, to begin a sentence."""

TASKS = tuple(dict.fromkeys(head.task for head in HEADS.values()))


def head_kind(name: str) -> HeadKind:
    """The head of a name.

    Raises:
        InputError: there is none.
    """
    if name not in HEADS:
        raise InputError(f"`head` is {name!r}; it is one of {', '.join(HEADS)}")
    return HEADS[name]


def own_head(backbone: str) -> str:
    """Name of the head that is part of a backbone's model."""
    return OWN_HEADS.get(backbone, CLASSIFY)


def default_head(task: str) -> HeadKind:
    """The head of a task whose network names none.

    Raises:
        InputError: there is no such task.
    """
    for head in HEADS.values():
        if head.task == task:
            return head
    raise InputError(f"`task` is {task!r}; it is one of {', '.join(TASKS)}")
