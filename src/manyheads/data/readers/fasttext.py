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
    """Return whether the first line that is not blank begins with a label."""
    return head.text.startswith(_PREFIX)


def read_fasttext(source: Source) -> Iterator[Row]:
    """Yield `text` and `label`, or `labels` where a line has several."""
    return one_or_many(_rows, source)


def _rows(source: Source) -> Iterator[Row]:
    for number, line in sound_lines(source):
        if line.strip():
            fields = {"text": _LABEL.sub("", line).strip(), "labels": _LABEL.findall(line)}
            yield Row(source.name, number, "line", fields)
