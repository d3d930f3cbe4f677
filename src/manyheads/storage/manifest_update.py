"""Add files to a finished model folder, such as exported graphs, and keep it intact throughout.

Only files that the manifest lists are part of the model. A file to be replaced is first removed
from the manifest, then written whole, then listed again. At any moment, even after a power cut, a
reader finds an intact model: with the old files, without them, or with the new ones.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from manyheads.storage.atomic import (
    StrPath,
    atomic_file,
    explained,
    json_bytes,
    sha256_file,
    write_bytes,
)
from manyheads.storage.manifest import LAYOUT, StoredFile, read_manifest, seal
from manyheads.storage.model_card import with_calibration
from manyheads.storage.untrusted import inside, read_json

# The files of every model, written with the model and never added.
_OWN = frozenset(name for name in (getattr(LAYOUT, field) for field in LAYOUT.__slots__))


def add_files(
    folder: StrPath, add: Mapping[str, Path | bytes], remove: Iterable[str] = ()
) -> dict[str, StoredFile]:
    """Add files to a model, and remove others.

    Args:
        folder: the model folder.
        add: the contents or a file to copy, by name in the folder, such as `onnx/model.onnx`.
            Existing files of these names are replaced.
        remove: files to remove, if they exist.

    Returns:
        The manifest's new entries, by name.

    Raises:
        ModelError: it is no model folder, or its manifest is damaged.
        StorageError: a file cannot be written; the model in the folder stays intact.
    """
    manifest = read_manifest(folder)
    root = manifest.folder
    gone = [*remove]
    for name in (*add, *gone):
        inside(root, name)
        if name in _OWN:
            raise ValueError(f"{name} is the model's own and cannot be added or removed")
    replaced = [name for name in (*gone, *add) if name in manifest.files]
    if replaced:
        _relist(root, {}, replaced)
    for name in gone:
        with explained(root / name):
            (root / name).unlink(missing_ok=True)
    listed = {name: _stored(root / name, contents) for name, contents in add.items()}
    if listed:
        _relist(root, listed, ())
    return listed


def _stored(target: Path, contents: Path | bytes) -> StoredFile:
    """Write bytes, or a copy of a file, and return the manifest's entry for it."""
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(contents, bytes):
        write_bytes(target, contents)
    else:
        with (
            explained(contents, "read"),
            contents.open("rb") as source,
            atomic_file(target) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    return StoredFile(target.stat().st_size, sha256_file(target))


def set_calibration(folder: StrPath, calibration: Mapping[str, Any]) -> None:
    """Replace a model's calibration in its manifest and its card.

    Raises:
        ModelError: it is no model folder, or its manifest is damaged.
        StorageError: a file cannot be written; the model in the folder stays intact.
    """
    root = read_manifest(folder).folder
    values: dict[str, Any] = read_json(root / LAYOUT.manifest)
    # As it will be read back, so that the seal does not depend on types that JSON lacks.
    values["calibration"] = json.loads(json.dumps(calibration))
    _write(root, values)
    card = root / LAYOUT.card
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        if (new := with_calibration(text, values["calibration"])) != text:
            write_bytes(card, new.encode())


def _relist(root: Path, listed: Mapping[str, StoredFile], unlisted: Iterable[str]) -> None:
    """Rewrite the manifest with some files added and others removed."""
    values: dict[str, Any] = read_json(root / LAYOUT.manifest)
    files = {name: entry for name, entry in values["files"].items() if name not in set(unlisted)}
    for name, stored in listed.items():
        files[name] = {"size": stored.size, "sha256": stored.sha256}
    values["files"] = dict(sorted(files.items()))
    _write(root, values)


def _write(root: Path, values: dict[str, Any]) -> None:
    """Seal a manifest and write it."""
    values["sha256"] = seal(values)
    write_bytes(os.fspath(root / LAYOUT.manifest), json_bytes(values))
