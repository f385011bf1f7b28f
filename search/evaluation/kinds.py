"""Every way of evaluating, by the name that `--evaluator` and fingerprints give it."""

from __future__ import annotations

from sharedattn.search.evaluation.base import Evaluation
from sharedattn.search.evaluation.function import FromCallable
from sharedattn.search.evaluation.scratch import FromScratch
from sharedattn.search.evaluation.supernet import FromSupernet
from sharedattn.search.evaluation.table import FromTable

EVALUATIONS: dict[str, type[Evaluation]] = {
    kind.name: kind for kind in (FromScratch, FromSupernet, FromTable, FromCallable)
}
