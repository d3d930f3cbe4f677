"""The first bytes of a file, by which its format is recognised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from manyheads.data.readers.delimited import SEPARATOR
from manyheads.data.readers.json_lines import DECODER, SPACE
from manyheads.data.readers.row import Layout
from manyheads.data.readers.text_lines import UTF8_BOM

HEAD_BYTES = 2**16


@dataclass(frozen=True)
class Head:
    """The first bytes of a file, and views without a byte-order mark and Excel's `sep=` line."""

    data: bytes
    ending: str
    """The file name's last suffix except `.gz`, in lower case."""
    layout: Layout = field(default_factory=Layout)

    @cached_property
    def text(self) -> str:
        """The beginning as text; bytes that are not UTF-8 become replacement characters."""
        return self._content.lstrip(SPACE)

    @cached_property
    def lines(self) -> list[str]:
        """The whole lines, without their ends."""
        lines = self._content.replace("\r\n", "\n").split("\n")
        return lines[:-1] if len(self.data) >= HEAD_BYTES else lines

    @cached_property
    def _content(self) -> str:
        content = self.data.removeprefix(UTF8_BOM).decode(errors="replace")
        stated = SEPARATOR.match(content)
        return content if stated is None else content[stated.end() :]

    @cached_property
    def values(self) -> list[Any]:
        """The first JSON values: of lines, or items of a list. Empty if the text is not JSON."""
        return list(self._values())

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """The JSON values, if all of them are objects."""
        return self.values if all(type(value) is dict for value in self.values) else []

    def _values(self) -> Iterator[Any]:
        text = self.text
        # Behind `["`, there is a pair on a line rather than a list of records.
        position = 1 if re.match(r'\[(?!\s*")', text) else 0
        while position < len(text):
            while text[position : position + 1] in (*SPACE, ",") and position < len(text):
                position += 1
            try:
                value, position = DECODER.raw_decode(text, position)
            except (json.JSONDecodeError, RecursionError, ValueError):
                return
            yield value
