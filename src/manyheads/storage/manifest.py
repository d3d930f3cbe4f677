"""The manifest of a model folder, by which its files are verified as they are read.

`manyheads.json` is the folder's manifest: it describes the model, and lists the size and SHA-256 of
every other file. Each file is verified as it is read; one that is damaged, truncated, missing or
from another model is refused by name. Only the model card is not listed, because users may edit it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from manyheads.errors import ModelError, counted, option, shorten
from manyheads.storage.atomic import StorageError, StrPath, sha256, sha256_file
from manyheads.storage.embedding import DenseLayer, Reading, embedding_size, known_pooling
from manyheads.storage.layout import LAYOUT, OWN_FILES, dense_folder, is_model_folder
from manyheads.storage.untrusted import (
    MAX_JSON_BYTES,
    Fields,
    inside,
    parse_json,
    read_bytes,
    read_json,
)

FORMAT = "manyheads model"
FORMAT_VERSION = 1
BEFORE_REFIT = ", by the model before it was refitted"
"""The end of a calibration's source, in a refitted model that has it from the model before."""

_SHA256 = re.compile("[0-9a-f]{64}")
_Read = TypeVar("_Read")
GET_AGAIN = "Copy the whole folder again, or train the model again."


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's entry in a manifest."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of `manyheads.json`."""

    folder: Path
    tasks: tuple[Mapping[str, Any], ...]
    """Each task as `TaskSpec.to_json` writes it."""
    pooling: str
    normalize: bool
    max_length: int
    hidden_size: int
    tokenizer_files: tuple[str, ...]
    metrics: Mapping[str, Any] = field(repr=False)
    """The scores on the validation data, in the form of `evaluate --json`."""
    config: Mapping[str, Any] = field(repr=False)
    """The configuration of the run that made the model."""
    versions: Mapping[str, str] = field(repr=False)
    files: Mapping[str, StoredFile] = field(repr=False)
    shared_tensors: Mapping[str, Mapping[str, str]] = field(repr=False)
    """By safetensors file: for each name without its own tensor, the name of the tensor that it
    shares."""
    reading: Reading = field(default_factory=Reading)
    dense: tuple[Mapping[str, Any], ...] = ()
    """The settings of each layer after the pooling."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """How scores are calibrated: `tasks`, `backends` and `scope`; empty if they are not."""
    epoch: int | None = None
    """The epoch of the run that made the model, counted from 1; None if that is not known."""

    @property
    def embedding_size(self) -> int:
        """Length of the embedding."""
        where = os.fspath(self.folder / LAYOUT.manifest)
        layers = [
            DenseLayer.from_settings(Fields(one, where, GET_AGAIN), b"") for one in self.dense
        ]
        return embedding_size(self.hidden_size, self.pooling, layers)

    def is_same_model(self, other: Manifest) -> bool:
        """Return whether another manifest is of the same model, whatever was added to either."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[Any, ...]:
        """Return the tasks and the checksums of the files that the model was saved with."""
        dense = (f"{dense_folder(i)}/{LAYOUT.weights}" for i in range(len(self.dense)))
        return (
            self.tasks,
            self.dense,
            [(name, self.files.get(name)) for name in (*OWN_FILES, *dense)],
        )

    def path(self, name: str) -> Path:
        """Return the path of one of the model's files, whether the file exists or not.

        Raises:
            ModelError: the manifest does not list it.
        """
        if name not in self.files:
            found = f"has no {shorten(name)} in its list of files"
            raise _broken(found, "all files of the model", self.folder / LAYOUT.manifest)
        return inside(self.folder, name)

    def read(self, name: str, max_bytes: int = MAX_JSON_BYTES) -> bytes:
        """Read one of the model's files, and verify its contents.

        Raises:
            ModelError: it is not listed, missing, truncated, damaged or from another model.
            StorageError: it cannot be read.
        """
        path = self.path(name)
        self._check_size(name, path)
        data = read_bytes(path, max_bytes)
        self._check_digest(name, path, sha256(data))
        return data

    def read_json(self, name: str) -> Any:
        """Read one of the model's JSON files, verified (raises as `read` does)."""
        return parse_json(self.read(name), os.fspath(self.folder / name))

    def verify(self, *names: str) -> None:
        """Verify some of the model's files, or all of them, in constant memory.

        Raises:
            ModelError: one is not listed, missing, truncated, damaged or from another model.
            StorageError: one cannot be read.
        """
        for name in names or self.files:
            path = self.path(name)
            self._check_size(name, path)
            self._check_digest(name, path, sha256_file(path))

    def _check_size(self, name: str, path: Path) -> None:
        expected = f"the {self.files[name].size} bytes that the model was saved with"
        if not path.is_file():
            raise _broken("is missing", expected, path)
        size = path.stat().st_size
        if size != self.files[name].size:
            fix = f"It is truncated, or from another model. {GET_AGAIN}"
            raise _broken(f"has {counted(size, 'byte')}", expected, path, fix)

    def _check_digest(self, name: str, path: Path, digest: str) -> None:
        if digest != self.files[name].sha256:
            expected = f"{self.files[name].sha256}, which the model was saved with"
            fix = f"It is damaged, or from another model. {GET_AGAIN}"
            raise _broken(f"has the SHA-256 {digest}", expected, path, fix)


def _broken(found: str, expected: str, path: Path, fix: str = GET_AGAIN) -> ModelError:
    return ModelError(found, expected=expected, fix=fix, where=os.fspath(path))


