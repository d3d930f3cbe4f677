"""fastText: lines that begin with `__label__NAME`."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines

_PREFIX = "__label__"


def is_fasttext(head: Head) -> bool:
    """Return whether the first line that is not blank begins with a label."""
    return head.text.startswith(_PREFIX)


def read_fasttext(source: Source) -> Iterator[Row]:
    """Yield `text` and `label`, or `labels` where a line has several."""
    return one_or_many(_rows, source)


def _rows(source: Source) -> Iterator[Row]:
    for number, line in sound_lines(source):
        words = line.split()
        count = next(
            (i for i, word in enumerate(words) if not word.startswith(_PREFIX)), len(words)
        )
        if not words:
            continue
        labels = [word.removeprefix(_PREFIX) for word in words[:count]]
        text = line.split(maxsplit=count)[-1].strip() if count < len(words) else ""
        yield Row(source.name, number, "line", {"text": text, "labels": labels})
