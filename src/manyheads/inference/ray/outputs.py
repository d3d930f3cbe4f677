"""The output folder, which is complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import fs

from manyheads.errors import RequestError, listing
from manyheads.storage import atomic_folder, explain

COMPLETE = "_SUCCESS"
"""Marks an output as complete in a file system without atomic renames."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files are written."""

    files: Any
    """A `pyarrow.fs.FileSystem`."""
    folder: str

    def names(self) -> list[str]:
        """Return the names of the folder's files."""
        found = self.files.get_file_info(fs.FileSelector(self.folder, allow_not_found=True))
        return sorted(info.base_name for info in found)


@contextmanager
def output_folder(output: str) -> Iterator[Place]:
    """Open a folder to write into, which becomes `output` when the body succeeds.

    On other file systems than this machine's, files are written in place and `_SUCCESS` is written
    last, since object stores cannot rename folders.

    Raises:
        RequestError: it is not empty, or there is no such file system.
        StorageError: the folder cannot be written.
    """
    files, path = _resolved(output)
    _refuse_contents(files, path, output)
    if isinstance(files, fs.LocalFileSystem):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, output) from error
        with atomic_folder(path) as temporary:
            yield Place(files, str(temporary))
        return
    files.create_dir(path)
    try:
        yield Place(files, path)
        with files.open_output_stream(f"{path}/{COMPLETE}"):
            pass
    except BaseException:
        with suppress(OSError):
            files.delete_dir_contents(path)
        raise


def _resolved(output: str) -> tuple[Any, str]:
    if "://" not in output:
        return fs.LocalFileSystem(), str(Path(output).absolute())
    try:
        files, path = fs.FileSystem.from_uri(output)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(
            f"the file system cannot be opened ({error})",
            where=output,
            expected="a path, or a URI such as file://, s3://, gs://, abfs:// or hdfs://",
        ) from error
    return files, path.rstrip("/")


def _refuse_contents(files: Any, path: str, output: str) -> None:
    try:
        kind = files.get_file_info(path).type
        found = kind is fs.FileType.Directory and Place(files, path).names()
    except OSError as error:
        raise RequestError(f"cannot be looked at ({error})", where=output) from error
    if kind is fs.FileType.File:
        raise RequestError("it is a file", where=output, expected="a folder, which need not exist")
    if found:
        raise RequestError(
            f"the folder holds something already: {listing(found)}",
            where=output,
            expected="a new or empty folder",
            fix="Choose another one, or remove this one first.",
        )
