"""Early stopping: which trials are worth their remaining epochs."""

from __future__ import annotations

from sharedattn.search.pruners.base import EarlyStopping, RungPoint
from sharedattn.search.pruners.mo_asha import MoAsha, default_rungs

__all__ = ["STOPPINGS", "EarlyStopping", "RungPoint", "default_rungs"]

STOPPINGS: dict[str, type[MoAsha]] = {rule.name: rule for rule in (MoAsha,)}
