"""The kinds of tasks by name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from manyheads.errors import ModelError, listing, nearest, shorten
from manyheads.tasks.kinds.base import Kind

ENTRY_POINTS = "manyheads.kinds"
"""The entry point group in which packages name the modules that register their kinds."""

_KINDS: dict[str, Kind] = {}

_K = TypeVar("_K", bound=type[Kind])


def register_kind(kind: _K) -> _K:
    """Register a kind of task under its name. A class decorator.

    Raises:
        ValueError: another class has the name, or it checks labels that have no names.
    """
    if kind.checks_labels and not kind.named_labels:
        raise ValueError(f"the kind {kind.name!r} checks labels, which therefore need names")
    known = _KINDS.get(kind.name)
    if known is not None and type(known).__qualname__ != kind.__qualname__:
        raise ValueError(f"a kind of task {kind.name!r} is registered: {type(known)}")
    _KINDS[kind.name] = kind()
    return kind


def known_kinds() -> tuple[str, ...]:
    """Return the names of all kinds, the built-in ones first."""
    _load_installed()
    return tuple(_KINDS)


def find_kind(name: str) -> Kind | None:
    """Return a kind by its name, or None if no kind has it."""
    if name not in _KINDS:
        _load_installed()
    return _KINDS.get(name)


def kind_of(name: str) -> Kind:
    """Return a kind by its name.

    Raises:
        ModelError: no kind has the name.
    """
    kind = find_kind(name)
    if kind is None:
        raise ModelError(
            f"there is no kind of task {shorten(name)}{nearest(name, _KINDS)}",
            expected=f"one of: {listing(_KINDS)}",
            fix="Import the module that registers it, or install the version of manyheads that "
            "the model was made with.",
        )
    return kind


@cache
def _load_installed() -> None:
    """Import the modules in which installed packages register kinds; once, for they take long."""
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
