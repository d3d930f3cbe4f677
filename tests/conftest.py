"""Settings for all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

NEED_AN_EXPORT = {
    "test_export.py",
    "test_gate.py",
    "test_graphs.py",
    "test_int8.py",
    "test_ray.py",
    "test_runtime.py",
}

# Property tests do not depend on the machine's speed.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

# The files that take longest, from the longest on, so that all test processes end at about the same
# time. Those that use `forked.py` follow each other, so that few processes start its server.
FIRST = (
    "training/test_distributed.py",
    "inference/test_ray.py",
    "training/test_signals.py",
    "training/test_kills.py",
    "training/test_run_folder.py",
    "cli/test_info.py",
    "project/test_readme.py",
    "exporting/test_export.py",
    "training/test_balancing.py",
    "training/test_activation_cache.py",
    "training/test_reliability.py",
    "inference/test_runtime.py",
    "training/test_resume.py",
    "training/test_teaching.py",
    "test_jupyter.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, and skip what this Python has no onnxruntime for."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    if sys.version_info >= (3, 11):
        return
    reason = "the last onnxruntime for Python 3.10 fuses no attention of transformers 5"
    for item in items:
        if item.path.name in NEED_AN_EXPORT:
            item.add_marker(pytest.mark.skip(reason=reason))
