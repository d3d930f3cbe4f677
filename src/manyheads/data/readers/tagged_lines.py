"""A sentence a line, whose tokens have their tags behind a bar: `word|TAG` or `word|POS|TAG`."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.conll import is_entity_tag
from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines, words_of
from manyheads.errors import DataError, at, shorten

_BAR = "|"
_WIDTHS = (2, 3)
_DOCUMENT = "-DOCSTART-"


def is_tagged_lines(head: Head) -> bool:
    """Return whether most sentences have tags behind bars, one of several tokens among them."""
    lines = [words_of(line) for line in head.lines if not line.startswith(_DOCUMENT)]
    sentences = [tokens for tokens in lines if tokens]
    tagged = [tokens for tokens in sentences if _are_tagged(tokens)]
    # A token a line would be columns separated by bars.
    return 2 * len(tagged) > len(sentences) and any(len(tokens) > 1 for tokens in tagged)


def _are_tagged(tokens: list[str]) -> bool:
    parts = [token.split(_BAR) for token in tokens]
    return all(len(part) > 1 and is_entity_tag(part[-1]) for part in parts)


def read_tagged_lines(source: Source) -> Iterator[Row]:
    """Yield `tokens`, their tags as `ner`, and parts of speech between these as `col2`."""
    width: int | None = None
    for number, line in sound_lines(source):
        if line.startswith(_DOCUMENT) or not (tokens := words_of(line)):
            continue
        # The width of the first token with a tag: those without are the faulty ones.
        width = width or next((t.count(_BAR) + 1 for t in tokens if _BAR in t), None)
        row = Row(source.name, number, "line", {})
        yield from source.attempt(row, _fields, tokens, width, at(source.name, number))


def _fields(tokens: list[str], width: int | None, where: str) -> dict[str, list[str]]:
    parts = [token.split(_BAR) for token in tokens]
    odd = next((i for i, part in enumerate(parts) if len(part) != width or "" in part), None)
    if odd is not None or width not in _WIDTHS:
        raise DataError(
            f"the token {shorten(tokens[odd or 0])}",
            where=where,
            expected="word|TAG or word|POS|TAG, as many parts in every token of the file",
            fix="Write a bar that belongs to a word as another character, or use columns: a token "
            "and its tag a line, separated by a tab.",
        )
    words, *middle, tags = (list(column) for column in zip(*parts, strict=True))
    return {"tokens": words, **({"col2": middle[0]} if middle else {}), "ner": tags}
