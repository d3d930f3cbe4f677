"""The report of a model's errors as one HTML page, and as Markdown."""

from __future__ import annotations

import os

from manyheads.display.report.markdown import markdown
from manyheads.display.report.page import html_page
from manyheads.evaluation.report import Report
from manyheads.storage import StrPath, atomic_file

__all__ = ["html_page", "markdown", "write_report"]


def write_report(report: Report, path: StrPath, *, as_markdown: bool | None = None) -> int:
    """Write a report to a file, and return how many bytes it has.

    Args:
        report: the report.
        path: the file.
        as_markdown: whether it is Markdown, or else a page; default, by the file's ending.
    """
    if as_markdown is None:
        as_markdown = os.fspath(path).lower().endswith(".md")
    content = (markdown if as_markdown else html_page)(report).encode()
    with atomic_file(path) as stream:
        stream.write(content)
    return len(content)
