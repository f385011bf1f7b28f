"""Records of studies and their fronts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sharedattn.hashing import document_key
from sharedattn.results.records.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study as first written.

    Attributes:
        name: unique in the database.
        fingerprint_document: every choice that identifies the study; another study of this name
            with another document is refused.
        space: the space's document.
        data: the data's document (name, version, splits, fingerprint).
        recipe: the training recipe's document.
        objectives: names of the objectives, in order.
        searcher: the searcher's name.
        seed: the study's seed.
        reference_point: the hypervolume's reference point by objective, fixed before the first
            trial.
        provenance: command line, versions and machine of the first run.
        num_trials: total number of search trials; may change between runs.
        confirm_seeds: total seeds per front member; may change between runs.
        weights_dir: the weights folder of the first run, or None if unknown.
        latency: how latencies are measured (`source`, `where`, `setting` and `backbone`), or None
            without latencies.
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
    def quality(self) -> str:
        """Name of the measured objective, such as top1."""
        return self.objectives[0]

    @property
    def max_macs(self) -> int | None:
        """The budget's most MACs, or None without such a bound."""
        found: int | None = self.fingerprint_document.get("max_macs")
        return found

    @property
    def retrains(self) -> bool:
        """Whether the front is trained for more epochs than the search's trials."""
        return "final_epochs" in self.fingerprint_document

    @property
    def fine_tunes(self) -> bool:
        """Whether placements are trained from their share of the supernet's weights."""
        return "starts_from" in self.fingerprint_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study in the database.

    Attributes:
        id: id of its row.
        record: its record, with the current totals.
        created_at: naive UTC.
        finished_at: naive UTC, or None while trials or confirmations are outstanding.
    """

    id: int
    record: StudyRecord
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSnapshot:
    """The front after a number of complete search trials.

    Attributes:
        num_complete: number of complete search trials by then.
        members: trial numbers of its members.
        hypervolume: its hypervolume, a fraction of the box.
    """

    num_complete: int
    members: tuple[int, ...]
    hypervolume: float
