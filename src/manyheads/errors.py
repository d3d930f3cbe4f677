"""Errors for users: what was found, what was expected, what to do.

Every error that a user can cause is a `ManyheadsError`. The command line prints its message without
a traceback and exits with its status.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import overload


class ManyheadsError(Exception):
    """An error in the user's input or request.

    Args:
        found: what is wrong, with the value.
        expected: what is valid.
        fix: what to do, as a full sentence.
        where: the file and line, the record, or the configuration key (see `at`).
    """

    exit_status = 2

    def __init__(self, found: str, *, expected: str = "", fix: str = "", where: str = "") -> None:
        self.found, self.expected, self.fix, self.where = found, expected, fix, where
        message = f"{where}: {found}" if where else found
        if expected:
            message += f"; expected {expected}"
        if fix:
            message += f". {fix}"
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.found, self.expected, self.fix, self.where))


def _rebuild(
    kind: type[ManyheadsError], found: str, expected: str, fix: str, where: str
) -> ManyheadsError:
    return kind(found, expected=expected, fix=fix, where=where)


class ConfigError(ManyheadsError):
    """A configuration that cannot be used."""


class DataError(ManyheadsError):
    """Data that cannot be read or learned from."""


class ModelError(ManyheadsError):
    """A model folder, checkpoint or encoder that cannot be used."""


class RequestError(ManyheadsError):
    """A request that cannot be fulfilled."""


class CheckFailed(ManyheadsError):
    """A check that completed and found a problem."""

    exit_status = 1


class _Asker:
    """Who reads the messages: one who typed a command, or a Python program."""

    is_command = False


_FLAGS = ("overwrite", "resume", "embed")


@contextmanager
def worded_for_command() -> Iterator[None]:
    """Let messages name the options of the command line while this lasts, in all threads."""
    before, _Asker.is_command = _Asker.is_command, True
    try:
        yield
    finally:
        _Asker.is_command = before


def is_command() -> bool:
    """Return whether the work was asked for by a command, rather than a Python program."""
    return _Asker.is_command


def option(command: str, python: str = "") -> str:
    """Return how to name an option to the one who reads the message.

    Args:
        command: as it is typed, such as `--save-dir DIR`, `--backend torch` or `--resume`.
        python: as it is written in Python; default: the same, here `` `save_dir` ``,
            `` `backend="torch"` `` and `` `resume=True` ``.
    """
    if is_command():
        return command
    name, _, value = command.removeprefix("--").partition(" ")
    given = "=True" if name in _FLAGS else f'="{value}"' if value.islower() else ""
    return python or f"`{name.replace('-', '_')}{given}`"


def at(path: str | os.PathLike[str], line: int | None = None, unit: str = "line") -> str:
    """Return a location in a file: `train.csv:12` for lines, `train.json record 3` for records."""
    if line is None:
        return os.fspath(path)
    return f"{os.fspath(path)}:{line}" if unit == "line" else f"{os.fspath(path)} {unit} {line}"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ` (did you mean "x"?)` for the known word closest to `word`, or an empty string.

    Args:
        word: what was given.
        known: what is valid.
        cutoff: the smallest similarity, from 0 to 1. Of short words, unrelated ones reach 0.6.
    """
    matches = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=cutoff)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def shorten(value: object, limit: int = 80) -> str:
    """Return the `repr` of a value, shortened for a message."""
    if isinstance(value, str | bytes) and len(value) > limit:
        return f"{value[:limit]!r}... ({len(value)} characters)"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


@overload
def listed(option: str, names: Iterable[str]) -> tuple[str, ...]: ...


@overload
def listed(option: str, names: Iterable[str] | None) -> tuple[str, ...] | None: ...


def listed(option: str, names: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the names that an option lists, which may come from an iterator; None without any.

    Raises:
        RequestError: they are a single string, which would be read letter by letter, or no names.
    """
    if isinstance(names, str) or not isinstance(names, Iterable | None):
        raise RequestError(
            f"{option} are {shorten(names)}", expected="a list", fix="Put the name into a list."
        )
    return None if names is None else tuple(names)


def install(extra: str) -> str:
    """Return the sentence that explains how to install an extra, for `fix`."""
    return (
        f'Run, in a checkout: pip install -e ".[{extra}]"; or with a wheel of manyheads: '
        f'pip install "FILE.whl[{extra}]".'
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, `1 record` or `1,200 records`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


_LONG = 1024
"""Names of more characters than this are shortened; hardly any path is as long."""


def listing(names: Iterable[object], limit: int = 12) -> str:
    """Join the first few names for a message, with the total number if there are more.

    Very long names and names with control characters are quoted. Paths are not shortened, because
    the line number is at their end.
    """
    items = [str(name) for name in names]
    shown = ", ".join(
        item if len(item) <= _LONG and item.isprintable() else shorten(item)
        for item in items[:limit]
    )
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"
