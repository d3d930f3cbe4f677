"""Read files from untrusted sources: of bounded size, and never outside their folder.

A model folder may come from anywhere. Its files are read with limits on size and depth, the files
that they name must lie in the folder, and a request to run code is refused.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, NoReturn

from manyheads.errors import ModelError, shorten
from manyheads.storage.atomic import StorageError, StrPath, explain, explained

MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 100
# The largest integers in an encoder's configuration: in general, for parts that are built one by
# one, and by name.
MAX_SIZE = 10_000_000
MAX_LAYERS = 500
_BUILT_ONE_BY_ONE = ("layer", "block", "group", "depth", "stage")
MAX_SIZES = {"num_labels": 100_000}

# Keys by which a configuration names Python code to download or import, and run.
_CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines")
# Keys that name one of transformers' ways to compute attention, or a repository of compiled code.
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


_DISTRUST = "Do not use it; get the model again from a source that you trust."


@contextmanager
def open_regular(path: StrPath) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        StorageError: it is missing, unreadable or not a regular file; opening a pipe would block.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise explain(error, path, "read") from error
    except ValueError as error:  # a null byte
        raise StorageError(f"path {os.fspath(path)!r} is not valid: {error}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise StorageError(
            f"cannot be read: it is {kind}",
            expected="a file",
            fix="Correct the path.",
            where=os.fspath(path),
        )
    with os.fdopen(descriptor, "rb") as file, explained(path, "read"):
        yield file


def read_bytes(path: StrPath, max_bytes: int) -> bytes:
    """Read a whole regular file that must not be larger than a limit.

    Raises:
        StorageError: it is missing, unreadable, too large, or not a regular file.
    """
    with open_regular(path) as file:
        size, data = os.fstat(file.fileno()).st_size, b""
        if size <= max_bytes:
            data = file.read(size + 1)  # it may have grown
    if max(size, len(data)) > max_bytes:
        raise StorageError(
            f"cannot be read: it has {max(size, len(data))} bytes",
            expected=f"at most {max_bytes}",
            fix="Check that it is the right file.",
            where=os.fspath(path),
        )
    return data


def read_json(
    path: StrPath, max_bytes: int = MAX_JSON_BYTES, *, max_depth: int = MAX_JSON_DEPTH
) -> Any:
    """Read a JSON file of limited size and depth.

    Raises:
        StorageError: it is missing, unreadable or too large.
        ModelError: it is not JSON, or nested too deep.
    """
    return parse_json(read_bytes(path, max_bytes), os.fspath(path), max_depth=max_depth)


def parse_json(data: bytes | str, where: str, *, max_depth: int = MAX_JSON_DEPTH) -> Any:
    """Parse JSON of limited depth.

    Args:
        data: the text, whose size the caller has limited.
        where: its name in an error.

    Raises:
        ModelError: it is not JSON, nested too deep, or has a number that is not finite.
    """
    too_deep = ModelError(
        f"is nested more than {max_depth} levels deep",
        expected="a file that Manyheads or transformers wrote",
        fix=_DISTRUST,
        where=where,
    )
    try:
        value = json.loads(data)
    except RecursionError:
        raise too_deep from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _not_json(f"{error.msg} ({place})", where) from None
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise _not_json(shorten(str(error), 120), where) from None
    for _, item, depth in walk(value):
        if depth > max_depth:
            raise too_deep
        # Python reads NaN, Infinity and 1e999, and could not write them again.
        if type(item) is float and not math.isfinite(item):
            raise _not_json(f"it has the number {item}", where, "finite numbers")
    return value


def _not_json(found: str, where: str, expected: str = "") -> ModelError:
    return ModelError(
        f"is not JSON: {found}",
        expected=expected,
        fix="The file is damaged; get it again, or restore it from a copy.",
        where=where,
    )


def walk(value: Any) -> Iterator[tuple[str | None, Any, int]]:
    """Yield every value in nested dictionaries and lists, with its key and depth.

    Items of a list have no key. The walk is lazy and not recursive.
    """
    todo: list[tuple[str | None, Any, int]] = [(None, value, 0)]
    while todo:
        key, item, depth = todo.pop()
        yield key, item, depth
        if isinstance(item, dict):
            todo.extend((name, inner, depth + 1) for name, inner in item.items())
        elif isinstance(item, list | tuple):
            todo.extend((None, inner, depth + 1) for inner in item)


def refuse_code(value: Any, where: str) -> None:
    """Refuse a configuration that asks to run its own Python code.

    Args:
        value: the parsed `config.json`, `tokenizer_config.json` or the like.
        where: its name in an error.

    Raises:
        ModelError: it has a key such as `auto_map`, at any depth, or names attention kernels to
            download.
    """
    for key, item, _ in walk(value):
        foreign = key in _ATTENTION_KEYS and "/" in str(item)
        if foreign or (key in _CODE_KEYS and item not in (None, False, {}, [])):
            raise ModelError(
                f'"{key}" asks for code from the model to be run: {shorten(item)}',
                expected="a model that transformers supports itself",
                fix="Manyheads runs no code from a model; choose another one.",
                where=where,
            )


def refuse_sizes(value: Any, where: str) -> None:
    """Refuse a configuration with numbers that no encoder has, before a library builds from it.

    A library creates `num_labels` names of labels, and layers without parameters take no space in a
    file: the stored tensors reveal neither.

    Args:
        value: the parsed `config.json`.
        where: its name in an error.

    Raises:
        ModelError: an integer in it is too large.
    """
    for key, item, _ in walk(value):
        is_many = any(part in str(key) for part in _BUILT_ONE_BY_ONE)
        limit = MAX_LAYERS if is_many else MAX_SIZES.get(str(key), MAX_SIZE)
        if isinstance(item, int) and not -MAX_SIZE <= item <= limit:
            raise ModelError(
                f'has {shorten(item)} as "{shorten(key)[1:-1]}"',
                expected=f"at most {limit}",
                fix=_DISTRUST,
                where=where,
            )


def inside(folder: StrPath, name: str) -> Path:
    """Return the path of a file that a folder's own files name, if it is inside that folder.

    The files of a Hugging Face cache are links from `snapshots/` to `blobs/` beside it; those
    count as inside.

    Raises:
        ModelError: the name is absolute, climbs out with `..`, or is a symbolic link out.
    """
    root = Path(folder)
    pure, windows = PurePosixPath(name), PureWindowsPath(name)
    if (
        not pure.parts
        or pure.is_absolute()
        or bool(windows.anchor)
        or ".." in (*pure.parts, *windows.parts)
        or "\0" in name
    ):
        raise ModelError(
            f"the file name {shorten(name)} leads out of the folder",
            expected="a file in it",
            fix="Do not use this model; get it again from a source that you trust.",
            where=os.fspath(folder),
        )
    home = root.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    if not (root / name).resolve().is_relative_to(home):
        raise ModelError(
            f"the symbolic link {shorten(name)} leads out of the folder",
            expected="a file in it",
            fix="If a data-versioning tool made the link, copy the folder with its contents: "
            "cp -rL FOLDER COPY.",
            where=os.fspath(folder),
        )
    return root / name


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an object from an untrusted file, type-checked as they are read."""

    values: Mapping[str, Any]
    where: str
    """The name of the file in an error."""
    fix: str
    """The fix that an error suggests."""
    prefix: str = ""

    def get(self, name: str, kind: type) -> Any:
        """Return a field of exactly this type; an integer must not be negative.

        Raises:
            ModelError: the field is missing or of another type.
        """
        value = self.values.get(name)
        if type(value) is not kind or (type(value) is int and value < 0):
            self.refuse(name, value)
        return value

    def inner(self, name: str) -> Fields:
        """Return the fields of an inner object (raises as `get` does)."""
        values = self.get(name, dict)
        if not all(type(key) is str for key in values):
            self.refuse(name, values)
        return Fields(values, self.where, self.fix, f"{self.prefix}{name}.")

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return a text field that is one of a few (raises as `get` does)."""
        value: str = self.get(name, str)
        if value not in allowed:
            self.refuse(name, value)
        return value

    def objects(self, name: str) -> tuple[dict[str, Any], ...]:
        """Return a field that is a list of objects, at least one (raises as `get` does)."""
        values = self.get(name, list)
        if not values or not all(isinstance(value, dict) for value in values):
            self.refuse(name, values)
        return tuple(values)

    def refuse(self, name: str, value: object) -> NoReturn:
        """Refuse a field's value.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"has {shorten(value)} as {shorten(self.prefix + name)[1:-1]}",
            expected="a value that Manyheads writes",
            fix=self.fix,
            where=self.where,
        )
