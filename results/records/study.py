"""Records of studies and of their fronts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sharedattn.hashing import document_key
from sharedattn.results.records.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study as it is first written.

    Attributes:
        name: unique in the database.
        fingerprint_document: every choice that makes this study this study; a study of the same
            name with another document is refused.
        space: the space's document.
        data: the data's document (name, version, splits, fingerprint).
        recipe: the training recipe's document.
        objectives: names, in order.
        searcher: the searcher's name.
        seed: the study's seed.
        reference_point: of the hypervolume, by objective, fixed before the first trial.
        provenance: command line, versions and machine of the first run.
        num_trials: search trials asked for, a total; may change from run to run.
        confirm_seeds: seeds per front member, a total; may change from run to run.
        weights_dir: the weights folder that its first run named, or None if unknown.
        latency: where latencies are measured: `source`, `where`, `setting` and `backbone`; None:
            there are none.
    """

    name: str
    fingerprint_document: Document
    space: Document
    data: Document
    recipe: Document
    objectives: tuple[str, ...]
    searcher: str
    seed: int
    reference_point: Mapping[str, float]
    provenance: Document
    num_trials: int
    confirm_seeds: int
    weights_dir: str | None = None
    latency: Document | None = None

    @property
    def fingerprint(self) -> str:
        """sha256 of the fingerprint document, in hexadecimal."""
        return document_key(self.fingerprint_document)

    @property
    def fine_tunes(self) -> bool:
        """Whether placements are trained from their share of a supernet's weights."""
        return "starts_from" in self.fingerprint_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study in the database.

    Attributes:
        id: its row.
        record: what it was made of, with the current totals.
        created_at: naive UTC.
        finished_at: naive UTC, or None while trials or confirmations are missing.
    """

    id: int
    record: StudyRecord
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSnapshot:
    """The front as it stood after a number of complete search trials.

    Attributes:
        num_complete: complete search trials at that time.
        members: trial numbers of the front's members.
        hypervolume: of that front, a fraction of the box.
    """

    num_complete: int
    members: tuple[int, ...]
    hypervolume: float
