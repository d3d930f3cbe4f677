"""A model that the tests of this folder may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serving import served_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the served model, which the test may change."""
    return Path(shutil.copytree(served_model(), tmp_path / "model"))
