"""The calibration, thresholds and scope of a model folder, read strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from manyheads.errors import ModelError, at, option, shorten
from manyheads.storage import LAYOUT, Change, Manifest, add_files, not_tensors, sha256
from manyheads.tasks import Scope, Scoring, TaskSpec, kind_of, read_thresholds
from manyheads.tasks.calibration import read_calibration
from manyheads.tasks.scope import FEATURES

_SCOPE_FILE = "scope.safetensors"
"""The scope's file in a model of an earlier version; now a part of its digest is in the name."""
_SCOPE_FILES = re.compile(r"scope(-[0-9a-f]+)?\.safetensors")
_VECTORS = ("middle", "whitening", "centres", "direction", "weights")
_MOST_BYTES = 256 << 20
_LARGEST = 1e7
"""The largest absolute value in a scope's vectors. It is far above the values of any embedding, and
keeps sums in float32 from overflowing."""
_LARGEST_WEIGHT = 1e12
"""The largest weight of a scope. A feature that hardly varies has a large one."""


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


def store_calibration(
    model: Manifest, change: Change, scope: Scope | None, source: str, unknown: int = 0
) -> None:
    """Store a model's calibration, and its scope if it has one, in place of what it has.

    Each scope has a file name of its own, so that a reader finds either all old or all new.

    Args:
        model: the model's manifest.
        change: returns the new calibration without a scope, given the one that it has by now.
        scope: the scope.
        source: what the scope was fitted on, in words.
        unknown: the number of texts out of scope among that.

    Raises:
        ModelError: the folder holds another model by now or none, or its manifest is damaged.
        StorageError: a file cannot be written; the model in the folder stays intact.
    """
    if scope is None:
        add_files(model, {}, remove=_scope_files, calibration=change)
        return
    tensors = {name: getattr(scope, name).astype(np.float32) for name in _VECTORS}
    packed = safetensors_numpy.save(tensors)
    file = f"scope-{sha256(packed)[:8]}.safetensors"
    entry = {"task": scope.task, "source": source, "unknown": unknown, "file": file}
    add_files(
        model, {file: packed}, remove=_scope_files,
        calibration=lambda known: {**change(known), "scope": entry},
    )  # fmt: skip


def _scope_files(manifest: Manifest) -> list[str]:
    """Return the scope files that a model has, and those in its folder that no manifest lists.

    A calibration that was stopped before it wrote the manifest leaves one of the latter.
    """
    names = {*manifest.files, *(path.name for path in manifest.folder.glob("scope*"))}
    return sorted(filter(_SCOPE_FILES.fullmatch, names))


def _scope_file(manifest: Manifest) -> str:
    """Return the name of the file of a model's scope.

    Raises:
        ModelError: it is not the name of one.
    """
    where = at(manifest.folder / LAYOUT.manifest)
    name = _objects(manifest.calibration, "scope", where).get("file", _SCOPE_FILE)
    if not isinstance(name, str) or not _SCOPE_FILES.fullmatch(name):
        raise _refused(f"{shorten(name)} as the file of its scope", where)
    return name


def read_scope(manifest: Manifest, specs: Sequence[TaskSpec]) -> Scope | None:
    """Read the scope, which separates texts of known classes from others, if the model has one.

    Raises:
        ModelError: it is damaged, or does not fit the model.
    """
    where = at(manifest.folder / LAYOUT.manifest)
    stored = _objects(manifest.calibration, "scope", where)
    if not stored:
        return None
    spec = next((s for s in specs if s.name == stored.get("task")), None)
    if spec is None or not kind_of(spec.kind).scopes:
        raise _refused(f"a scope by the task {shorten(stored.get('task'))}", where)
    file = _scope_file(manifest)
    try:
        found = safetensors_numpy.load(manifest.read(file, _MOST_BYTES))
    except (SafetensorError, KeyError, ValueError) as error:
        raise not_tensors(error, manifest.folder / file) from None
    size, labels = manifest.embedding_size, len(spec.labels)
    # A model of an earlier version has none.
    found.setdefault("direction", np.zeros(size, np.float32))
    # At least 1, so that no whitening, or an empty one, has the wrong shape.
    rank = max([1, *found.get("whitening", np.zeros(0)).shape[-1:]])
    shapes = {
        "middle": (size,),
        "whitening": (size, rank),
        "centres": (labels, rank),
        "direction": (size,),
        "weights": (len(FEATURES) + 1,),
    }
    values = {}
    for name, shape in shapes.items():
        tensor = found.get(name, np.zeros(0))
        if tensor.dtype != np.float32 or tensor.shape != shape:
            stored_as = f"{tensor.dtype} {tensor.shape}" if name in found else "nothing"
            raise _refused(f"{stored_as} as {name} of its scope", where)
        # A class without examples has no centre: NaN.
        most = _LARGEST_WEIGHT if name in ("direction", "weights") else _LARGEST
        if (np.isnan(tensor).any() and name != "centres") or (np.abs(tensor) > most).any():
            raise _refused(f"numbers out of range as {name} of its scope", where)
        values[name] = tensor
    return Scope(spec.name, **values)


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
        fix="The model's files are damaged or were edited. Calibrate again: "
        + option("manyheads calibrate", "manyheads.calibrate(MODEL)"),
        where=where,
    )
