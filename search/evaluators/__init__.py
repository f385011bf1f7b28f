"""Evaluators: what a placement is worth, by training it, or by looking it up."""

from __future__ import annotations

from sharedattn.search.evaluators.base import (
    Evaluator,
    Measurement,
    Task,
    evaluation_record,
    measure,
)

__all__ = ["Evaluator", "Measurement", "Task", "evaluation_record", "measure"]
