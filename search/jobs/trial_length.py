"""How long the trials of a search should be, by the learning curve of one training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharedattn.data.balance import guessing_level
from sharedattn.results.export.folder import ExportRecord
from sharedattn.results.front.guessing import known_class_counts
from sharedattn.results.records import Document
from sharedattn.tasks import CLASSIFY
from sharedattn.training.tasks.interface import Metrics

GAIN = 0.8  # share of a training's gain over guessing that a trial should make


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLength:
    """What a learning curve says of the length of trials.

    Attributes:
        epochs: after which the training had made `GAIN` of its gain over guessing.
        rises: whether it still gained more in its last quarter than the noise of the validation
            images, two standard errors, so that a longer training would end higher.
    """

    epochs: int
    rises: bool

    def to_json(self) -> Document:
        """A plain dictionary of every field."""
        return {"epochs": self.epochs, "rises": self.rises}

    @property
    def text(self) -> str:
        """The proposal, for people."""
        rises = (
            "; it still rises, so train for more epochs before relying on this"
            if self.rises
            else ""
        )
        return (
            f"trials  --epochs {self.epochs}: by then this training had made {GAIN:.0%} of its "
            f"gain over guessing{rises}"
        )


def validated(learning_curve: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """The epochs of a stored learning curve that were validated, with their quality."""
    return [
        (epoch["epoch"], Metrics.from_json(epoch["validation"]).quality)
        for epoch in learning_curve
        if epoch["validation"] is not None
    ]


def trial_length(
    curve: Sequence[tuple[int, float]], *, guessing: float, num_images: int
) -> TrialLength | None:
    """Propose the length of trials by the curve of a training at full length.

    The all-vanilla network of full depth needs the longest. Its curve under a long schedule lies
    below that of a short training, whose learning rate has ended, so that the proposal is rather
    too long.

    Args:
        curve: epochs and quality on validation data, ascending, the last of the whole training.
        guessing: accuracy of guessing, 0 of detectors and segmenters.
        num_images: validation images.

    Returns:
        The proposal, or None if the training ended no better than guessing.
    """
    epochs, final = curve[-1]
    if final <= guessing:
        return None
    bar = guessing + GAIN * (final - guessing)
    reached = next(epoch for epoch, top1 in curve if top1 >= bar)
    before = [top1 for epoch, top1 in curve if epoch <= 0.75 * epochs]
    noise = 2 * math.sqrt(final * (1 - final) / num_images)
    return TrialLength(epochs=reached, rises=bool(before) and final - before[-1] > noise)


def trial_length_of(record: ExportRecord) -> TrialLength | None:
    """Propose the length of trials by the training of an export that was validated every epoch."""
    backbone = record.spec.backbone
    return trial_length(
        validated(record.evaluation.learning_curve),
        guessing=(
            guessing_level(backbone.num_classes, known_class_counts(record.data))
            if backbone.head == CLASSIFY
            else 0.0
        ),
        num_images=record.evaluation.num_images,
    )
