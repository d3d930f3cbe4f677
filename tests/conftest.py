"""Settings for all tests."""

from __future__ import annotations

import sys

import pytest

NEED_AN_EXPORT = {"test_export.py", "test_ray.py", "test_runtime.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of exported models where there is no onnxruntime that can make them."""
    if sys.version_info >= (3, 11):
        return
    reason = "the last onnxruntime for Python 3.10 fuses no attention of transformers 5"
    for item in items:
        if item.path.name in NEED_AN_EXPORT:
            item.add_marker(pytest.mark.skip(reason=reason))
