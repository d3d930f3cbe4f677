"""Plain text: one sentence per line, without labels."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines


def read_plain_text(source: Source) -> Iterator[Row]:
    """Yield a row with a `text` for each line that is not blank."""
    for number, line in sound_lines(source):
        if line and not line.isspace():
            yield Row(source.name, number, "line", {"text": line})
