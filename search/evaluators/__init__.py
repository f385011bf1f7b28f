"""Evaluators: the accuracy of a placement, by training or by looking it up."""

from __future__ import annotations

from sharedattn.search.evaluators.base import (
    Evaluator,
    Measurement,
    Task,
    evaluation_record,
    measure,
)

__all__ = ["Evaluator", "Measurement", "Task", "evaluation_record", "measure"]
