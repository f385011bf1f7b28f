"""Early stopping: which trials are worth their remaining epochs."""

from __future__ import annotations

from sharedattn.search.pruners.base import Pruner, RungPoint
from sharedattn.search.pruners.mo_asha import MoAsha, default_rungs

__all__ = ["PRUNERS", "Pruner", "RungPoint", "default_rungs"]

PRUNERS: dict[str, type[Pruner]] = {pruner.name: pruner for pruner in (MoAsha,)}
