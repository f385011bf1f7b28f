"""The accuracy of the trained model that a search starts from, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sharedattn.results.records.document import Document
from sharedattn.units import format_fraction, format_quantity

START_NOTE = "sharedattn:start"
"""The note of a study that has its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A trained model as it came, or with a new head: all-vanilla, at full depth, by its weights.

    Attributes:
        weights_sha256: of its weights, see `weights_digest`.
        macs: multiply-accumulates per image.
        params: number of parameters.
        top1: accuracy on the validation split, a fraction.
        num_images: images in that split.
        test_top1: accuracy on the test split, measured once the study has ended; or None before,
            and for data without a test split.
        num_test_images: images that `test_top1` was measured on.
        head_images: training images that a new head was fitted to, or None if its own was kept.
    """

    weights_sha256: str
    macs: int
    params: int
    top1: float
    num_images: int
    test_top1: float | None = None
    num_test_images: int = 0
    head_images: int | None = None

    @property
    def state(self) -> str:
        """What was measured: the model as it came, or with a new head."""
        if self.head_images is None:
            return "as it came"
        return f"with a head fitted to {self.head_images:,} training images"

    def __str__(self) -> str:
        test = "" if self.test_top1 is None else f"{format_fraction(self.test_top1)} on test, "
        return (
            f"the start, {self.state}: {format_fraction(self.top1)} on validation, {test}"
            f"{format_quantity(self.macs)} MACs"
        )

    def to_json(self) -> Document:
        """Every field by name; that of a new head only if there is one."""
        document = asdict(self)
        if self.head_images is None:
            # Starts from before heads were replaced lack it.
            del document["head_images"]
        return document

    @classmethod
    def from_json(cls, document: Any) -> Start:
        """Invert `to_json`.

        Raises:
            TypeError: unknown or missing fields.
        """
        return cls(**document)

    def summary(self, quality: str) -> Document:
        """The document that `search --json` prints under `start`.

        Args:
            quality: name of the study's measured objective.
        """
        return {
            quality: self.top1,
            f"test_{quality}": self.test_top1,
            "macs": self.macs,
            "params": self.params,
        }
