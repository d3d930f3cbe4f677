"""Rasa's `nlu.md`: `## intent:NAME` with a list of examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.head import Head
from manyheads.data.readers.rasa import rasa_example
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines
from manyheads.errors import DataError, at, shorten

_SECTION = re.compile(r"##\s*([a-z]+)\s*:\s*(.+?)\s*")
_STRAY = re.compile(r"##(?!#)|##.*:")


def is_rasa_markdown(head: Head) -> bool:
    """Return whether a line begins the examples of an intent."""
    return any(
        (match := _SECTION.fullmatch(line)) and match.group(1) == "intent" for line in head.lines
    )


def read_rasa_markdown(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`.

    Other sections, and lines of examples without `-`, are counted as unread. Examples under a
    heading that begins no section, such as `## bye`, are refused. `# ...`, `### ...` without a
    colon, `<!-- ... -->` and what stands before the first section are left out.
    """
    intent, stray = "", ""
    for number, line in _without_comments(source):
        text = line.strip()
        section = _SECTION.fullmatch(text)
        if section is not None:
            intent, stray = section.group(2) if section.group(1) == "intent" else "", ""
            source.pass_over(f"sections `{section.group(1)}`", not intent)
        elif _STRAY.match(text):
            intent, stray = "", f"under the heading {shorten(text)}"
        elif text.startswith(("-", "*", "+")):
            example = text[1:].strip()
            if example and (intent or stray):
                row = Row(source.name, number, "line", {})
                yield from source.attempt(row, _fields, example, intent, stray, source, row.where)
        elif not text.startswith("#"):
            source.pass_over("lines of examples without `-`", bool(text and intent))


def _without_comments(source: Source) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, without comments, which may have several lines.

    A comment that does not end is refused.
    """
    began: int | None = None
    for number, line in sound_lines(source):
        kept, rest = "", line
        while rest:
            if began is None:
                before, mark, rest = rest.partition("<!--")
                kept += before
                began = number if mark else None
            else:
                _, mark, rest = rest.partition("-->")
                began = None if mark else began
        yield number, kept
    if began is not None:
        source.refuse(
            DataError("a comment that does not end", where=at(source.name, began), expected="`-->`")
        )


def _fields(text: str, intent: str, stray: str, source: Source, where: str) -> dict[str, Any]:
    if stray:
        raise DataError(
            f"an example {stray}", where=where, expected="a heading such as `## intent:greet`"
        )
    return rasa_example(text, intent, source, where)
