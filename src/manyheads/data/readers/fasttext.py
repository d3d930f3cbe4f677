"""fastText: a text a line, whose words `__label__NAME` are its labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines

_PREFIX = "__label__"
_LABEL = re.compile(rf"(?<!\S){_PREFIX}(\S*)\s*")


def is_fasttext(head: Head) -> bool:
    """Return whether a word of the first line that is not blank is a label."""
    return _LABEL.search(head.text.partition("\n")[0]) is not None


def read_fasttext(source: Source) -> Iterator[Row]:
    """Yield `text` and `label`, or `labels` where a line has several."""
    return one_or_many(_rows, source)


def _rows(source: Source) -> Iterator[Row]:
    for number, line in sound_lines(source):
        if line.strip():
            labels = [*dict.fromkeys(_LABEL.findall(line))]
            fields = {"text": _LABEL.sub("", line).strip(), "labels": labels}
            yield Row(source.name, number, "line", fields)
