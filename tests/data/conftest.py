"""A folder for property tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for property tests, each of which overwrites its own file again and again."""
    return tmp_path_factory.mktemp("properties")
