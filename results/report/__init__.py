"""The report: one page of HTML that shows a study."""

from __future__ import annotations

from sharedattn.results.report.page import embedded_json, render_report, write_report

__all__ = [
    "embedded_json",
    "render_report",
    "write_report",
]
