"""Add files to a finished model folder, such as exported graphs, and keep it intact throughout.

Only files that the manifest lists are part of the model. New files are written whole, then listed,
together with a new calibration; files to be removed leave the list in the same write, and the disk
after it. A file that is to be replaced by other contents leaves the list once these are on the
disk, under a temporary name. At any moment, even after a power cut, a reader finds an intact model:
with the old files, with the new ones or, only while files of the same names are renamed, without
them.

Results are added to the model that they were made from: writers of a folder wait for each other,
and one that finds another model there is refused.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from manyheads.errors import ModelError
from manyheads.storage.atomic import (
    atomic_file,
    explained,
    json_bytes,
    sha256,
    sha256_file,
    write_bytes,
)
from manyheads.storage.layout import LAYOUT, OWN_FILES
from manyheads.storage.locked import only_writer
from manyheads.storage.manifest import Manifest, StoredFile, read_manifest, seal
from manyheads.storage.model_card import with_calibration
from manyheads.storage.untrusted import inside, read_json

Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Returns a model's new calibration, given the one that its manifest has by now."""


def add_files(
    model: Manifest,
    add: Mapping[str, Path | bytes],
    remove: Iterable[str] | Callable[[Manifest], Iterable[str]] = (),
    calibration: Change | None = None,
) -> dict[str, StoredFile]:
    """Add files to a model, and remove others. Other writers of the folder wait.

    Args:
        model: the manifest of the model that the files belong to.
        add: the contents or a file to copy, by name in the folder, such as `onnx/model.onnx`.
            Existing files of these names are replaced.
        remove: files to remove, if they exist; or a function that returns them, given the manifest
            that the folder has by now.
        calibration: changes the calibration together with the list of files.

    Returns:
        The manifest's new entries, by name.

    Raises:
        ModelError: the folder holds another model by now or none, or its manifest is damaged.
        StorageError: a file cannot be written; the model in the folder stays intact.
    """
    root = model.folder
    with _locked(model) as manifest:
        stale = remove(manifest) if callable(remove) else remove
        gone = [name for name in stale if name not in add]
        for name in (*add, *gone):
            inside(root, name)
            if name in OWN_FILES:
                raise ValueError(f"{name} is the model's own and cannot be added or removed")
        replaced = [
            name
            for name, contents in add.items()
            if name in manifest.files and not _is(contents, manifest.files[name])
        ]
        with ExitStack() as written:
            for name, contents in add.items():
                _write(written.enter_context(_new_file(root / name)), contents, root / name)
            if replaced:
                _rewrite(root, unlisted=replaced)
        listed = {name: _entry(root / name) for name in add}
        if listed or calibration or not manifest.files.keys().isdisjoint(gone):
            _rewrite(root, listed, gone, calibration)
        for name in gone:
            with explained(root / name):
                (root / name).unlink(missing_ok=True)
    return listed


def change_calibration(model: Manifest, change: Change) -> None:
    """Change a model's calibration in its manifest and its card. Other writers wait.

    Args:
        model: the manifest of the model that the calibration is of.
        change: returns the new calibration, given what the manifest has by now.

    Raises:
        ModelError: the folder holds another model by now or none, or its manifest is damaged.
        StorageError: a file cannot be written; the model in the folder stays intact.
    """
    with _locked(model):
        _rewrite(model.folder, calibration=change)


@contextmanager
def _locked(model: Manifest) -> Iterator[Manifest]:
    """Keep other writers from a model's folder, and yield its manifest as it is now.

    Raises:
        ModelError: the folder holds another model by now.
    """
    with ExitStack() as held:
        # Without a folder, reading the manifest says so.
        if model.folder.is_dir():
            with explained(model.folder):
                held.enter_context(only_writer(model.folder))
        manifest = read_manifest(model.folder)
        if not manifest.is_same_model(model):
            raise ModelError(
                "holds another model than when this began",
                expected="the model that the results belong to",
                fix="Repeat it for the new model.",
                where=os.fspath(model.folder),
            )
        yield manifest


def _is(contents: Path | bytes, stored: StoredFile) -> bool:
    """Return whether these are the contents of a file that the manifest lists."""
    if isinstance(contents, bytes):
        return sha256(contents) == stored.sha256
    with explained(contents, "read"):
        return sha256_file(contents) == stored.sha256


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces another one, or appears, at the end of the block."""
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as file:
        yield file


def _write(file: BinaryIO, contents: Path | bytes, target: Path) -> None:
    """Write bytes, or a copy of a file, so that a full disk shows now."""
    if isinstance(contents, bytes):
        file.write(contents)
    else:
        with explained(contents, "read"), contents.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
    file.flush()
    with explained(target):
        os.fsync(file.fileno())


def _entry(file: Path) -> StoredFile:
    """Return the manifest's entry for a file."""
    return StoredFile(file.stat().st_size, sha256_file(file))


def _rewrite(
    root: Path,
    listed: Mapping[str, StoredFile] | None = None,
    unlisted: Iterable[str] = (),
    calibration: Change | None = None,
) -> None:
    """Rewrite the manifest with some files added, others removed, or another calibration."""
    values: dict[str, Any] = read_json(root / LAYOUT.manifest)
    files = {name: entry for name, entry in values["files"].items() if name not in set(unlisted)}
    for name, stored in (listed or {}).items():
        files[name] = {"size": stored.size, "sha256": stored.sha256}
    values["files"] = dict(sorted(files.items()))
    if calibration is not None:
        # As it will be read back, so that the seal does not depend on types that JSON lacks.
        known = values.get("calibration", {})
        changed = json.loads(json.dumps(calibration(known)))
        if changed != known:
            values["calibration"] = changed
    values["sha256"] = seal(values)
    write_bytes(root / LAYOUT.manifest, json_bytes(values))
    if calibration is not None:
        _rewrite_card(root / LAYOUT.card, values.get("calibration", {}))


def _rewrite_card(card: Path, calibration: Mapping[str, Any]) -> None:
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        if (new := with_calibration(text, calibration)) != text:
            write_bytes(card, new.encode())
