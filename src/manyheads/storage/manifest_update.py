"""Add files to a finished model folder, such as exported graphs, without ever breaking its seal.

The manifest is what makes a file part of the model. A file that is replaced is first taken off
the manifest, then written whole, then listed again. So whoever looks at any moment, also after a
power cut, finds a sealed model: with the old files, with none, or with the new ones.
"""

from __future__ import annotations

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
from manyheads.storage.untrusted import inside, read_json

# What every model consists of; it is written with the model, and never added.
_OWN = frozenset(name for name in (getattr(LAYOUT, field) for field in LAYOUT.__slots__))


def add_files(
    folder: StrPath, add: Mapping[str, Path | bytes], remove: Iterable[str] = ()
) -> dict[str, StoredFile]:
    """Make files part of a model, and others no longer.

    Args:
        folder: the model folder.
        add: by their names in the folder, such as `onnx/model.onnx`, the contents or a file to
            copy. Files that have these names are replaced.
        remove: files that are removed, if they are there.

    Returns:
        what the manifest says of the added files now.

    Raises:
        ModelError: it is no model folder, or its manifest is damaged.
        StorageError: a file cannot be written; the folder is a sealed model all the same.
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
    listed = {}
    for name, contents in add.items():
        target = root / name
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
        listed[name] = StoredFile(target.stat().st_size, sha256_file(target))
    if listed:
        _relist(root, listed, ())
    return listed


def _relist(root: Path, listed: Mapping[str, StoredFile], unlisted: Iterable[str]) -> None:
    """Write the manifest anew with some files more and some less."""
    path = root / LAYOUT.manifest
    values: dict[str, Any] = read_json(path)
    files = {name: entry for name, entry in values["files"].items() if name not in set(unlisted)}
    for name, stored in listed.items():
        files[name] = {"size": stored.size, "sha256": stored.sha256}
    values["files"] = dict(sorted(files.items()))
    values["sha256"] = seal(values)
    write_bytes(os.fspath(path), json_bytes(values))
