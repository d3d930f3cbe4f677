"""The report of a model's errors as one HTML page, and as Markdown."""

from __future__ import annotations

from manyheads.display.report.markdown import markdown
from manyheads.display.report.page import html_page

__all__ = ["html_page", "markdown"]
