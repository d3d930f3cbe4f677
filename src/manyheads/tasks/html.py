"""Small HTML tables with which notebooks show models, predictions and scores.

All text is escaped: it comes from users and models. Its direction is that of its script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

_MARK = "background:#cfe2ff;color:#052c65;padding:0 .25em;border-radius:.25em;unicode-bidi:isolate"

_START = "text-align:start"


class Marked(NamedTuple):
    """A stretch of a text to mark, characters `start` to `end`, with a label."""

    start: int
    end: int
    label: str


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table; cells that are `Html` stay as they are."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td dir="auto" style="{_START}">{_cell(c)}</td>' for c in row) + "</tr>"
        for row in rows
    )
    title = f'<caption dir="auto" style="{_START}">{escape(caption)}</caption>'
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _cell(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))


def marked(text: str, spans: Iterable[Marked]) -> Html:
    """Return a text with stretches marked; of overlapping ones only the first is marked."""
    parts, end = [], 0
    for span in sorted(spans):
        if span.start < end:
            continue
        parts += [
            escape(text[end : span.start]),
            f'<mark style="{_MARK}">{escape(text[span.start : span.end])} '
            f'<b dir="auto"><small>{escape(span.label)}</small></b></mark>',
        ]
        end = span.end
    return Html("".join([*parts, escape(text[end:])]))
