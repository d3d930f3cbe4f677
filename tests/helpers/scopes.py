"""A scope for a model that has too few classes to fit one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyheads.inference import store_calibration
from manyheads.storage import read_manifest
from manyheads.tasks import Scope
from manyheads.tasks.scope import FEATURES


def store_scope(folder: Path, task: str, *, unknown: int) -> None:
    """Store a scope of random numbers in a model folder, told by one of its tasks."""
    manifest = read_manifest(folder)
    (spec,) = (one for one in manifest.tasks if one["name"] == task)
    size, draw = manifest.embedding_size, np.random.default_rng(0)
    scope = Scope(
        task, draw.normal(size=size), draw.normal(size=(size, 2)),
        draw.normal(size=(len(spec["labels"]), 2)), draw.normal(size=size),
        draw.normal(size=len(FEATURES) + 1),
    )  # fmt: skip
    store_calibration(manifest, lambda own: own, scope, "some records", unknown)
