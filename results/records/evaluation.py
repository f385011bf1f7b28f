"""Records of evaluations, and the identity by which they are reused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from sharedattn.errors import InputError
from sharedattn.hashing import canonical_json, document_key
from sharedattn.image_size import AnySize, ImageSize
from sharedattn.results.records.document import Document


def fine_tuning_key(recipe_key: str, starts_from: str) -> str:
    """Identifies a training that starts from existing weights, in place of its recipe's key.

    Args:
        recipe_key: key of its recipe.
        starts_from: sha256 of the weights.
    """
    return document_key({"recipe": recipe_key, "starts_from": starts_from})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How faithfully an evaluation measures a placement; fronts compare only equal ones.

    Attributes:
        epochs: passes over the training data; > 0.
        image_size: pixels on a side of square images, or their height and width.
        weights: trained for this placement alone, or inherited from a supernet.
    """

    epochs: int
    image_size: AnySize
    weights: Literal["trained", "inherited"] = "trained"

    def __post_init__(self) -> None:
        try:
            size = ImageSize.of(self.image_size).given
        except InputError:
            size = 0
        if (
            type(self.epochs) is not int
            or self.epochs < 1
            or not size
            or self.weights not in ("trained", "inherited")
        ):
            raise InputError(
                f"`fidelity` has `epochs` and `image_size`, whole numbers from 1, and `weights`, "
                f"trained or inherited, but got {self}"
            )
        object.__setattr__(self, "image_size", size)

    def to_json(self) -> Document:
        """All fields by name, and the share of training data (always 1), which keys contain."""
        size = ImageSize.of(self.image_size).to_json()
        return {**asdict(self), "image_size": size, "data_fraction": 1.0}

    @classmethod
    def from_json(cls, document: Document) -> Fidelity:
        """The inverse of `to_json`.

        Raises:
            InputError: a field or the share of training data is out of range.
            TypeError: fields are missing or unknown.
        """
        fields = dict(document)
        if fields.pop("data_fraction", 1.0) != 1.0:
            raise InputError(
                f"`fidelity` is of {document['data_fraction']} of the training data, and only "
                f"evaluations of all of it are read"
            )
        return cls(**fields)

    @property
    def key(self) -> str:
        """The canonical JSON itself, short enough to read in the database."""
        return canonical_json(self.to_json())

    @classmethod
    @lru_cache(maxsize=256)
    def from_key(cls, key: str) -> Fidelity:
        """The inverse of `key`; cached, since even 50,000 trials have only a few."""
        return cls.from_json(json.loads(key))

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Sort key from the cheapest fidelity to the most faithful one."""
        return (self.weights == "trained", ImageSize.of(self.image_size).num_pixels, self.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationIdentity:
    """Identity of an evaluation across studies.

    Attributes:
        spec_key: sha256 of the network spec.
        recipe_key: sha256 of the training recipe.
        data_fingerprint: sha256 over data, split and evaluation transform.
        fidelity: epochs, image size, source of the weights.
        seed: the training seed itself, not the replicate.
    """

    spec_key: str
    recipe_key: str
    data_fingerprint: str
    fidelity: Fidelity
    seed: int

    @property
    def key(self) -> str:
        """sha256 in hexadecimal: unique in the database, and the weights' file name."""
        return document_key({**asdict(self), "fidelity": self.fidelity.to_json()})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """A complete evaluation.

    Attributes:
        identity: the evaluation's identity.
        split: name of the split of the metrics.
        top1: the quality of the task, a fraction: accuracy of a classifier, else its own.
        loss: mean cross-entropy, nats.
        num_images: number of images in the split.
        learning_curve: one document per epoch.
        wall_time_s: seconds of training and evaluation.
        device: such as "cpu".
        threads: torch threads of the worker.
        versions: versions of the libraries, by name.
        weights_sha256: sha256 of the stored weights' file, or None if none are kept.

    Raises:
        ValueError: a metric is not finite or out of range; the trial failed and has no evaluation.
    """

    identity: EvaluationIdentity
    split: str
    top1: float
    loss: float
    num_images: int
    wall_time_s: float
    device: str
    threads: int
    versions: Mapping[str, str]
    learning_curve: Sequence[Mapping[str, Any]] = ()
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.top1 <= 1 and math.isfinite(self.loss)):
            raise ValueError(
                f"`top1` is from 0 to 1 and `loss` finite, but got top1={self.top1}, "
                f"loss={self.loss}; record the trial as failed"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvaluation:
    """An evaluation in the database.

    Attributes:
        id: id of its row.
        record: the evaluation.
    """

    id: int
    record: EvaluationRecord
