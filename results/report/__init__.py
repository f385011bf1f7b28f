"""Write a study's report: one page of HTML."""

from __future__ import annotations

from sharedattn.results.report.page import (
    embedded_json,
    pictures_path,
    render_report,
    write_report,
)

__all__ = [
    "embedded_json",
    "pictures_path",
    "render_report",
    "write_report",
]
