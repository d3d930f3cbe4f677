"""Texts with their entities written into them, as tools for chat bots do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_BRACKETS = re.compile(r"\[\s*([^\[\]:]+?)\s*:\s*([^\[\]]*?)\s*\]")


def entity(start: int, end: int, label: str) -> dict[str, Any]:
    """Return an entity as records write it."""
    return {"start": start, "end": end, "label": label}


def from_pieces(pieces: Iterable[tuple[str, str | None]]) -> dict[str, Any]:
    """Join pieces of a text, each with the label of its entity or None, to `text` and `entities`.

    White space at the border of an entity is left outside it, and at the text's ends left out.
    """
    text, entities = "", []
    for piece, label in pieces:
        start = len(text)
        text += piece
        words = piece.strip()
        if label is not None and words:
            begin = start + piece.index(words)
            entities.append(entity(begin, begin + len(words), label))
    lead = len(text) - len(text.lstrip())
    for item in entities:
        item["start"] -= lead
        item["end"] -= lead
    return {"text": text.strip(), "entities": entities}


def from_brackets(text: str) -> dict[str, Any]:
    """Read `wake me at [time : six am]` to `text` and `entities`."""
    pieces: list[tuple[str, str | None]] = []
    position = 0
    for match in _BRACKETS.finditer(text):
        pieces.append((text[position : match.start()], None))
        pieces.append((match.group(2), match.group(1)))
        position = match.end()
    pieces.append((text[position:], None))
    return from_pieces(pieces)
