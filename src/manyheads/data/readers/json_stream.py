"""JSON of any size, decoded value by value over a sliding window of the file."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from manyheads.data.readers.json_lines import DECODER, broken, expect_object, read_json_lines
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import not_utf8, nul_byte, opened
from manyheads.errors import DataError, at

_CHUNK = 2**18
_SPACE = re.compile(r"[ \t\r\n]*")

# How far before the end of the window a decoding error can be if the window merely cut a valid
# value: "-Infinity", or a pair of \uXXXX escapes.
_LONGEST_CUT = 16

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A value of a JSON file and its place."""

    keys: Keys
    """The keys of the objects around it; a list around it adds an empty one."""
    value: Any
    row: Row
    """Its place, with the value as fields if it is an object."""


def read_json_values(
    source: Source, enter: Callable[[Keys], bool], opening: str = "[{"
) -> Iterator[JsonValue]:
    """Yield the values of a JSON file, in memory bounded by the largest of them.

    Args:
        source: the file.
        enter: given the keys around a list or object, returns whether it contains the values
            rather than being one.
        opening: the brackets with which the file may begin.

    Raises:
        DataError: the JSON is broken, so that the next value cannot be found.
    """
    with opened(source.path, source.name) as file:
        window = Window(file, source)
        if window.next_character() not in [*opening]:
            wanted = {"[": "a list of objects", "{": "an object"}.get(
                opening, "a list or an object"
            )
            raise window.error(f"the file does not begin with {' or '.join(opening)}", wanted)
        yield from _values(window, source, (), enter)
        if window.next_character():
            kind = "list" if opening == "[" else "value"
            raise window.error(f"text follows the end of the {kind}", "the end of the file")


def read_objects(source: Source) -> Iterator[Row]:
    """Yield the objects of a JSON list or of JSON lines."""
    return read_json_list(source) if begins_with(source, "[") else read_json_lines(source)


def read_json_list(source: Source) -> Iterator[Row]:
    """Yield the objects of a JSON list; other values can be skipped, broken JSON cannot."""
    for item in read_json_values(source, lambda keys: not keys, "["):
        try:
            expect_object(item.value, item.row.where)
        except DataError as error:
            source.refuse(error)
        else:
            yield item.row


def begins_with(source: Source, beginning: str) -> bool:
    """Return whether a JSON file begins with these characters, apart from white space."""
    with opened(source.path, source.name) as file:
        window = Window(file, source)
        for character in beginning:
            if window.next_character() != character:
                return False
            window.position += 1
    return True


def _values(
    window: Window, source: Source, keys: Keys, enter: Callable[[Keys], bool]
) -> Iterator[JsonValue]:
    """Yield the value at the window's position, or the values inside it."""
    bracket = window.next_character()
    if bracket not in ("[", "{") or not enter(keys):
        window.record += 1
        line = window.line
        value = window.value()
        fields = value if type(value) is dict else {}
        yield JsonValue(keys, value, Row(source.name, line, "line", fields, window.record))
        return
    what, closing = ("list", "]") if bracket == "[" else ("object", "}")
    window.position += 1
    if window.next_character() == closing:
        window.position += 1
        return
    seen = set()
    while True:
        inner = (*keys, "")
        if bracket == "{":
            key = window.key()
            if key in seen:
                raise window.error(f"the key {key!r} is repeated", "each key once")
            seen.add(key)
            inner = (*keys, key)
        yield from _values(window, source, inner, enter)
        end = window.next_character()
        if end not in (",", closing):
            found = f"the file ends inside the {what}" if not end else f"{end!r} after a record"
            raise window.error(found, f"a comma, or {closing} at the end of the {what}")
        window.position += 1
        if end == closing:
            return
        window.next_character()