def read_manifest(folder: StrPath) -> Manifest:
    """Read and check the manifest of a model folder.

    Raises:
        ModelError: there is no such folder, it is not a Manyheads model, is damaged or hostile,
            or has a format newer than this version of Manyheads.
        StorageError: it cannot be read.
    """
    root = Path(folder)
    path = root / LAYOUT.manifest
    if not is_model_folder(root):
        raise ModelError(
            f"has no {LAYOUT.manifest}" if root.is_dir() else "is not a folder that exists",
            expected="a model folder that Manyheads wrote, such as saved_model/best",
            fix="Check the path, or train a model with "
            f"{option('`manyheads train`', 'manyheads.train')}.",
            where=os.fspath(folder),
        )
    where = os.fspath(path)
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        expected = f'a file with "format": "{FORMAT}"'
        raise _broken("is not the manifest of a Manyheads model", expected, path)
    check_format_version(values.get("format_version"), values.get("versions"), where)
    if values.get("sha256") != seal(values):
        expected, fix = "the checksum that it ends with", "It is damaged, or was edited."
        raise _broken("has changed since the model was saved", expected, path, f"{fix} {GET_AGAIN}")
    return _parse(root, values, where)


def read_model(folder: StrPath, read: Callable[[Manifest], _Read]) -> _Read:
    """Read a model by one manifest, so that all parts are of the same model.

    If its files do not fit the manifest because the model was replaced meanwhile, it is read once
    more, by the new manifest.

    Args:
        folder: the model folder.
        read: reads the model by its manifest.

    Raises:
        ManyheadsError: as `read_manifest` and `read` do.
    """
    manifest = read_manifest(folder)
    try:
        return read(manifest)
    except (ModelError, StorageError):
        newer = read_manifest(folder)
        if newer == manifest:
            raise
    return read(newer)


def check_format_version(
    version: object, versions: object, where: str, newest: int = FORMAT_VERSION
) -> None:
    """Refuse a format that this version of Manyheads does not know.

    Args:
        version: the format's number, as found.
        versions: the versions of the software that wrote it, as found.
        where: the file's name in an error.
        newest: the newest known format.

    Raises:
        ModelError: it is newer, or not the number of a format.
    """
    if type(version) is int and 1 <= version <= newest:
        return
    writer = versions.get("manyheads") if isinstance(versions, Mapping) else None
    if type(version) is int and version > newest:
        raise ModelError(
            f"is of format {version}, written by Manyheads {shorten(writer)}",
            expected=f"format {newest} or older",
            fix="Upgrade: pip install --upgrade manyheads.",
            where=where,
        )
    raise ModelError(
        f"has {shorten(version)} as its format version",
        expected=f"a number from 1 to {newest}",
        fix=GET_AGAIN,
        where=where,
    )


def seal(values: Mapping[str, Any]) -> str:
    """Return the checksum of a manifest's values, independent of their layout."""
    rest = {key: value for key, value in values.items() if key != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode("ascii"))


def _parse(folder: Path, values: Mapping[str, Any], where: str) -> Manifest:
    fields = Fields(values, where, GET_AGAIN)
    encoder, listed = fields.inner("encoder"), fields.inner("files")
    shared = fields.inner("shared_tensors")
    files = {name: _stored_file(listed.inner(name)) for name in listed.values}
    names = encoder.get("tokenizer_files", list)
    known = all(isinstance(name, str) and name in files for name in names)
    if LAYOUT.tokenizer not in names or not known:
        encoder.refuse("tokenizer_files", names)
    pooling = encoder.get("pooling", str)
    if not known_pooling(pooling):
        encoder.refuse("pooling", pooling)
    return Manifest(
        folder=folder,
        tasks=fields.objects("tasks"),
        pooling=pooling,
        normalize=encoder.get("normalize", bool),
        max_length=encoder.get("max_length", int),
        hidden_size=encoder.get("hidden_size", int),
        tokenizer_files=tuple(names),
        metrics=fields.get("metrics", dict),
        config=fields.get("config", dict),
        versions={key: str(value) for key, value in fields.get("versions", dict).items()},
        files=files,
        shared_tensors={
            file: {alias: names.get(alias, str) for alias in names.values}
            for file in shared.values
            for names in (shared.inner(file),)
        },
        reading=Reading.of_encoder(encoder),
        # Version 0.1 wrote none.
        dense=encoder.objects("dense") if encoder.values.get("dense") else (),
        calibration=_calibration(fields),
        epoch=fields.get("epoch", int) if "epoch" in fields.values else None,
    )


def _stored_file(entry: Fields) -> StoredFile:
    digest = entry.get("sha256", str)
    if not _SHA256.fullmatch(digest):
        entry.refuse("sha256", digest)
    return StoredFile(entry.get("size", int), digest)


def _calibration(fields: Fields) -> Mapping[str, Any]:
    """Check the values of a calibration that are displayed; the predictor checks the parameters."""
    if "calibration" not in fields.values:
        return {}
    calibration = fields.inner("calibration")
    if "scope" in calibration.values:
        calibration.inner("scope").get("task", str)
    if "tasks" not in calibration.values:
        return calibration.values
    tasks = calibration.inner("tasks")
    for name in tasks.values:
        task = tasks.inner(name)
        for error in ("ece_before", "ece"):
            task.get(error, float)
        task.get("source", str)
        task.inner("scores").get("method", str)
        if task.values.get("thresholds") is not None:
            task.inner("thresholds").get("precision", float)
    return calibration.values
