"""Search strategies: trials one by one, or scores of a supernet."""

from __future__ import annotations

from sharedattn.search.study.strategies.base import SearchStrategy, StudyParts
from sharedattn.search.study.strategies.one_by_one import OneByOne

__all__ = ["OneByOne", "SearchStrategy", "StudyParts"]