class Window:
    """The part of the file that is in memory, and its position in the file."""

    def __init__(self, file: BinaryIO, source: Source) -> None:
        self._file, self._source = file, source
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes = 0
        self._lines = 0
        self._ended = False
        self._text = ""
        # The column of the window's first character; the line of the character at `_counted`.
        self._column = 1
        self._line, self._counted = 1, 0
        self.position = 0
        self.record = 0

    @property
    def line(self) -> int:
        """The line that `position` is on."""
        self._line += self._text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def next_character(self) -> str:
        """Move to the next character that is not white space; empty at the end of the file."""
        while True:
            # The pattern also matches the empty string, so it always matches.
            self.position = _SPACE.match(self._text, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self._text):
                return self._text[self.position]
            if not self._read(_CHUNK):
                return ""

    def value(self) -> Any:
        """Return the JSON value at `position` and move past it.

        Raises:
            DataError: there is none, or it is larger than a record may be.
        """
        size = _CHUNK
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self.position)
            except RecursionError as error:
                raise broken(error, self._where(self.line)) from None
            except json.JSONDecodeError as error:
                if not self._is_cut(error) or not self._read(size):
                    raise self._broken(error) from None
            except ValueError as error:
                raise broken(error, self._where(self.line)) from None
            else:
                # A number may continue beyond the window; an object, list or string cannot.
                if end < len(self._text) or type(value) in (dict, list, str):
                    return self._accept(value, end)
                if not self._read(size):
                    return self._accept(value, end)
            if len(self._text) - self.position > self._source.limit:
                raise self._source.too_large(self.line)
            # Each read starts decoding again: doubling keeps the total work linear.
            size *= 2

    def _accept(self, value: Any, end: int) -> Any:
        # A character has at most four bytes, so only large records are counted exactly.
        limit = self._source.limit
        if 4 * (end - self.position) > limit:
            size = len(self._text[self.position : end].encode())
            if size > limit:
                raise self._source.too_large(self.line)
        self.position = end
        return value

    def key(self) -> str:
        """Return the key at `position` and move past its colon.

        Raises:
            DataError: there is none.
        """
        if self.next_character() != '"':
            raise self.error("no key in an object", 'a text in double quotes, such as "text"')
        key: str = self.value()
        if self.next_character() != ":":
            raise self.error(f"no colon after the key {key!r}", "a colon")
        self.position += 1
        return key

    def error(self, found: str, expected: str) -> DataError:
        """Make an error about the text at `position`."""
        column = self._column_of(self.position)
        return DataError(
            f"broken JSON at column {column}: {found}",
            where=self._where(self.line),
            expected=expected,
        )

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether the end of the window may be the only cause of a failure."""
        near_end = error.pos >= len(self._text) - _LONGEST_CUT
        return near_end or error.msg.startswith("Unterminated string")

    def _broken(self, error: json.JSONDecodeError) -> DataError:
        start = error.doc.count("\n", self._counted, error.pos)
        return broken(error, self._where(self._line + start), self._column_of(error.pos))

    def _where(self, line: int) -> str:
        place = at(self._source.name, line)
        return f"{place} (record {self.record})" if self.record else place

    def _column_of(self, position: int) -> int:
        begin = self._text.rfind("\n", 0, position)
        return self._column + position if begin < 0 else position - begin

    def _read(self, size: int) -> bool:
        """Drop the text before `position` and append up to `size` more bytes of the file."""
        if self._ended:
            return False
        data = self._file.read(size)
        self._ended = not data
        try:
            text = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            line = 1 + self._lines + error.object.count(b"\n", 0, error.start)
            offset = self._bytes + len(data) - len(error.object) + error.start
            byte = error.object[error.start]
            raise not_utf8(self._source, line, offset, byte) from None
        # At the end of the file nothing moves, so that an error's position stays valid.
        if not data:
            return False
        if "\0" in text:
            line = 1 + self._lines + text.count("\n", 0, text.index("\0"))
            raise nul_byte(self._source.name, line)
        self._bytes += len(data)
        self._lines += text.count("\n")
        self._column = self._column_of(self.position)
        self._line, self._counted = self.line, 0
        self._text = self._text[self.position :] + text
        self.position = 0
        return True
