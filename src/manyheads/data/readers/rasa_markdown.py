"""Rasa's `nlu.md`: `## intent:NAME` with a list of examples."""

from __future__ import annotations

import re
from collections.abc import Iterator

from manyheads.data.readers.head import Head
from manyheads.data.readers.rasa import rasa_example
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines

_SECTION = re.compile(r"##\s*([a-z]+)\s*:\s*(.+?)\s*")


def is_rasa_markdown(head: Head) -> bool:
    """Return whether a line begins the examples of an intent."""
    return any(
        (match := _SECTION.fullmatch(line)) and match.group(1) == "intent" for line in head.lines
    )


def read_rasa_markdown(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`; other sections are counted as unread."""
    intent: str | None = None
    for number, line in sound_lines(source):
        section = _SECTION.fullmatch(line.strip())
        if section is not None:
            intent = section.group(2) if section.group(1) == "intent" else None
            if intent is None:
                source.pass_over(f"sections `{section.group(1)}`")
            continue
        text = line.strip()
        if intent is None or text[:1] not in ("-", "*", "+") or not text[1:].strip():
            continue
        row = Row(source.name, number, "line", {})
        yield from source.attempt(row, rasa_example, text[1:].strip(), intent, source, row.where)
