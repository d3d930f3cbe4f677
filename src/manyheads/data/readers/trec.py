"""TREC's question classes: lines such as `DESC:manner How does it work ?`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines
from manyheads.errors import DataError, at, shorten

_LINE = re.compile(r"([A-Z]{2,5}):([a-z]+)\s+(\S.*)")


def is_trec(head: Head) -> bool:
    """Return whether every line begins with a coarse and a fine class."""
    lines = [line for line in head.lines if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def read_trec(source: Source) -> Iterator[Row]:
    """Yield `text`, the fine class as `label` (`DESC:manner`), and `coarse` (`DESC`).

    Lines that are not UTF-8 are read as Windows-1252: the set was published in Latin-1.
    """
    for number, line in sound_lines(replace(source, legacy_encoding="cp1252")):
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            coarse, fine, text = match.groups()
            fields = {"text": text, "label": f"{coarse}:{fine}", "coarse": coarse}
            yield Row(source.name, number, "line", fields)
        elif line.strip():
            source.refuse(
                DataError(
                    f"the line is {shorten(line)}",
                    where=at(source.name, number),
                    expected="a class and a question, such as `DESC:manner How does it work ?`",
                )
            )
