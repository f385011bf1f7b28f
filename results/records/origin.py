"""What an exported network's training started from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sharedattn.errors import InputError
from sharedattn.results.records.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The trained weights that a training alone started from; not those of a supernet.

    Attributes:
        source: file, folder or `timm`, as it was named.
        epochs: epochs of training of an export that the training went on from, those of its own
            origin included; or None for a trained model.
        trained_classes: classes of the head that was replaced, 0 if there was none, or None if it
            was kept.
        head_images: training images that the new head was fitted to, 0 if it began untrained, or
            None if it was kept.
    """

    source: str
    epochs: int | None = None
    trained_classes: int | None = None
    head_images: int | None = None

    def __str__(self) -> str:
        if self.epochs is not None:
            plural = "" if self.epochs == 1 else "s"
            return f"the weights of an export, after {self.epochs:,} epoch{plural}"
        if self.head_images is None:
            return "the weights of a trained model"
        of_classes = f" of {self.trained_classes:,} classes" * bool(self.trained_classes)
        return (
            f"the weights of a trained model{of_classes}, with a new head"
            + f" fitted to {self.head_images:,} training images" * bool(self.head_images)
        )

    def to_json(self) -> Document:
        """Every field that is not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, document: Any) -> Origin:
        """Invert `to_json`.

        Raises:
            InputError: a number is no whole number of at least 0.
            TypeError: no mapping, or fields are missing or unknown.
        """
        origin = cls(**document)
        numbers = (origin.epochs, origin.trained_classes, origin.head_images)
        if not isinstance(origin.source, str) or any(
            number is not None and (type(number) is not int or number < 0) for number in numbers
        ):
            raise InputError(
                f"`origin` has a `source` and whole numbers of at least 0, but got {document!r}"
            )
        return origin
