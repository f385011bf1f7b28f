"""Writing a study: fenced transactions, rows, and the writer."""

from sharedattn.results.database.writing.fence import Fence
from sharedattn.results.database.writing.writer import StudyWriter

__all__ = ["Fence", "StudyWriter"]
