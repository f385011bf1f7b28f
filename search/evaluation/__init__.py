"""Evaluation methods: each prepares its own part of a search."""

from __future__ import annotations

from sharedattn.search.evaluation.base import Evaluation, Setup
from sharedattn.search.evaluation.function import FromCallable
from sharedattn.search.evaluation.kinds import EVALUATIONS, functions_of_plugins
from sharedattn.search.evaluation.scratch import FromScratch
from sharedattn.search.evaluation.supernet import FromSupernet
from sharedattn.search.evaluation.table import FromTable

__all__ = [
    "EVALUATIONS",
    "functions_of_plugins",
    "Evaluation",
    "FromCallable",
    "FromScratch",
    "FromSupernet",
    "FromTable",
    "Setup",
]
