"""Frozen records read from and written to the database, usable without a session.

The ORM classes in `sharedattn.results.database.models` stay inside the store; all other code
uses these.
"""

from sharedattn.results.records.document import Document
from sharedattn.results.records.evaluation import (
    EvaluationIdentity,
    EvaluationRecord,
    Fidelity,
    StoredEvaluation,
    fine_tuning_key,
)
from sharedattn.results.records.origin import Origin
from sharedattn.results.records.spec import LatencyRecord, LatencySource, SpecRecord
from sharedattn.results.records.start import START_NOTE, Start
from sharedattn.results.records.study import FrontSnapshot, Study, StudyRecord
from sharedattn.results.records.trial import (
    FRONT_ROLES,
    Attempt,
    AttemptOutcome,
    EpochMetrics,
    RungRow,
    ScoredTrial,
    TrialParameters,
    TrialRole,
    TrialRow,
    TrialState,
)

__all__ = [
    "FRONT_ROLES",
    "START_NOTE",
    "Attempt",
    "AttemptOutcome",
    "Document",
    "EpochMetrics",
    "EvaluationIdentity",
    "EvaluationRecord",
    "Fidelity",
    "FrontSnapshot",
    "LatencyRecord",
    "LatencySource",
    "Origin",
    "RungRow",
    "ScoredTrial",
    "SpecRecord",
    "Start",
    "StoredEvaluation",
    "Study",
    "StudyRecord",
    "TrialParameters",
    "TrialRole",
    "TrialRow",
    "TrialState",
    "fine_tuning_key",
]
