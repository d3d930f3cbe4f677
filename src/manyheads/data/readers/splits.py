"""Splits, such as train and test, of files that hold several: chosen as `FILE@SPLIT`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manyheads.data.readers.row import Source
from manyheads.errors import DataError, listing, nearest


def without_split(path: str) -> tuple[str, str | None]:
    """Separate `FILE@SPLIT`; an existing file with an `@` in its name is left whole."""
    file, at_sign, split = path.rpartition("@")
    if not at_sign or not file or not split or "/" in split or _exists(path):
        return path, None
    return (file, split) if _exists(file) else (path, None)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def chosen_splits(source: Source, found: Iterable[str]) -> frozenset[str]:
    """Return the splits to read: those named, joined by `+`, or the only one.

    Raises:
        DataError: a named split does not exist, or there are several and none is named.
    """
    known = list(dict.fromkeys(found))
    file = source.name.removesuffix(f"@{source.split}") if source.split else source.name
    wanted = source.split.split("+") if source.split else known
    strange = next((name for name in wanted if name not in known), None)
    if strange is not None or (len(known) > 1 and source.split is None):
        what = (
            f"no split {strange!r}{nearest(strange or '', known)}" if strange else "several splits"
        )
        raise DataError(
            what,
            where=file,
            expected=f"one of: {listing(known)}",
            fix=f"Write {file}@{known[0] if known else 'SPLIT'}; several are joined by `+`.",
        )
    return frozenset(wanted)
