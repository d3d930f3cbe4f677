"""Examples with their entities, as tools for chat bots write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from manyheads.data.readers.row import Source
from manyheads.errors import DataError, option, shorten

_BRACKETS = re.compile(r"\[\s*([^\[\]:]+?)\s*:\s*([^\[\]]*?)\s*\]")


def entity(start: int, end: int, label: str) -> dict[str, Any]:
    """Return an entity in the form of records."""
    return {"start": start, "end": end, "label": label}


def entity_type(label: Any, values: Mapping[str, Any], source: Source, where: str) -> Any:
    """Return an entity's type, joined with its role and group if the layout says how.

    Otherwise these are counted as unread. What is no type stays as it is.

    Args:
        label: the type.
        values: the entity's attributes.
        source: the file.
        where: the entity's place.

    Raises:
        DataError: a role or group that is to be joined is neither a text nor a whole number.
    """
    more = {key: values[key] for key in ("role", "group") if values.get(key) not in (None, "")}
    separator = source.layout.role_separator
    if more and separator is not None:
        for key, value in more.items():
            if type(value) not in (str, int):
                raise DataError(
                    f"the {key} of an entity is {shorten(value)}",
                    where=where,
                    expected="a text or a whole number",
                )
        is_type = isinstance(label, str) and label.strip()
        return separator.join(map(str, [label, *more.values()])) if is_type else label
    if more:
        joined = option("--role-separator _", '`layout=Layout(role_separator="_")`')
        source.pass_over(f"roles and groups of entities, which {joined} joins to their types")
    return label


def as_list(value: Any, key: str, where: str, expected: str = "a list") -> list[Any]:
    """Return the value of a key if it is a list.

    Raises:
        DataError: it is something else.
    """
    if type(value) is list:
        return value
    raise DataError(f"`{key}` is {shorten(value)}", where=where, expected=expected)


def from_utf16(text: str) -> Callable[[int], int]:
    """Return the conversion of positions in UTF-16 units to positions in characters.

    C# and JavaScript count these units, two of which are an emoji. Positions outside the text
    stay outside.
    """
    units = text.encode("utf-16-le", "surrogatepass")

    def convert(position: int) -> int:
        before = units[: 2 * max(position, 0)]
        return position - len(before) // 2 + len(before.decode("utf-16-le", "replace"))

    return convert


def from_example(
    value: Any, source: Source, where: str, start: str, end: str, beyond: int = 0,
    is_utf16: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Read an object with `text`, `intent` and `entities` to `text`, `label` and `entities`.

    Args:
        value: the object.
        source: the file.
        where: its place.
        start: the key of an entity's first character.
        end: the key of its end.
        beyond: how far the end of the entity lies beyond that, 1 if the last character is meant.
        is_utf16: whether UTF-16 units are counted rather than characters.

    Raises:
        DataError: it is something else.
    """
    try:
        fields = {"text": value["text"], "label": value.get("intent")}
        if (entities := value.get("entities")) is not None:
            spans = [(e[start], e[end] + beyond, e["entity"]) for e in entities]
            if is_utf16:
                convert = from_utf16(value["text"])
                spans = [(convert(begin), convert(stop), label) for begin, stop, label in spans]
            fields["entities"] = [
                entity(begin, stop, entity_type(label, given, source, where))
                for (begin, stop, label), given in zip(spans, entities, strict=True)
            ]
        return fields
    except (TypeError, KeyError, AttributeError):
        raise DataError(
            f"the example is {shorten(value)}",
            where=where,
            expected=f"an object with text, intent, and entities of {start}, {end} and entity",
        ) from None


def from_pieces(pieces: Iterable[tuple[str, str | None]]) -> dict[str, Any]:
    """Join pieces of a text, each with the label of its entity or None, to `text` and `entities`.

    White space at the borders of an entity is not part of it, and the text is stripped.
    """
    text, entities = "", []
    for piece, label in pieces:
        start = len(text)
        text += piece
        words = piece.strip()
        if label is not None and words:
            begin = start + piece.index(words)
            entities.append(entity(begin, begin + len(words), label))
    lead = len(text) - len(text.lstrip())
    for item in entities:
        item["start"] -= lead
        item["end"] -= lead
    return {"text": text.strip(), "entities": entities}


def from_brackets(text: str) -> dict[str, Any]:
    """Convert `wake me at [time : six am]` to `text` and `entities`."""
    pieces: list[tuple[str, str | None]] = []
    position = 0
    for match in _BRACKETS.finditer(text):
        pieces.append((text[position : match.start()], None))
        pieces.append((match.group(2), match.group(1)))
        position = match.end()
    pieces.append((text[position:], None))
    return from_pieces(pieces)
