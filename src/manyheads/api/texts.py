"""Sources of the texts to predict for: arguments, standard input, files, or a person."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from manyheads.api.kept_fields import other_fields
from manyheads.data.readers import Layout, in_memory, is_dataset_name, read_rows
from manyheads.data.readers.formats import format_named
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import STDIN, Line, lines_of, opened
from manyheads.data.records import SECOND_TEXT, TEXT_FIELDS, check_text, read_text
from manyheads.errors import DataError, RequestError, at, listing, nearest, option, shorten
from manyheads.inference import Text, TextPair, WhenEmpty
from manyheads.tasks.label_values import is_encodable


class GivenText(NamedTuple):
    """A text to predict for, with the other fields of the record that it was read from."""

    text: Text
    fields: Mapping[str, Any] = MappingProxyType({})
    where: str = ""
    """The record's place, for messages."""


# By their endings, the formats whose texts are lines.
_KINDS_OF_LINES = {
    ".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv",
}  # fmt: skip
_PIECE = 1 << 20


class EmptyTexts(str, Enum):
    """The treatment of texts that are empty or only white space."""

    REFUSE = "refuse"
    FLAG = "flag"
    SKIP = "skip"

    @classmethod
    def named(cls, name: str) -> EmptyTexts:
        """Return the treatment of a name.

        Raises:
            RequestError: there is none of that name.
        """
        names = [one.value for one in cls]
        if name not in names:
            raise RequestError(
                f"when_empty is {shorten(name)}", expected=f"one of: {listing(names)}"
            )
        return cls(name)

    @property
    def of_predictor(self) -> WhenEmpty:
        """The predictor's own treatment, which leaves out no text."""
        return "refuse" if self is EmptyTexts.REFUSE else "flag"


def argument_texts(arguments: Iterable[str], when_empty: EmptyTexts) -> list[Text]:
    """Return the texts that were given as arguments.

    Raises:
        RequestError: one is empty or not UTF-8.
    """
    texts: list[Text] = []
    for number, text in enumerate(arguments, 1):
        if not is_encodable(text):
            # Python passes arguments that are not in the locale's encoding on as half characters.
            with suppress(UnicodeDecodeError):
                text = os.fsencode(text).decode("utf-8")
        if not is_encodable(text):
            raise RequestError(
                f"{shorten(os.fsencode(text))} is not UTF-8",
                where=f"text {number}",
                expected="text in UTF-8",
                fix="Set the terminal to UTF-8.",
            )
        texts.extend(_kept(text, when_empty, f"text {number}"))
    return texts


def line_texts(lines: Iterable[Line], name: str, when_empty: EmptyTexts) -> Iterator[Text]:
    """Yield a text for each line of a stream.

    Raises:
        DataError: a line is not UTF-8, too long, or empty and refused.
    """
    for number, line in enumerate(lines, 1):
        if isinstance(line, DataError):
            raise line
        yield from _kept(line, when_empty, at(name, number))


def stdin_texts(
    when_empty: EmptyTexts,
    layout: Layout | None = None,
    *,
    pairs: bool = False,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
) -> Iterator[GivenText]:
    """Yield the texts of standard input.

    Args:
        when_empty: what to do about empty texts.
        layout: its format, and the names of its fields; by default every line is a text (see
            `line_texts`). Records of other formats are copied to a temporary file first, so the
            input has to end.
        pairs, on_unread: see `file_texts`.

    Raises:
        DataError: it cannot be read, is not of the format, or a text is empty and refused.
    """
    if sys.stdin is None or sys.stdin.closed:
        return
    layout = layout or Layout()
    source = Source(Path("-"), STDIN)
    try:
        if layout.format not in (None, "text"):
            chosen = format_named(layout.format)
            if not (chosen.endings or chosen.may_end):
                raise DataError(
                    f"cannot be of the format {layout.format!r}",
                    where=STDIN,
                    expected="a format of single files",
                    fix=f"Name the folder or data set with {option('--file')}.",
                )
            with tempfile.NamedTemporaryFile(prefix="manyheads-stdin-") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy, _PIECE)
                copy.flush()
                records = Source(
                    Path(copy.name), STDIN, layout=layout, needs_labels=False, keeps_empty_rows=True
                )
                for row in chosen.read(records):
                    if not chosen.has_columns:
                        row = replace(row, fields=layout.renamed(row.fields))
                    yield from _row_texts(row, when_empty, pairs)
                if on_unread is not None:
                    on_unread(records.unread)
            return
        yield from map(GivenText, line_texts(lines_of(sys.stdin.buffer, source), STDIN, when_empty))
    except OSError as error:
        # Closed, or a folder.
        raise DataError(f"cannot be read ({error.strerror or error})", where=STDIN) from error


