"""What a model folder knows of the trust in its scores, read strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manyheads.errors import ModelError, at, shorten
from manyheads.storage import LAYOUT, Manifest
from manyheads.tasks import Scoring, TaskSpec, kind_of
from manyheads.tasks.calibration import read_calibration
from manyheads.tasks.scoring import read_thresholds


def read_scorings(
    manifest: Manifest, specs: Sequence[TaskSpec], backend: str = "torch"
) -> dict[str, Scoring]:
    """Read each task's calibration and thresholds.

    Args:
        manifest: the model's.
        specs: its tasks.
        backend: the backend that predicts; some have calibrations of their own.

    Raises:
        ModelError: a calibration is damaged, or not one of its task.
    """
    where = at(manifest.folder / LAYOUT.manifest)
    stored = _objects(manifest.calibration, "tasks", where)
    own = _objects(_objects(manifest.calibration, "backends", where), backend, where)
    known = {spec.name: spec for spec in specs}
    scorings = {}
    for name in stored:
        task = _objects(stored, name, where)
        if name not in known:
            raise _refused(f"a calibration of the task {shorten(name)}", where)
        scores = _objects(own, name, where).get("scores") or task.get("scores")
        calibration = read_calibration(scores, f"task {shorten(name)}")
        if not kind_of(known[name].kind).accepts(known[name], calibration):
            raise _refused(f"{calibration.method} for the task {shorten(name)}", where)
        limits = task.get("thresholds")
        scorings[name] = Scoring(
            calibration,
            None if limits is None else read_thresholds(limits, f"task {shorten(name)}"),
        )
    return scorings


def _objects(values: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """Return an object in another one; empty where there is none."""
    found = values.get(name, {})
    if not isinstance(found, dict):
        raise _refused(f"{shorten(found)} as {shorten(name)}", where)
    return found


def _refused(found: str, where: str) -> ModelError:
    return ModelError(
        f"its calibration has {found}",
        expected="calibrations of its tasks",
        fix="The model's files are damaged or were edited. Calibrate again: manyheads calibrate",
        where=where,
    )
