"""CoNLL-U: ten columns a word, the sentence's text in a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines
from manyheads.errors import DataError, at, shorten
from manyheads.tasks import OUTSIDE

_TEXT = "# text ="
_COLUMNS = ("lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_READ = ("lemma", "upos", "xpos", "deprel")
_NER = re.compile(r"(?:^|\|)ner=([^|]+)", re.IGNORECASE)
_ID = re.compile(r"(\d+)(?:([-.])(\d+))?")


def is_conllu(head: Head) -> bool:
    """Return whether the lines that are not comments have ten columns, the first an id."""
    lines = [line for line in head.lines if line and not line.startswith("#")]
    return bool(lines) and all(
        line.count("\t") == 9 and _ID.fullmatch(line.split("\t", 1)[0]) for line in lines
    )


def read_conllu(source: Source) -> Iterator[Row]:
    """Yield `tokens`, `text` where a comment has it, `lemma`, `upos`, `xpos`, `deprel` and `ner`.

    A token of several words (`1-2`) is one token, its values joined by `+`. Empty nodes (`3.1`)
    are not part of the text. `ner` is the value of `NER=` in the last column, as Stanza writes it,
    `O` where a word of the sentence has none.
    """
    words: list[list[str]] = []
    text: str | None = None
    first, size, broken = 0, 0, False
    for number, line in enumerate(chain(read_lines(source), ("",)), 1):
        if isinstance(line, DataError):
            source.refuse(line)
            broken = True
        elif not line.strip():
            if words and not broken:
                yield from _row(words, text, source, first)
            words, text, size, broken = [], None, 0, False
        elif line.startswith("#"):
            text = line[len(_TEXT) :].strip() if line.startswith(_TEXT) else text
        elif not broken:
            cells = line.split("\t")
            first = first if words else number
            size += len(line)
            if len(cells) != len(_COLUMNS) + 2 or not _ID.fullmatch(cells[0]):
                broken = True
                source.refuse(
                    DataError(
                        f"the line is {shorten(line)}",
                        where=at(source.name, number),
                        expected="ten columns between tabs, the first an id such as 1, 1-2 or 3.1",
                    )
                )
            elif size > source.limit:
                raise source.too_large(first)
            else:
                words.append(cells)


def _row(words: list[list[str]], text: str | None, source: Source, line: int) -> Iterator[Row]:
    tokens: list[str] = []
    columns: dict[str, list[str]] = {name: [] for name in _READ}
    tags: list[str] = []
    end = 0
    for cells in words:
        match = _ID.fullmatch(cells[0])
        assert match is not None
        number, mark, other = match.groups()
        if mark == ".":
            source.pass_over("empty nodes")
            continue
        values = dict(zip(_COLUMNS, cells[2:], strict=True))
        tag = found[1] if (found := _NER.search(values["misc"])) else ""
        if mark != "-" and int(number) <= end:
            tags[-1] = tags[-1] or tag
        else:
            tags.append(tag)
        if mark == "-":
            tokens.append(cells[1])
            end = int(other)
            for column in columns.values():
                column.append("_")
        elif int(number) <= end:
            for name, column in columns.items():
                known = [part for part in (column[-1], values[name]) if part != "_"]
                column[-1] = "+".join(known) or "_"
        else:
            tokens.append(cells[1])
            for name, column in columns.items():
                column.append(values[name])
    fields: dict[str, Any] = (
        {"tokens": tokens} if text is None else {"text": text, "tokens": tokens}
    )
    fields |= {name: column for name, column in columns.items() if set(column) - {"_"}}
    if any(tags):
        fields["ner"] = [tag or OUTSIDE for tag in tags]
    yield Row(source.name, line, "line", fields)
