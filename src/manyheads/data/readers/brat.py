"""brat: a folder of texts (`x.txt`), each with its annotations (`x.ann`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manyheads.data.readers.annotated import entity
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines
from manyheads.errors import DataError, at, shorten

_OTHERS = {
    "R": "relations",
    "E": "events",
    "A": "attributes",
    "M": "attributes",
    "N": "normalisations",
    "#": "notes",
    "*": "equivalences",
}


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    label: str
    text: str
    where: str


def is_brat(folder: Path) -> bool:
    """Return whether a folder has brat annotations."""
    return next(folder.glob("*.ann"), None) is not None


def read_brat(source: Source) -> Iterator[Row]:
    """Yield each line of the texts with its `entities`; brat counts characters of the whole file.

    Discontinuous entities are counted as unread, as are relations, events and attributes, and texts
    without a file of annotations.

    Raises:
        DataError: an annotation file has no text, or does not fit it.
    """
    files = (*source.path.glob("*.ann"), *source.path.glob("*.txt"))
    for texts in sorted({path.with_suffix(".txt") for path in files}):
        path = texts.with_suffix(".ann")
        if not texts.is_file():
            raise DataError(
                f"there is no {texts.name} beside it",
                where=str(path),
                expected="the annotated text",
            )
        spans: list[_Span] = []
        if path.is_file():
            notes = replace(source, path=path, name=str(path))
            spans = sorted(_spans(notes), key=lambda span: span.start)
        elif source.needs_labels:
            source.pass_over("texts without annotations (.ann)")
            continue
        yield from _lines(replace(source, path=texts, name=str(texts)), spans)


def _lines(source: Source, spans: list[_Span]) -> Iterator[Row]:
    offset = 0
    for number, line in enumerate(read_lines(source, keep_ends=True), 1):
        if isinstance(line, DataError):
            raise line
        text = line.rstrip("\r\n")
        mine = []
        while spans and spans[0].start < offset + len(line):
            mine.append(spans.pop(0))
        try:
            entities = [_within(span, text, offset) for span in mine]
        except DataError as error:
            source.refuse(error)
        else:
            if text.strip():
                yield Row(source.name, number, "line", {"text": text, "entities": entities})
        offset += len(line)
    for span in spans:
        source.refuse(
            DataError(
                f"an entity begins at character {span.start}, after the end of the text",
                where=span.where,
                expected=f"offsets below {offset}",
            )
        )


def _within(span: _Span, text: str, offset: int) -> dict[str, Any]:
    start, end = span.start - offset, span.end - offset
    if end > len(text):
        raise DataError(
            f"the entity {shorten(span.text)} crosses the end of a line",
            where=span.where,
            expected="entities within one line of the text",
            fix="Join the lines, or split the entity.",
        )
    if text[start:end] != span.text:
        raise DataError(
            f"the entity is {shorten(span.text)}, but the text has {shorten(text[start:end])}",
            where=span.where,
            expected="offsets that count the characters of the text",
        )
    return entity(start, end, span.label)


def _spans(source: Source) -> Iterator[_Span]:
    for number, line in enumerate(read_lines(source), 1):
        where = at(source.name, number)
        if isinstance(line, DataError):
            raise line
        if line[:1] != "T":
            if line.strip():
                source.pass_over(_OTHERS.get(line[:1], "other annotations"))
            continue
        _, _, rest = line.partition("\t")
        place, _, text = rest.partition("\t")
        label, _, numbers = place.partition(" ")
        if ";" in numbers:
            source.pass_over("entities in several pieces")
            continue
        try:
            start, end = map(int, numbers.split(" "))
        except ValueError:
            source.refuse(
                DataError(
                    f"the annotation is {shorten(line)}",
                    where=where,
                    expected="an id, a type with offsets, and the text: T1<tab>PER 0 4<tab>Mara",
                )
            )
            continue
        yield _Span(start, end, label, text, where)
