"""spaCy's binary training data (.spacy), through spaCy where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.annotated import entity
from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.optional import optional_module
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, counted, shorten

_HALF = 0.5


def read_docbin(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and `label` or `labels` of each document, numbered from 1.

    Documents with words that lack an annotation have `tokens` and `ner`, with None for those words.
    Groups of spans are counted as unread.

    Raises:
        DataError: spaCy is not installed, or cannot read the file.
    """
    return one_or_many(_rows, source)


def _rows(source: Source) -> Iterator[Row]:
    spacy = optional_module("spacy", "reading .spacy files", source.name)
    tokens = optional_module("spacy.tokens", "reading .spacy files", source.name)
    number = 0
    try:
        vocabulary = spacy.blank("xx").vocab
        for number, document in enumerate(
            tokens.DocBin().from_disk(source.path).get_docs(vocabulary), 1
        ):
            yield Row(source.name, number, "document", _fields(document, source))
    except DataError:
        raise
    # The library documents no base class of its errors for a broken file.
    except Exception as error:
        raise DataError(
            f"not a sound .spacy file after {counted(number, 'document')} "
            f"({type(error).__name__}: {shorten(str(error), 200)})",
            where=source.name,
            fix="Write it again with the installed version of spaCy.",
        ) from error


def _fields(document: Any, source: Source) -> dict[str, Any]:
    fields: dict[str, Any] = {"text": document.text}
    words = [token for token in document if not token.is_space]
    if all(token.ent_iob_ for token in words):
        fields["entities"] = [entity(e.start_char, e.end_char, e.label_) for e in document.ents]
    elif any(token.ent_iob_ for token in words):
        fields["tokens"] = [token.text for token in words]
        fields["ner"] = [_tag(token) for token in words]
    for name, group in document.spans.items():
        if len(group):
            source.pass_over(f"spans of the group {name!r}", len(group))
    if document.cats:
        fields["labels"] = [name for name, score in document.cats.items() if score >= _HALF]
    return fields


def _tag(token: Any) -> str | None:
    """Return a word's tag; None if it is not annotated. Blocked words are `B` without a type."""
    if token.ent_type_:
        return f"{token.ent_iob_}-{token.ent_type_}"
    return "O" if token.ent_iob_ else None
