"""Test whether accuracies exceed guessing by more than the sampling noise of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from sharedattn.data.balance import guessing_level
from sharedattn.placement import Placement
from sharedattn.results.front.confirmation import Candidate, Front
from sharedattn.results.records import Document, StudyRecord
from sharedattn.tasks import CLASSIFY, QUALITIES
from sharedattn.units import format_fraction

CONFIDENCE = 0.95
_MAX_NAMED = 10  # members in one sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Guessing:
    """Accuracy of guessing on the validation images, and the bar above it.

    Attributes:
        level: accuracy of guessing, a fraction; see `guessing_level`.
        num_classes: number of classes.
        num_images: number of validation images.
        num_tries: number of trainings of which the best are judged.
    """

    level: float
    num_classes: int
    num_images: int
    num_tries: int = 1

    @property
    def bar(self) -> float:
        """The accuracy that the best of all tries exceeds by guessing in 5 of 100 searches.

        Correct answers are binomial; choosing the best raises the bar (Sidak). Several seeds of
        one placement do not lower it, since they see the same images.
        """
        confidence = CONFIDENCE ** (1.0 / self.num_tries)
        deviation = math.sqrt(self.level * (1.0 - self.level) / self.num_images)
        # Continuity correction: half an image, since the normal distribution is continuous.
        return self.level + NormalDist().inv_cdf(confidence) * deviation + 0.5 / self.num_images

    @property
    def text(self) -> str:
        """Description of the bar, for people."""
        tries = f", the best of {self.num_tries:,} trainings" if self.num_tries > 1 else ""
        how = (
            f"chance among {self.num_classes} classes"
            if self.level * self.num_classes <= 1.0 + 1e-9
            else "always answering the largest class"
        )
        return (
            f"guessing gets {self.level:.3f} ({how}), and only above {self.bar:.3f} is more than "
            f"noise ({self.num_images:,} validation images{tries})"
        )


def guessing_of(study: StudyRecord, num_images: int, num_tries: int = 1) -> Guessing | None:
    """The accuracy of guessing on a study's validation images.

    Args:
        study: the study.
        num_images: validation images that were used.
        num_tries: trainings of which the best are judged.

    Returns:
        None without images, if the number of classes is not known, or if networks do not classify.
    """
    if study.quality != QUALITIES[CLASSIFY]:
        return None
    counts = known_class_counts(study.data)
    chance = study.reference_point.get(study.quality, 0.0)
    num_classes = len(counts) if counts else round(1.0 / chance) if chance > 0 else 0
    if num_classes < 2 or not num_images:
        return None
    return Guessing(
        level=guessing_level(num_classes, counts),
        num_classes=num_classes,
        num_images=num_images,
        num_tries=num_tries,
    )


def known_class_counts(data: Document) -> Sequence[int] | None:
    """Validation images per class, from a study's data document, or None."""
    counts: Sequence[int] | None = data.get("class_counts", {}).get("validation")
    return counts


def remedy(epochs: int, option: str = "--epochs") -> str:
    """The settings to raise if nothing is learnt."""
    return (
        f"train for more than {epochs} epoch{'s' if epochs != 1 else ''} ({option}), on more "
        f"images, or with another learning rate (lr in --recipe)"
    )


def guessing_warnings(front: Front, members: Sequence[Candidate], guessing: Guessing) -> list[str]:
    """Warn if members of a front are no better than guessing.

    Args:
        front: the front.
        members: its members that are not above the bar.
        guessing: the bar.

    Returns:
        Sentences, none if all members are above the bar.
    """
    if not members or front.fidelity is None:
        return []
    if guessing.bar >= 1.0:
        return [
            f"{guessing.num_images:,} validation images are too few to tell any accuracy from "
            f"guessing; give more, or cut a larger share by --val-fraction"
        ]
    is_inherited = front.fidelity.weights == "inherited"
    advice = remedy(front.fidelity.epochs, "--supernet-epochs" if is_inherited else "--epochs")
    if len(members) == len(front.members):
        best = max(member.top1 for member in members)
        return [
            f"no placement on the front is above guessing: the best top-1 is "
            f"{format_fraction(best)}; {guessing.text}; the front says nothing about placements, "
            f"so {advice}"
        ]
    ids = ", ".join(str(member.number) for member in members[:_MAX_NAMED])
    more = f" and {len(members) - _MAX_NAMED} more" if len(members) > _MAX_NAMED else ""
    verb = "is" if len(members) == 1 else "are"
    return [
        f"{len(members)} of {len(front.members)} placements on the front {verb} not above "
        f"guessing (id {ids}{more}){_unmixed(members)}; {guessing.text}; if they should be, "
        f"{advice}"
    ]


def _unmixed(members: Sequence[Candidate]) -> str:
    """How many have neither attention nor broadcasting, and what leaves such placements out."""
    placements = [Placement.parse(member.placement) for member in members]
    number = sum(
        not any(layer.cb or layer.branch.attends for layer in placement.layers)
        for placement in placements
    )
    if not number:
        return ""
    return (
        f", {number} of them without attention or broadcasting, which the rule mixing_layer of a "
        f"space leaves out"
    )
