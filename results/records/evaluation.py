"""Records of evaluations, and what makes two of them the same one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from sharedattn.errors import InputError
from sharedattn.hashing import canonical_json, document_key
from sharedattn.results.records.document import Document


def fine_tuning_key(recipe_key: str, starts_from: str) -> str:
    """Names a training that starts from weights that are there, in the place of its recipe.

    Args:
        recipe_key: of the recipe that it follows.
        starts_from: sha256 of the weights.
    """
    return document_key({"recipe": recipe_key, "starts_from": starts_from})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How faithfully an evaluation measures a placement; a front is drawn among equals only.

    Attributes:
        epochs: passes over the training data; > 0.
        image_size: pixels on a side.
        weights: trained for this placement alone, or inherited from a shared network.
    """

    epochs: int
    image_size: int
    weights: Literal["trained", "inherited"] = "trained"

    def __post_init__(self) -> None:
        if (
            type(self.epochs) is not int
            or type(self.image_size) is not int
            or self.epochs < 1
            or self.image_size < 1
            or self.weights not in ("trained", "inherited")
        ):
            raise InputError(
                f"`fidelity` has `epochs` and `image_size`, whole numbers from 1, and `weights`, "
                f"trained or inherited, but got {self}"
            )

    def to_json(self) -> Document:
        """Every field by name, and the share of the training data that keys have: all of it."""
        return {**asdict(self), "data_fraction": 1.0}

    @classmethod
    def from_json(cls, document: Document) -> Fidelity:
        """The inverse of `to_json`.

        Raises:
            InputError: a field out of its range, or a share of the training data.
            TypeError: missing fields, or others.
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
        """The canonical JSON itself: short enough to be read in the database."""
        return canonical_json(self.to_json())

    @classmethod
    @lru_cache(maxsize=256)
    def from_key(cls, key: str) -> Fidelity:
        """The inverse of `key`; cached, since a study of 50,000 trials has a handful."""
        return cls.from_json(json.loads(key))

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Sorts from the cheapest fidelity to the most faithful one."""
        return (self.weights == "trained", self.image_size, self.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationIdentity:
    """What makes two evaluations the same one, in whichever study.

    Attributes:
        spec_key: sha256 of the network spec.
        recipe_key: sha256 of the training recipe.
        data_fingerprint: sha256 over data, split and evaluation transform.
        fidelity: epochs, image size, provenance of weights.
        seed: the training seed itself, not the replicate's number.
    """

    spec_key: str
    recipe_key: str
    data_fingerprint: str
    fidelity: Fidelity
    seed: int

    @property
    def key(self) -> str:
        """sha256 in hexadecimal: unique in the database, and the name of the weights' file."""
        return document_key({**asdict(self), "fidelity": self.fidelity.to_json()})


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """A complete evaluation.

    Attributes:
        identity: what was evaluated.
        split: name of the split that the metrics are measured on.
        top1: accuracy, a fraction.
        loss: mean cross-entropy, nats.
        num_images: images in the split.
        learning_curve: one document per epoch.
        wall_time_s: seconds of training and evaluation.
        device: such as "cpu".
        threads: torch threads of the worker.
        versions: versions of the libraries, by name.
        weights_sha256: sha256 of the stored weights' file, or None if none are kept.

    Raises:
        ValueError: a metric that is not finite or out of range, which is a failed trial and no
            evaluation.
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
        id: its row.
        record: what was measured.
    """

    id: int
    record: EvaluationRecord