def file_texts(
    path: str,
    layout: Layout,
    when_empty: EmptyTexts,
    *,
    pairs: bool = False,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
) -> Iterator[GivenText]:
    """Yield the texts of a file: of its records, or of its lines where it has no records.

    The other fields of the records, their labels included, come with the texts.

    Args:
        path: any file that can be trained on, plain text (.txt, a pipe), or `-`.
        layout: its format and the names of its fields, as far as they are given.
        when_empty: what to do about a text that is empty.
        pairs: whether `text2`, where a record has it, makes a pair with its text.
        on_unread: receives, at the end, the counts of contents that are not read, by kind.

    Raises:
        DataError: something cannot be read, or is empty and refused.
    """
    if path == "-":
        yield from stdin_texts(when_empty, layout, pairs=pairs, on_unread=on_unread)
    elif layout.format == "text" or (layout == Layout() and has_lines(path)):
        empty = True
        source = Source(Path(path), path)
        with opened(source.path, path) as file:
            for text in line_texts(lines_of(file, source), path, when_empty):
                empty = False
                yield GivenText(text)
        if empty:
            raise DataError("the file is empty", where=path, expected="a sentence a line")
    else:
        rows = read_rows(
            path, layout=layout, needs_labels=False, keeps_empty_rows=True, on_unread=on_unread
        )
        for row in rows:
            yield from _row_texts(row, when_empty, pairs)


def record_texts(records: Any, field: str, *, pairs: bool = False) -> list[Text]:
    """Return the texts of records in memory, as those of a file (see `file_texts`).

    Args:
        records: records in any form that `in_memory` takes.
        field: the field of their texts.
        pairs: whether `text2`, where a record has it, makes a pair with its text.

    Raises:
        DataError: a record has no text.
    """
    layout = Layout() if field == "text" else Layout(names={field: "text"})
    if isinstance(records, Mapping) and field in records:
        # Columns are known by the names of their texts.
        records, layout = layout.renamed(records), Layout()
    texts = []
    with in_memory(records, "texts") as name:
        for row in read_rows(name, layout=layout, needs_labels=False, keeps_empty_rows=True):
            if not any(one in row.fields for one in TEXT_FIELDS):
                raise DataError(
                    f"there is no field {field!r}{nearest(field, row.fields)}",
                    where=row.where,
                    expected=f"one of: {listing(row.fields)}",
                    fix="Name the field of texts: text=NAME.",
                )
            texts += [one.text for one in _row_texts(row, EmptyTexts.FLAG, pairs)]
    return texts


def count_texts(path: str, format: str | None) -> int | None:
    """Count the texts of a file with one per line, to show the time left; None for other files.

    Counting lines takes a second for some gigabytes. Blank lines and line breaks inside the quotes
    of CSV make the count a little too high.

    Args:
        path: any file that `file_texts` takes.
        format: its format, if the user named it.
    """
    kind = format or _KINDS_OF_LINES.get(Path(path).suffix.lower())
    if kind not in _KINDS_OF_LINES.values():
        return None
    with suppress(OSError, ValueError):
        if stat.S_ISREG(Path(path).stat().st_mode):
            with Path(path).open("rb") as file:
                lines, piece = 0, b"\n"
                for piece in iter(partial(file.read, _PIECE), b""):
                    lines += piece.count(b"\n")
            return lines + (not piece.endswith(b"\n")) - (lines > 0 and kind in ("csv", "tsv"))
    return None


def has_lines(path: str) -> bool:
    """Return whether a path is plain text: by its ending, or a pipe such as `<(command)` makes."""
    if is_dataset_name(path):
        return False
    with suppress(OSError, ValueError):
        mode = Path(path).stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return True
        if stat.S_ISDIR(mode):
            return False
    return Path(path).suffix.lower() == ".txt"


def _row_texts(row: Row, when_empty: EmptyTexts, pairs: bool) -> Iterator[GivenText]:
    fields = other_fields(row.fields)
    text = row.fields.get("text")
    if text is None and "text" in row.fields and row.fields.get("tokens") is None:
        text = ""
    if isinstance(text, str) and (not text or text.isspace()):
        yield from (GivenText(t, fields, row.where) for t in _kept(text, when_empty, row.where))
        return
    text, tokens = read_text(row)
    if pairs and (other := row.fields.get(SECOND_TEXT)) is not None:
        pair = TextPair(text, check_text(other, SECOND_TEXT, row.where))
        yield GivenText(pair, fields, row.where)
        return
    # Tokens that stand beside their own text are found in it again; alone, they are the text.
    given = text if tokens is None or "text" in row.fields else [text[s:e] for s, e in tokens]
    yield GivenText(given, fields, row.where)


def _kept(text: str, when_empty: EmptyTexts, where: str) -> Iterator[Text]:
    if (text and not text.isspace()) or when_empty is EmptyTexts.FLAG:
        yield text
    elif when_empty is EmptyTexts.REFUSE:
        raise RequestError(
            f"the text is {'only white space' if text else 'empty'}",
            where=where,
            expected="a sentence",
            fix="Remove it, or use "
            + option("--when-empty skip, or flag", '`when_empty="skip"`, or `"flag"`')
            + ", which answers it without labels.",
        )


def is_person(stream: object) -> bool:
    """Return whether a stream is a terminal, where a person can type."""
    isatty = getattr(stream, "isatty", None)
    try:
        return bool(isatty and isatty())
    except ValueError:  # closed
        return False
