"""Every evaluation method, by its name in `--evaluator` and in fingerprints."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from sharedattn.plugins import added
from sharedattn.search.evaluation.base import Evaluation
from sharedattn.search.evaluation.function import FromCallable
from sharedattn.search.evaluation.scratch import FromScratch
from sharedattn.search.evaluation.supernet import FromSupernet
from sharedattn.search.evaluation.table import FromTable

EVALUATIONS: dict[str, type[Evaluation]] = {
    kind.name: kind for kind in (FromScratch, FromSupernet, FromTable, FromCallable)
}


@cache
def functions_of_plugins() -> dict[str, Callable[..., Any]]:
    """Evaluators of plug-ins: functions as `FromCallable` calls them, by name.

    The name is that of the entry point, in the group `sharedattn.evaluators`.

    Raises:
        InputError: a plug-in cannot be imported, is not a function, or reuses a name.
    """
    return dict(
        added(
            "sharedattn.evaluators",
            EVALUATIONS,
            what="an evaluator",
            wanted="a function from a network or a placement to metrics",
            fits=callable,
            names_of=lambda point, _: [point],
        )
    )
