"""Kaggle's annotated corpus for named entities: CSV with a word a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from manyheads.data.readers.delimited import read_records
from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, at, counted, listing

SENTENCE = "Sentence #"
_NAMES: Mapping[str, str] = {"Word": "tokens", "Tag": "ner", "POS": "pos"}


def is_kaggle_ner(head: Head) -> bool:
    """Return whether the header has the column that numbers the sentences, and one of words."""
    header = head.lines[0].split(",") if head.lines else []
    return header[:1] == [SENTENCE] and ("Word" in header or "tokens" in header)


def read_kaggle_ner(source: Source) -> Iterator[Row]:
    """Yield `tokens`, `ner` and `pos` of each sentence.

    A sentence begins where the first column has another value; an empty one continues it. Lines
    that are not UTF-8 are read as Windows-1252, in which the corpus was published.
    """
    source = replace(source, legacy_encoding="cp1252", keeps_empty_rows=False)
    header: list[str] = []
    words: list[list[str]] = []
    first, current, size = 0, "", 0
    for line, cells in read_records(source, ","):
        where = at(source.name, line)
        if not header:
            header = _header(cells, source, where)
            continue
        if len(cells) != len(header):
            source.refuse(
                DataError(
                    counted(len(cells), "cell"),
                    where=where,
                    expected=f"{len(header)}, as the header has ({listing(header)})",
                )
            )
            continue
        if words and cells[0] not in ("", current):
            yield Row(source.name, first, "line", _fields(header, words))
            words, size = [], 0
        if not words:
            first = line
        current = cells[0] or current
        size += sum(map(len, cells))
        if size > source.limit:
            raise source.too_large(first)
        words.append(cells)
    if words:
        yield Row(source.name, first, "line", _fields(header, words))


def _header(cells: list[str], source: Source, where: str) -> list[str]:
    names = source.layout.header([_NAMES.get(cell, cell) for cell in cells], where)
    if cells[0] != SENTENCE or "tokens" not in names:
        raise DataError(
            f"the header has only: {listing(cells)}",
            where=where,
            expected=f"`{SENTENCE}` first, and a column `Word` or `tokens`",
        )
    return names


def _fields(header: list[str], words: list[list[str]]) -> dict[str, list[str]]:
    columns = zip(header, zip(*words, strict=True), strict=True)
    return {name: list(column) for name, column in columns if name != SENTENCE}
