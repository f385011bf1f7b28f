"""Write a study: the fence around its transactions, the rows in them, and the writer's verbs."""

from sharedattn.results.database.writing.fence import Fence
from sharedattn.results.database.writing.writer import StudyWriter

__all__ = ["Fence", "StudyWriter"]
