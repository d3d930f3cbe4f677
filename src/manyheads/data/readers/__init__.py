"""Readers: rows streamed from files of every format.

One module per format. The entry point is `read_rows`. A format is added as a module with one
function from a `Source` to rows, and a line in `formats.FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from manyheads.data.readers.formats import FORMATS, Format, format_named, format_of
from manyheads.data.readers.hub import is_dataset_name
from manyheads.data.readers.memory import (
    are_records,
    are_splits,
    have_fields,
    in_memory,
    is_column,
    is_in_memory,
    is_missing,
    read_memory,
)
from manyheads.data.readers.row import MAX_RECORD_BYTES, Layout, Row, Source
from manyheads.data.readers.splits import without_split
from manyheads.errors import DataError, at, listing

__all__ = [
    "FORMATS",
    "MAX_RECORD_BYTES",
    "Layout",
    "Row",
    "are_records",
    "are_splits",
    "have_fields",
    "in_memory",
    "is_column",
    "is_data_file",
    "is_dataset_name",
    "is_in_memory",
    "is_missing",
    "layout_of_texts",
    "read_rows",
    "without_split",
]

_PLACES = {"id", "start", "end", "text", "ws"}
"""Keys of a token that say no more than which word of the text it is."""
_MEMORY = Format("records in memory", read_memory)
_GOLD = "gold_label"
"""The label's column in SNLI and MultiNLI, where `-` means that the annotators did not agree."""


def read_rows(
    path: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    limit_bytes: int = MAX_RECORD_BYTES,
    on_error: Callable[[DataError], None] | None = None,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
    needs_labels: bool = True,
    keeps_empty_rows: bool = False,
) -> Iterator[Row]:
    """Stream the records of a file, a folder or a named data set, in order.

    Args:
        path: a file or folder; `FILE@SPLIT` for a format that keeps several splits in one file;
            `datasets:NAME[:CONFIG][@SPLIT]`; or the name of records in memory (`in_memory`).
        layout: the format and the names of fields, as far as the user states them.
        limit_bytes: the largest record that is read; memory is bounded accordingly.
        on_error: receives the errors of single records if the others can still be read;
            without it, the first error is raised.
        on_unread: receives, at the end, the counts of contents that records cannot hold, by kind.
        needs_labels: whether records that an annotation tool has no sound labels of are passed over
            or refused; without it, their texts are read.
        keeps_empty_rows: whether a row of a table without any value is a record too.

    Raises:
        DataError: something cannot be read, or there is no record. Errors that show before the
            first record, such as a missing file, are raised at once.
    """
    given = os.fspath(path)
    # A file's name may contain bytes that are not characters; messages show them escaped.
    name = given.encode(errors="backslashreplace").decode()
    layout = (layout or Layout()).of_file(given)
    counter = _Counter(on_error)
    is_name = is_dataset_name(name) or is_in_memory(name)
    file, split = (given, None) if is_name else without_split(given)
    source = Source(
        Path(file), name, limit_bytes, counter.note if on_error else None, layout, split,
        needs_labels=needs_labels, keeps_empty_rows=keeps_empty_rows,
    )  # fmt: skip
    if is_in_memory(name):
        chosen = _MEMORY
    elif layout.format is not None:
        chosen = format_named(layout.format)
    elif is_dataset_name(name):
        chosen = FORMATS["datasets"]
    else:
        chosen = format_of(source.path, name, layout)
    named = _without_token_objects(_named(chosen, source), source)
    rows = counter.rows(_without_disputed(named, source), source)
    return rows if on_unread is None else _told(rows, source, on_unread)


def is_data_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names data rather than a YAML configuration.

    A YAML file is data if its content is of a format that is written in YAML.
    """
    name = os.fspath(path)
    if is_dataset_name(name) or not name.lower().endswith((".yaml", ".yml")):
        return True
    try:
        format_of(Path(name), name, Layout())
    except DataError:
        return False
    return True


def layout_of_texts(path: str | os.PathLike[str]) -> Layout:
    """Return how to read a file of texts without labels: a .txt of no other format has lines."""
    name = os.fspath(path)
    is_text = name.lower().endswith(".txt") and not is_dataset_name(name)
    if not is_text or not Path(name).exists():
        return Layout()
    try:
        format_of(Path(name), name, Layout())
    except DataError:
        return Layout(format="text")
    return Layout()


def _told(
    rows: Iterator[Row], source: Source, on_unread: Callable[[Mapping[str, int]], None]
) -> Iterator[Row]:
    yield from rows
    on_unread(source.unread)


def _named(chosen: Format, source: Source) -> Iterator[Row]:
    """Yield a format's rows, with their fields renamed by the layout.

    Raises:
        DataError: no row has a field that the layout names.
    """
    names = source.layout.names
    if chosen.has_columns or not names:
        return chosen.read(source)
    return _renamed(chosen.read(source), source)


def _renamed(rows: Iterator[Row], source: Source) -> Iterator[Row]:
    missing = set(source.layout.names)
    fields: dict[str, None] = {}
    for row in rows:
        if missing:
            missing -= row.fields.keys()
            fields.update(dict.fromkeys(row.fields) if len(fields) < 100 else {})
        yield replace(row, fields=source.layout.renamed(row.fields))
    if missing:
        raise DataError(
            f"no record has the field {min(missing)!r}",
            where=at(source.name),
            expected=f"one of those that records have: {listing(fields)}",
            fix="Correct the option that names it.",
        )


def _without_token_objects(rows: Iterator[Row], source: Source) -> Iterator[Row]:
    """Leave out `tokens` that are objects beside a text, such as those of spaCy's `Doc.to_json`.

    Spans are in characters there, so the places of words are not needed. Lists whose objects say
    more are counted. Where the layout names the field of the tokens, it is read as stated.
    """
    if "tokens" in source.layout.names.values():
        yield from rows
        return
    for row in rows:
        tokens = row.fields.get("tokens")
        has_both = type(tokens) is list and type(row.fields.get("text")) is str
        if has_both and tokens and all(type(token) is dict for token in tokens):
            if any(not token.keys() <= _PLACES for token in tokens):
                source.pass_over("lists of `tokens` that are objects rather than words")
            rest = {name: value for name, value in row.fields.items() if name != "tokens"}
            row = replace(row, fields=rest)
        yield row


def _without_disputed(rows: Iterator[Row], source: Source) -> Iterator[Row]:
    """Replace the label `-` of a column `gold_label` by None."""
    name = source.layout.names.get(_GOLD, _GOLD)
    for row in rows:
        if row.fields.get(name) == "-":
            source.pass_over(f"labels `-` of `{_GOLD}`, on which the annotators did not agree")
            row = replace(row, fields={**row.fields, name: None})
        yield row


class _Counter:
    """Refuses a file without any record, valid or broken."""

    def __init__(self, on_error: Callable[[DataError], None] | None) -> None:
        self._on_error = on_error
        self._found = False

    def note(self, error: DataError) -> None:
        self._found = True
        if self._on_error is not None:
            self._on_error(error)

    def rows(self, rows: Iterator[Row], source: Source) -> Iterator[Row]:
        for row in rows:
            self._found = True
            yield row
        if not self._found:
            passed = "; ".join(f"{what} ({count:,})" for what, count in source.unread.items())
            raise DataError(
                "there is no record in it" + (f", only {passed}" if passed else ""),
                where=source.name,
                expected="at least one",
            )
