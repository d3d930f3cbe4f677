"""Chromium for tests of pages; a machine without it skips them, unless it must have it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_INSTALL = "apt install chromium && pip install playwright"


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium, as Playwright's `Browser`.

    With `MANYHEADS_BROWSER=required` a missing browser fails the test.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        message = f"no Chromium driven by Playwright: {_INSTALL}"
        if os.environ.get("MANYHEADS_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # Test machines are containers, in which Chromium's own sandbox cannot start.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()
